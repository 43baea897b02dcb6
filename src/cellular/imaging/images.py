"""Images and label maps on disk: PNG, JPEG and TIFF files, checked while they are read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

import cv2
import numpy as np
import tifffile

from cellular.base.errors import InputError

TIFF = (".tif", ".tiff")
SUFFIXES = (".png", ".jpg", ".jpeg", *TIFF)
MOST_OBJECTS = np.iinfo(np.uint16).max  # in a label map
SYSTEM_FILES = (".DS_Store", "._*", "Thumbs.db", "desktop.ini")  # that no user has put there
LARGEST = np.float64(1e30)  # value of a pixel; the network computes in float32, up to 3.4e38
STACKS = {"Z": "planes in depth", "T": "time points"}  # by tifffile's letter of the axis

_REMEDY = "fetch or export the file again"
_SAVE_EACH = "save each of them, or a projection, as a file"


def is_image(path: Path) -> bool:
    """Tell whether `path` is a file with the suffix of an image, and not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def is_mask(path: Path) -> bool:
    """Tell whether `path` is an image file that can be a mask or label map, which excludes JPEG.

    JPEG changes pixels around every edge: a cell of 253 pixels came back as one of 377.
    """
    return is_image(path) and path.suffix.lower() in (".png", *TIFF)


def image_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the image files right inside `folder` whose names match, sorted by name."""
    return sorted(path for path in Path(folder).glob(pattern) if is_image(path))


def label_files(folder: Path) -> list[Path]:
    """Return the image files of `folder` that can be label maps."""
    return [path for path in image_files(folder) if is_mask(path)]


def others(folder: Path, used: Callable[[Path], bool]) -> list[Path]:
    """Return what lies right inside `folder`, is not `used`, and is no file of the system."""
    return sorted(
        path
        for path in Path(folder).iterdir()
        if not used(path) and not any(map(path.match, SYSTEM_FILES))
    )


def read_image(path: Path, *, numbers: bool = False) -> np.ndarray:
    """Read an image.

    Parameters
    ----------
    numbers : read the numbers in a TIFF that has a colour table, as label maps of ImageJ have;
        such files are refused otherwise, because the numbers are not the colours that one sees

    Returns
    -------
    (H, W) or (H, W, C) array
        In the file's own dtype, colours in the order R, G, B. The channels of a TIFF may come first
        or last in the file. Where it does not say what an axis is, up to 4 planes are channels.

    Raises
    ------
    InputError
        If the file is missing, cut short, not an image, a stack, or has pixels without a number.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such image file")
    if path.suffix.lower() in TIFF:
        with path.open("rb") as file, reading_tiff(path, file) as tiff:
            stored = tiff_pixels(path, tiff, numbers=numbers)
            axes, named = tiff.series[0].axes, tiff.is_imagej or tiff.is_ome
        image = channels_last(path, stored, axes, named=named)
        if image.ndim == 3 and image.shape[2] > 4:
            raise not_one_plane(path, image.shape, "2 to 4 channels")
    else:
        image = decode(path, path.read_bytes())
    check_pixels(path, image)
    return image


def check_pixels(path: Path, image: np.ndarray) -> None:
    """Raise `InputError` unless an image has pixels, and a finite real number in each."""
    if not image.size:
        raise InputError(f"{path}: an image without pixels; {_REMEDY}")
    if np.issubdtype(image.dtype, np.complexfloating):
        raise InputError(f"{path}: complex numbers, expected real ones; save what is to be seen")
    if np.issubdtype(image.dtype, np.floating):
        bad = image.size - np.count_nonzero(np.abs(image) <= LARGEST)  # NaN is never below
        if bad:
            raise InputError(
                f"{path}: {bad:,} of {image.size:,} values are NaN, infinite or above {LARGEST:g}; "
                "replace them in the file, such as by 0"
            )


def decode(path: Path, data: bytes) -> np.ndarray:
    """Return the image, (H, W) or (H, W, C), that the bytes of a PNG or JPEG hold.

    Raises
    ------
    InputError
        If OpenCV cannot read them, or they are cut short; it names `path`.
    """
    if path.suffix.lower() in (".jpg", ".jpeg") and b"\xff\xd9" not in data[-1024:]:
        # OpenCV would fill the missing part with grey and raise no error.
        raise InputError(f"{path}: cut short, its end marker is missing; {_REMEDY}")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    except cv2.error:
        raise InputError(
            f"{path}: OpenCV cannot read it; it reads at most {1 << 30:,} pixels and a million a "
            "side. Cut the image into smaller ones"
        ) from None
    if image is None:
        raise InputError(
            f"{path}: no readable image, or cut short ({len(data):,} bytes); {_REMEDY}"
        )
    if image.ndim == 3:
        order = [2, 1, 0, 3] if image.shape[2] == 4 else [2, 1, 0]
        image = image[..., order]
    return image


@contextmanager
def reading_tiff(path: Path, file: BinaryIO) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF, and turn what its decoders raise in the block into an `InputError`."""
    try:
        with tifffile.TiffFile(file) as tiff:
            yield tiff
    except InputError:
        raise
    except Exception as error:  # each codec raises its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: no readable TIFF, or cut short ({reason}); {_REMEDY}") from None


def tiff_pixels(path: Path, tiff: tifffile.TiffFile, *, numbers: bool = False) -> np.ndarray:
    """Return the first series of a TIFF, with the axes that tifffile names in `series[0].axes`.

    Parameters
    ----------
    numbers : see `read_image`
    """
    series = tiff.series[0]
    # A JPEG that ends early is decoded without an error, and its end is grey.
    ends = [
        offset + count
        for each in series.pages
        if each is not None
        for offset, count in zip(each.dataoffsets, each.databytecounts, strict=False)
    ]
    if max(ends, default=0) > tiff.filehandle.size:
        raise ValueError("its pixels end after the file")
    image = series.asarray()
    if len(series.axes) != image.ndim:
        raise ValueError(f"axes {series.axes} for the shape {image.shape}")
    if series.keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE and not numbers:
        raise InputError(
            f"{path}: colours by numbers of a colour table, expected grey or RGB; save it as either"
        )
    return image.astype(np.uint8) if image.dtype == bool else image


def channels_last(
    path: Path, image: np.ndarray, axes: str, *, named: bool, remedy: str = _SAVE_EACH
) -> np.ndarray:
    """Return an image of any number of channels as (H, W) or (H, W, C).

    Parameters
    ----------
    axes : tifffile's letter for each axis: C and S are channels, Q and I not known
    named : whether the file comes from a program that names its channels, so that an axis without
        a name is none of channels; otherwise up to 4 planes of an axis without a name are channels
    remedy : what to do about a stack

    Raises
    ------
    InputError
        If another axis is longer than 1, or there are not one or three axes.
    """
    check_axes(path, image.shape, axes, named=named, remedy=remedy)
    single = [place for place, axis in enumerate(axes) if _is_single(axis, image.shape[place])]
    image = np.squeeze(image, tuple(single))
    axes = "".join(axis for place, axis in enumerate(axes) if place not in single)
    if image.ndim == 3:
        channels = [place for place, axis in enumerate(axes) if axis in "CS"]
        if not channels and image.shape[0] < 5 <= min(image.shape[1:]):
            channels = [0]
        image = np.moveaxis(image, channels, [-1] * len(channels))
    if image.ndim not in (2, 3):
        raise not_one_plane(path, image.shape, "channels in one axis")
    return image


def check_axes(
    path: Path, shape: tuple[int, ...], axes: str, *, named: bool, remedy: str = _SAVE_EACH
) -> None:
    """Raise `InputError` if an axis is one of a stack; see `channels_last`.

    It needs no pixels: a stack can be larger than the memory.
    """
    for axis, count in zip(axes, shape, strict=True):
        if not _is_single(axis, count) and axis not in ("YXCS" if named else "YXCSQI"):
            raise InputError(
                f"{path}: a stack of {count} {STACKS.get(axis, 'images')} (axis {axis}), expected "
                f"one image with its channels; {remedy}"
            )


def _is_single(axis: str, count: int) -> bool:
    return count == 1 and axis not in "YX"


def not_one_plane(path: Path, shape: tuple[int, ...], channels: str) -> InputError:
    """Return the error about an image of a shape that is neither (H, W) nor (H, W, C)."""
    return InputError(
        f"{path}: shape {shape}, expected one plane (H, W) or {channels}; "
        "split stacks into single images"
    )


def read_labels(path: Path) -> np.ndarray:
    """Read a label map: 0 is background, every other value is one object.

    Returns
    -------
    (H, W) array
        In the file's own integer dtype.

    Raises
    ------
    InputError
        If the file cannot be read, has several channels, or holds fractions or negative numbers.
    """
    labels = read_image(path, numbers=True)
    check_labels(path, labels)
    return labels


def check_labels(path: Path, labels: np.ndarray) -> None:
    """Raise `InputError` unless `labels` are whole numbers from 0 on, (H, W)."""
    if labels.ndim != 2:
        raise InputError(
            f"{path}: shape {labels.shape}, expected a label map with one channel (H, W); "
            "masks with one object per file belong in <field>/<class>/"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{path}: dtype {labels.dtype}, expected a label map of whole numbers; "
            "save it with 16 bits"
        )
    if np.issubdtype(labels.dtype, np.signedinteger) and labels.min(initial=0) < 0:
        raise InputError(
            f"{path}: holds {labels.min()}, expected labels from 0 on; give the background 0"
        )


def write_tiff(path: Path, image: np.ndarray) -> None:
    """Write an image, (H, W) or (H, W, 3), as compressed TIFF in its own dtype.

    The file holds no date and no software version: the same pixels always give the same bytes.
    """
    photometric: Literal["rgb", "minisblack"] = "rgb" if image.ndim == 3 else "minisblack"
    tifffile.imwrite(
        path, image, photometric=photometric, compression="zlib", metadata=None, software=False
    )


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write a label map, (H, W) uint16, as PNG or compressed TIFF, depending on the suffix.

    Raises
    ------
    InputError
        If OpenCV cannot write files with this suffix, or there are more than 65,535 objects.
    """
    if labels.dtype == np.uint32:
        raise InputError(
            f"{path}: {labels.max():,} objects, at most {MOST_OBJECTS:,} fit 16 bits; cut the "
            "image into smaller ones"
        )
    if labels.dtype != np.uint16 or labels.ndim != 2:
        raise ValueError(f"expected (H, W) uint16, found {labels.shape} {labels.dtype}")
    if path.suffix.lower() in TIFF:
        write_tiff(path, labels)
        return
    done, encoded = cv2.imencode(path.suffix, labels)
    if not done:
        raise InputError(f"{path}: OpenCV cannot write {path.suffix}; use .png or .tif")
    path.write_bytes(encoded.tobytes())
