"""Masks and label maps: which pixels belong to which cell."""

from pathlib import Path

import cv2
import numpy as np
from natsort import natsorted
from skimage.measure import label as connected_components
from skimage.segmentation import relabel_sequential

from cellular.base.errors import InputError
from cellular.imaging.images import MOST_OBJECTS, label_files

SMALLEST_DIAMETER = 5.0  # pixels; Cellpose's limit, because smaller ones magnify images too far
FAR = 1.5  # factor between the diameter that a model is told and the annotated one: scores suffer


def object_mask(image: np.ndarray) -> np.ndarray:
    """Return where `image`, (H, W) or (H, W, C), is above 0 in any channel: (H, W) bool.

    The fourth channel (or the second of two) is opacity and does not count.
    """
    if image.ndim == 2:
        return image > 0
    if image.shape[2] in (2, 4):
        image = np.ascontiguousarray(image[..., :-1])
    if image.dtype not in (np.uint8, np.uint16):
        return (image > 0).any(axis=2)
    black = (0,) * image.shape[2]
    return cv2.inRange(image, black, black) == 0  # ten times as fast as comparing each channel


def mask_files(folder: Path) -> list[Path]:
    """Return the mask files of a class folder in natural order: cell_2 before cell_10."""
    return natsorted(label_files(folder), key=lambda path: path.name)


def check_size(path: Path, shape: tuple, other: Path, other_shape: tuple) -> None:
    """Raise `InputError` if two images of one field differ in height or width."""
    if shape[:2] != other_shape[:2]:
        raise InputError(
            f"{path}: {shape[1]} x {shape[0]} pixels, but {other} has "
            f"{other_shape[1]} x {other_shape[0]}; masks and image of a field must be of one size"
        )


def median_diameter(labels: np.ndarray) -> float:
    """Return the median diameter of the cells in pixels, as Cellpose does: sqrt(4 area / pi).

    `labels` is (H, W). It is `SMALLEST_DIAMETER` if cells are smaller, or if there is none.
    """
    areas = np.bincount(labels.ravel())[1:]
    areas = areas[areas > 0]
    if not areas.size:
        return SMALLEST_DIAMETER
    return max(float(np.median(areas**0.5) / (np.pi**0.5 / 2)), SMALLEST_DIAMETER)


def relabel(labels: np.ndarray, name: object = "label map") -> np.ndarray:
    """Number the objects of a label map 1 to n without gaps, in their order: (H, W) uint16.

    Raises
    ------
    InputError
        If there are more than 65,535 objects; the error names `name`.
    """
    dense = numbered(labels)
    if dense.dtype != np.uint16:
        raise InputError(
            f"{name}: {dense.max():,} objects, at most {MOST_OBJECTS:,} fit 16 bits; "
            "cut the field into smaller ones"
        )
    return dense


def numbered(labels: np.ndarray) -> np.ndarray:
    """Number the objects of a label map 1 to n without gaps: (H, W) uint16, or uint32 if many."""
    dense, _, values = relabel_sequential(labels)
    return dense.astype(np.uint16 if len(values) - 1 <= MOST_OBJECTS else np.uint32)


def check_cells(path: Path, labels: np.ndarray) -> None:
    """Raise `InputError` unless a label map, (H, W), has cells, and a number for each.

    Where most numbers consist of several separate pieces, they do not stand for cells. A few such
    numbers are let pass: parts of one cell may lie apart.
    """
    pieces, count = connected_components(labels, return_num=True)
    owners = np.zeros(count + 1, labels.dtype)
    owners[pieces] = labels
    values, parts = np.unique(owners[1:], return_counts=True)
    if not values.size:
        raise InputError(f"{path}: no object in it; remove the field, or annotate it")
    torn = np.count_nonzero(parts > 1)
    if 2 * torn > values.size:
        found = (
            f"a binary mask of cells and background (only the value {values[0]})"
            if values.size == 1
            else f"a mask of classes ({torn} of its {values.size} numbers are on separate pieces)"
        )
        raise InputError(
            f"{path}: {found}, expected a number for each cell; cells that touch cannot be told "
            "apart in it. First give each cell its number, in Cellpose's GUI or in Fiji"
        )
