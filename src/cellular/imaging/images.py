"""Images and label maps on disk: PNG, JPEG and TIFF files, checked while they are read."""

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import tifffile

from cellular.base.errors import InputError

TIFF = (".tif", ".tiff")
SUFFIXES = (".png", ".jpg", ".jpeg", *TIFF)
MOST_OBJECTS = np.iinfo(np.uint16).max  # in a label map

_REMEDY = "fetch or export the file again"


def is_image(path: Path) -> bool:
    """Tell whether `path` is a file with the suffix of an image, and not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def image_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the image files right inside `folder` whose names match, sorted by name."""
    return sorted(path for path in Path(folder).glob(pattern) if is_image(path))


def label_files(folder: Path) -> list[Path]:
    """Return the image files of `folder` that can be label maps, which excludes JPEG."""
    return [path for path in image_files(folder) if path.suffix.lower() in (".png", *TIFF)]


def read_image(path: Path) -> np.ndarray:
    """Read an image.

    Returns
    -------
    (H, W) or (H, W, C) array
        In the file's own dtype, colours in the order R, G, B. TIFFs of shape (C, H, W) with fewer
        than 5 channels are transposed.

    Raises
    ------
    InputError
        If the file is missing, cut short, not an image, or a stack.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such image file")
    if path.suffix.lower() in TIFF:
        return _read_tiff(path)
    data = path.read_bytes()
    if path.suffix.lower() in (".jpg", ".jpeg") and b"\xff\xd9" not in data[-1024:]:
        # OpenCV would fill the missing part with grey and raise no error.
        raise InputError(f"{path}: cut short, its end marker is missing; {_REMEDY}")
    image = None
    if data:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise InputError(
            f"{path}: no readable image, or cut short ({len(data):,} bytes); {_REMEDY}"
        )
    if image.ndim == 3:
        order = [2, 1, 0, 3] if image.shape[2] == 4 else [2, 1, 0]
        image = image[..., order]
    return image


def _read_tiff(path: Path) -> np.ndarray:
    try:
        with tifffile.TiffFile(path) as tiff:
            image = tiff.series[0].asarray()
    except Exception as error:  # each codec raises its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: no readable TIFF, or cut short ({reason}); {_REMEDY}") from None
    if image.ndim > 2:
        image = np.squeeze(image)
    if image.ndim == 3 and image.shape[0] < 5 <= min(image.shape[1:]):
        image = np.moveaxis(image, 0, -1)
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] > 4):
        raise InputError(
            f"{path}: shape {image.shape}, expected one plane (H, W) or 2 to 4 channels; "
            "split stacks into single images"
        )
    return image


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
    labels = read_image(path)
    if labels.ndim != 2:
        raise InputError(
            f"{path}: shape {labels.shape}, expected a label map with one channel (H, W); "
            "masks with one object per file belong in <field>/<class>/"
        )
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{path}: dtype {labels.dtype}, expected a label map of whole numbers")
    if np.issubdtype(labels.dtype, np.signedinteger) and labels.min(initial=0) < 0:
        raise InputError(f"{path}: holds {labels.min()}, expected labels from 0 on")
    return labels


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
        If OpenCV cannot write files with this suffix.
    """
    if labels.dtype != np.uint16 or labels.ndim != 2:
        raise ValueError(f"expected (H, W) uint16, found {labels.shape} {labels.dtype}")
    if path.suffix.lower() in TIFF:
        write_tiff(path, labels)
        return
    done, encoded = cv2.imencode(path.suffix, labels)
    if not done:
        raise InputError(f"{path}: OpenCV cannot write {path.suffix}; use .png or .tif")
    path.write_bytes(encoded.tobytes())
