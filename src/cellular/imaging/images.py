"""Images and label maps on disk: PNG, JPEG and TIFF, checked while they are read."""

from pathlib import Path

import cv2
import numpy as np
import tifffile

from cellular.base.errors import InputError

TIFF = (".tif", ".tiff")
SUFFIXES = (".png", ".jpg", ".jpeg", *TIFF)
MOST_OBJECTS = np.iinfo(np.uint16).max

_REMEDY = "fetch or export the file anew"


def is_image(path: Path) -> bool:
    """Tell whether `path` has the ending of an image and is not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def image_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the image files right inside `folder` whose names match, sorted by name."""
    return sorted(path for path in Path(folder).glob(pattern) if is_image(path))


def label_files(folder: Path) -> list[Path]:
    """Return the image files of `folder` that can be label maps: JPEG would change the numbers."""
    return [path for path in image_files(folder) if path.suffix.lower() in (".png", *TIFF)]


def read_image(path: Path) -> np.ndarray:
    """Read an image.

    Returns
    -------
    array of shape (H, W) or (H, W, C), in the file's own dtype; colour in the order R, G, B.
    Channel-first TIFFs, (C, H, W) with C < 5, are turned to channel-last.

    Raises
    ------
    InputError
        If the file is missing, cut short, or no image.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such image file")
    if path.suffix.lower() in TIFF:
        return _read_tiff(path)
    data = path.read_bytes()
    if path.suffix.lower() in (".jpg", ".jpeg") and b"\xff\xd9" not in data[-1024:]:
        # OpenCV fills what is missing of a JPEG with grey and says nothing.
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
    except Exception as error:  # each codec has exceptions of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: no readable TIFF, or cut short ({reason}); {_REMEDY}") from None
    if image.ndim > 2:
        image = np.squeeze(image)
    if image.ndim == 3 and image.shape[0] < 5 <= min(image.shape[1:]):
        image = np.moveaxis(image, 0, -1)
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] > 4):
        raise InputError(
            f"{path}: shape {image.shape}, expected one plane (H, W) or 2 to 4 channels; "
            "split stacks into single fields"
        )
    return image


def read_labels(path: Path) -> np.ndarray:
    """Read a label map: 0 is background, every other value one object.

    Returns
    -------
    array of shape (H, W), of an unsigned or signed integer dtype

    Raises
    ------
    InputError
        If the file is no image, has several channels or fractions, or holds negative numbers.
    """
    labels = read_image(path)
    if labels.ndim != 2:
        raise InputError(
            f"{path}: shape {labels.shape}, expected a label map with one channel (H, W); "
            "masks with one object a file go into <field>/<class>/"
        )
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{path}: dtype {labels.dtype}, expected whole numbers")
    if np.issubdtype(labels.dtype, np.signedinteger) and labels.min(initial=0) < 0:
        raise InputError(f"{path}: holds {labels.min()}, expected labels from 0 upward")
    return labels


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write a label map, (H, W) uint16, as PNG or compressed TIFF, by the ending of `path`."""
    if labels.dtype != np.uint16 or labels.ndim != 2:
        raise ValueError(f"expected (H, W) uint16, found {labels.shape} {labels.dtype}")
    if path.suffix.lower() in TIFF:
        # No date and no software version in the file: the same labels are the same bytes.
        tifffile.imwrite(path, labels, compression="zlib", metadata=None, software=False)
        return
    done, encoded = cv2.imencode(path.suffix, labels)
    if not done:
        raise InputError(f"{path}: OpenCV cannot write {path.suffix}; use .png or .tif")
    path.write_bytes(encoded.tobytes())
