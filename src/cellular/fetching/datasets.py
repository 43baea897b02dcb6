"""Data sets of the catalogue: fetched, verified, and written in the layout that stages expect."""

import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from cellular.base.errors import Faults, InputError
from cellular.base.files import check_apart, check_new, whole
from cellular.fetching.archives import below, check_archive, fetch_members, matching, unpack
from cellular.fetching.downloads import cache_dir, check_space, fetch, reaching, session
from cellular.fetching.local import import_folder, local_folder
from cellular.fetching.params import DataParams
from cellular.fetching.remotes import is_local, resolve
from cellular.fetching.sources import DatasetSource, catalogue
from cellular.imaging.fields import find_images, image_of
from cellular.imaging.images import read_image, write_tiff
from cellular.imaging.rendering import MERGED_COLOURS, MERGED_RANGES, PERCENTILES, render

log = logging.getLogger(__name__)

WAVES = ("w1", "w2", "w3")  # FITC (EGFP), Texas Red (mRFP), transmitted light
RGB = ("w2", "w1", "w3")  # the order of the channels in images


def fetch_dataset(
    name: str, output_dir: Path, data: DataParams | None = None, *, force: bool = False
) -> dict[str, int]:
    """Write a data set of the catalogue to `<output_dir>/images`, `masks` and `channels`.

    If its cells are annotated by boxes, images and boxes lie beside each other in `output_dir`.

    Parameters
    ----------
    data : where the user's own files are, for the data set local; how channels become images

    Returns
    -------
    dict
        The number of files in each folder, or of each suffix if there are no folders.

    Raises
    ------
    InputError
        If there is no such data set, or its files cannot be fetched or are not those that the
        catalogue describes.
    """
    output_dir = Path(output_dir)
    source = catalogue().dataset(name)
    data = data or DataParams()
    check_apart([output_dir], [local_folder(data.path)] if data.path else [])
    check_new(output_dir, force=force)
    with whole(output_dir) as staging:
        staging.mkdir()
        HOW[source.how](source, staging, data)
        if data.colours:
            images = staging if source.how == "boxes" else staging / "images"
            colour(images, data.colours, data.ranges, f"the data set {name}")
        files = [path for path in sorted(staging.rglob("*")) if path.is_file()]
        return dict(
            Counter(
                path.suffix[1:] if path.parent == staging else path.relative_to(staging).parts[0]
                for path in files
            )
        )


def _fetch(name: str) -> Path:
    """Fetch a file of the catalogue and log its licence and citation."""
    path = fetch(name, catalogue().files[name], check_archive)
    _log_terms(name)
    return path


def _log_terms(name: str) -> None:
    source = catalogue().files[name]
    log.info("licence: %s", source.licence)
    log.info("citation: %s", source.citation)


def _archive(source: DatasetSource, staging: Path, data: DataParams) -> None:
    archive = _fetch(source.file)
    for folder, wanted in source.members.items():
        place = below(wanted, archive) if source.how == "folders" else matching(wanted)
        unpack(archive, staging / folder, place)


def _channels(source: DatasetSource, staging: Path, data: DataParams) -> None:
    masks = _fetch(source.file)
    unpack(masks, staging / "masks", below("masks", masks))
    fields = sorted(path.name for path in (staging / "masks").iterdir() if path.is_dir())
    files = [f"{field}_{wave}.TIF" for field in fields for wave in WAVES]
    images = catalogue().files[source.images]
    address = resolve(images.url)
    log.info("fetching %d members of %s: %s", len(files), images.url, images.what)
    channels = staging / "channels"
    if is_local(address):
        if not Path(address).is_file():
            raise InputError(
                f"{address}: no such file in the folder that stands in for {images.url}"
            )
        members = {PurePosixPath("images", name): PurePosixPath(name) for name in files}
        unpack(Path(address), channels, members.get)
    else:
        # Kept with the downloads, so that an interrupted fetch resumes with the missing members.
        kept = cache_dir() / f"members-of-{source.images}"
        with session() as http, reaching(address, source.images, images):
            fetch_members(http, address, [f"images/{name}" for name in files], kept)
        check_space(staging, sum((kept / "images" / name).stat().st_size for name in files))
        channels.mkdir()
        for name in files:
            shutil.copyfile(kept / "images" / name, channels / name)
    faults = Faults(f"{name}: not in {address}" for name in files if not (channels / name).exists())
    faults.raise_all(address)
    (staging / "images").mkdir()

    # Colours of one's own are those of the channels, and not of the merged picture.
    raw = data.rendering == "raw" or bool(data.colours)

    def merge(field: str) -> None:
        planes = [channels / f"{field}_{wave}.TIF" for wave in RGB]
        merge_channels(planes, staging / "images" / f"{field}.tif", raw=raw)

    faults.map(merge, fields, "merge")
    faults.raise_all(channels)


def merge_channels(paths: list[Path], target: Path, *, raw: bool = False) -> None:
    """Write a field's channels, images (H, W) in the order `RGB`, as one TIFF (H, W, 3).

    It is the authors' merged picture, uint8, or with `raw` the channels in their own dtype.

    Raises
    ------
    InputError
        If one cannot be read, has several channels, or another size than the others.
    """
    where = ", ".join(map(str, paths))
    write_tiff(target, merged([read_image(path) for path in paths], where, raw=raw))


def merged(planes: Sequence[np.ndarray], where: object, *, raw: bool = False) -> np.ndarray:
    """Return a field's channels as one image (H, W, 3), as `merge_channels` writes it.

    Parameters
    ----------
    planes : (H, W) each, in the order `RGB`
    where : the channels come from, in an error

    Raises
    ------
    InputError
        If one has several channels, or another size than the others.
    """
    shapes = {plane.shape for plane in planes}
    if len(shapes) != 1 or planes[0].ndim != 2:
        raise InputError(
            f"{where}: shapes {shapes}, expected one shape (H, W) for all; fetch the channels again"
        )
    stack = np.dstack(planes)
    return stack if raw else render(stack, MERGED_COLOURS, MERGED_RANGES)


def _boxes(source: DatasetSource, staging: Path, data: DataParams) -> None:
    folder = catalogue().files[source.file]
    for path, sha256 in source.hashes.items():
        file = folder.model_copy(update={"url": f"{folder.url}/{path}", "sha256": sha256})
        shutil.copyfile(fetch(path, file, check_archive), staging / PurePosixPath(path).name)
    _log_terms(source.file)


def _local(source: DatasetSource, staging: Path, data: DataParams) -> None:
    import_folder(data, staging)


def colour(images: Path, colours: Sequence[str], ranges: Sequence[str], where: str) -> None:
    """Replace each image in a folder by the sum of its channels in colours, an 8-bit TIFF.

    Parameters
    ----------
    colours, ranges : see `cellular.imaging.rendering`; no ranges are percentiles for all
    where : the images are, in an error

    Raises
    ------
    InputError
        One error that names every image that cannot be read or has another number of channels.
    """

    def render_file(field: str) -> None:
        path = image_of(images, field)
        image = np.atleast_3d(read_image(path))
        if image.shape[2] != len(colours):
            raise InputError(
                f"{path}: {image.shape[2]} channels, but data.colours has {len(colours)} "
                f"({', '.join(colours)}); give a colour for each channel"
            )
        path.unlink()
        picture = render(image, colours, ranges or [PERCENTILES] * len(colours))
        write_tiff(path.with_suffix(".tif"), picture)

    faults = Faults()
    faults.map(render_file, sorted(find_images(images)), "colours")
    # The folder is a copy, which the user does not know.
    Faults(fault.replace(f"{images}/", "") for fault in faults).raise_all(where)


HOW = {
    "members": _archive,
    "folders": _archive,
    "channels": _channels,
    "boxes": _boxes,
    "local": _local,
}
