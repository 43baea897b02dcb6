"""Local data: the user's own folder of images and masks, in one of several layouts."""

import io
import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cellular.base.errors import Faults, InputError
from cellular.fetching.params import DataParams
from cellular.fetching.remotes import repository
from cellular.imaging.fields import MASKS
from cellular.imaging.images import image_files, label_files, read_labels, write_tiff
from cellular.imaging.masks import check_separated

log = logging.getLogger(__name__)

IMG = "_img"
SEG = "_seg"
CELLPOSE_MASKS = ("_cp_masks", MASKS)  # as Cellpose's command line and its training name them
CELLPOSE_OTHER = ("_flows", "_cp_flows", "_cp_output", "_cp_outlines")  # its other output files
Reader = Callable[[Path], np.ndarray]  # of a file with a label map
LAYOUTS = {
    "paper": "images/<field>.<ext> and masks/<field>/<class>/<name>.png",
    "labels": "images/<field>.<ext> and masks/<field>.<png|tif>",
    "cellpose": f"<field>.<ext> or <field>{IMG}.<ext> beside <field>{MASKS}.<png|tif>",
    "seg": f"<field>.<ext> beside <field>{SEG}.npy",
}


def local_folder(path: str) -> Path:
    """Return the folder that `data.path` names; a relative path starts at the repository's root.

    DVC runs experiments in temporary copies of the repository, where the relative path still means
    the user's folder.
    """
    return repository() / Path(path).expanduser()


def import_folder(params: DataParams, output: Path) -> None:
    """Write a user's folder to `<output>/images` and `<output>/masks`, as `prepare` expects them.

    Raises
    ------
    InputError
        One error that lists every fault: an image or masks without the other, a binary mask in
        place of a label map, a file that cannot be read.
    """
    if params.path is None:
        raise InputError("dataset local needs data.path, the folder of your images and masks")
    folder = local_folder(params.path)
    if not folder.is_dir():
        raise InputError(
            f"data.path {params.path!r}: there is no folder {folder.resolve()}; give the folder of "
            "your images and masks (a relative path starts at the repository's root)"
        )
    layout = recognise(folder) if params.layout == "auto" else params.layout
    log.info("%s: layout %s, %s", folder, layout, LAYOUTS[layout])
    for name in ("images", "masks"):
        (output / name).mkdir(parents=True)
    READERS[layout](folder, output)


def recognise(folder: Path) -> str:
    """Return the layout of a folder, a key of `LAYOUTS`.

    Raises
    ------
    InputError
        If its files have none of the layouts, or several.
    """
    found = []
    if _images_of(folder) and (folder / "masks").is_dir():
        inside = [path for path in (folder / "masks").iterdir() if not path.name.startswith(".")]
        found += ["paper"] if any(path.is_dir() for path in inside) else []
        found += ["labels"] if image_files(folder / "masks") else []
    if any(path.stem.endswith(CELLPOSE_MASKS) for path in image_files(folder)):
        found.append("cellpose")
    if any(folder.glob(f"*{SEG}.npy")):
        found.append("seg")
    if len(found) == 1:
        return found[0]
    known = "; ".join(f"{name}: {what}" for name, what in LAYOUTS.items())
    what = f"files in several layouts ({', '.join(found)})" if found else "no layout that is known"
    raise InputError(f"{folder}: {what}; name one with data.layout. The layouts are {known}")


def _read_paper(folder: Path, output: Path) -> None:
    _copy_images(folder, output)
    for path in sorted((folder / "masks").rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            target = output / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _read_labels(folder: Path, output: Path) -> None:
    _copy_images(folder, output)
    found = _by_field(folder, label_files(folder / "masks"), MASKS)
    _write_labels(folder, found, read_labels, output)


def _read_cellpose(folder: Path, output: Path) -> None:
    files = [path for path in label_files(folder) if path.stem.endswith(CELLPOSE_MASKS)]
    _copy_pairs(folder, _by_field(folder, files, *CELLPOSE_MASKS), read_labels, output)


def _read_seg(folder: Path, output: Path) -> None:
    _copy_pairs(
        folder, _by_field(folder, sorted(folder.glob(f"*{SEG}.npy")), SEG), read_seg, output
    )


READERS = {
    "paper": _read_paper,
    "labels": _read_labels,
    "cellpose": _read_cellpose,
    "seg": _read_seg,
}


def _images_of(folder: Path) -> Path | None:
    """Return the folder of images beside `masks`; the authors' archive names it images-color."""
    found = [folder / name for name in ("images", "images-color") if (folder / name).is_dir()]
    return found[0] if found else None


def _copy_images(folder: Path, output: Path) -> None:
    """Copy the images of a layout that has a folder of images and one of masks."""
    source = _images_of(folder)
    if source is None or not (folder / "masks").is_dir():
        raise InputError(
            f"{folder}: expected a folder images and a folder masks in it; change data.path or "
            "data.layout"
        )
    for path in image_files(source):
        shutil.copyfile(path, output / "images" / path.name)


def _copy_pairs(folder: Path, found: dict[str, Path], read: Reader, output: Path) -> None:
    """Copy the images beside the label maps in one folder, and write those label maps."""
    others = (*CELLPOSE_MASKS, *CELLPOSE_OTHER)
    files = [path for path in image_files(folder) if not path.stem.endswith(others)]
    images = _by_field(folder, files, IMG)
    faults = Faults(f"{found[field]}: no image beside it" for field in found.keys() - images)
    faults += [f"{images[field]}: no masks beside it" for field in images.keys() - found]
    faults.sort()
    faults.raise_all(folder)
    for field, path in images.items():
        shutil.copyfile(path, output / "images" / f"{field}{path.suffix}")
    _write_labels(folder, found, read, output)


def _by_field(folder: Path, paths: list[Path], *endings: str) -> dict[str, Path]:
    """Return files by field: the file's name without the first of the `endings` that it has.

    Raises
    ------
    InputError
        If there are several files of one field.
    """
    fields: dict[str, list[Path]] = {}
    for path in paths:
        ending = next((ending for ending in endings if path.stem.endswith(ending)), "")
        fields.setdefault(path.stem.removesuffix(ending), []).append(path)
    Faults(
        f"{' and '.join(map(str, several))}: {len(several)} files of one field; keep one"
        for several in fields.values()
        if len(several) > 1
    ).raise_all(folder)
    return {field: found for field, (found,) in fields.items()}


def _write_labels(folder: Path, found: dict[str, Path], read: Reader, output: Path) -> None:
    """Write the label map of each field as `<output>/masks/<field>.tif`."""

    def write(field: str) -> None:
        labels = read(found[field])
        check_separated(found[field], labels)
        # 32 bits, because maps with too many objects for 16 are refused later, by `prepare`.
        write_tiff(output / "masks" / f"{field}.tif", labels.astype(np.uint32))

    faults = Faults()
    faults.map(write, sorted(found), "import")
    faults.raise_all(folder)


class _Arrays(pickle.Unpickler):
    """An unpickler of numpy arrays and plain Python values that never runs code from the file."""

    ALLOWED = frozenset(
        (module, name)
        for package in ("numpy.core", "numpy._core")
        for module, names in {
            f"{package}.multiarray": ("_reconstruct", "scalar"),
            f"{package}.numeric": ("_frombuffer",),
        }.items()
        for name in names
    ) | {("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, which is not run")
        return super().find_class(module, name)


def read_seg(path: Path) -> np.ndarray:
    """Return the label map, (H, W) integer, in a `_seg.npy` that Cellpose's GUI saved.

    Such a file is a pickled dictionary; only arrays and plain values are unpickled.

    Raises
    ------
    InputError
        If the file is damaged, holds anything else, or its masks are not one plane.
    """
    damaged = (
        *(pickle.UnpicklingError, ValueError, EOFError, KeyError, AttributeError),
        *(IndexError, TypeError, ImportError),
    )
    content = io.BytesIO(path.read_bytes())
    try:
        version = np.lib.format.read_magic(content)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        read_header(content)
        labels = np.asarray(_Arrays(content).load().item()["masks"])
    except damaged as error:
        raise InputError(
            f"{path}: the masks of Cellpose's GUI cannot be read ({' '.join(str(error).split())}); "
            "save the file again in the GUI"
        ) from None
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{path}: masks of shape {labels.shape} and dtype {labels.dtype}, expected whole "
            "numbers of shape (H, W); save one plane in Cellpose's GUI"
        )
    return labels
