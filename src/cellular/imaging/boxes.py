"""Boxes as annotation: a text file in YOLO's format beside the image of each field.

Each line of `<field>.txt` is one cell: class, centre in x and y, width and height, the last four as
parts of the frame's width and height (docs.ultralytics.com/datasets/detect). All classes are cells.
A file without a line says that the field has no cell.

In the program a box is (top, left, bottom, right) in pixels: edges, so that (0, 0, 1, 1) is the
first pixel. Every box is clipped to the frame.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import find_objects

from cellular.base.errors import Faults, InputError
from cellular.imaging.fields import MASKS, Pair, check_channels, find_images, read_field, unpaired
from cellular.imaging.images import label_files

log = logging.getLogger(__name__)

BOXES = ".txt"
NAMES = "classes"  # labelImg writes the names of the classes to classes.txt in the same folder
LINE = "class, centre x, centre y, width and height, as parts of the frame from 0 to 1"


def has_boxes(folder: Path) -> bool:
    """Tell whether the fields of a folder are annotated by boxes.

    Raises
    ------
    InputError
        If some fields have boxes and some label maps, or if a field has both.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return False
    boxes = _files(folder).keys() & find_images(folder).keys()
    maps = [path for path in label_files(folder) if path.stem.endswith(MASKS)]
    if boxes and maps:
        raise InputError(
            f"{folder}: label maps ({maps[0].name}) and boxes ({min(boxes)}{BOXES}) in one folder, "
            "expected one kind; move the others elsewhere"
        )
    return bool(boxes)


def _files(folder: Path) -> dict[str, Path]:
    """Return the text files of a folder by name, without endings."""
    return {
        path.stem: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() == BOXES and path.name[0] != "."
    }


def load_boxes(folder: Path) -> list[Pair]:
    """Return the fields of a folder with boxes; the `labels` of a field are its text file.

    Raises
    ------
    InputError
        If an image or a text file is alone.
    """
    images, boxes = find_images(folder), _files(Path(folder))
    if NAMES not in images:
        boxes.pop(NAMES, None)
    missing = f"no boxes {{}}{BOXES} beside it; make an empty file if the field has no cell"
    faults = Faults(sorted(unpaired(images, boxes, missing)))
    faults.raise_all(folder)
    return [Pair(field, images[field][0], boxes[field]) for field in sorted(images)]


def check_boxes(folder: Path, channels: Sequence[int] = (0, 0)) -> list[Pair]:
    """Return the fields of a folder with boxes, after reading all of their files once.

    `channels` are those that a network is to be given. A box without width or height is left out,
    and named in the log: where boxes were made from masks, it is a mask of one pixel.

    Raises
    ------
    InputError
        One error that lists everything that is missing or cannot be read.
    """
    pairs = load_boxes(folder)
    faults = Faults()
    for pair in pairs:
        with faults.collect():
            check_channels(pair.image, read_field(pair.image), channels)
            for number, (*_, width, height) in _lines(pair.labels).items():
                if not (width and height):
                    log.warning("%s, line %d: no area, left out", pair.labels, number)
    faults.raise_all(folder)
    return pairs


def read_boxes(path: Path, frame: tuple[int, ...]) -> tuple[np.ndarray, list[str]]:
    """Read the boxes of a field; those without area are left out (`check_boxes` tells of them).

    Parameters
    ----------
    frame : height and width of the field in pixels

    Returns
    -------
    (n, 4) float64, top, left, bottom, right in pixels; and the class of each box, a whole number

    Raises
    ------
    InputError
        If the file is no text, or a line is not what YOLO's format says.
    """
    lines = {number: line for number, line in _lines(path).items() if line[3] and line[4]}
    x, y, width, height = np.array([line[1:] for line in lines.values()], float).reshape(-1, 4).T
    edges = np.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], axis=1)
    return np.clip(edges, 0, 1) * np.tile(frame[:2], 2), [line[0] for line in lines.values()]


def _lines(path: Path) -> dict[int, tuple[str, float, float, float, float]]:
    """Return class, centre x and y, width and height of each line that is not blank, by number."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: no UTF-8 text, expected lines of {LINE}") from None
    found, faults = {}, Faults()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            with faults.collect():
                found[number] = _box(f"{path}, line {number}", line.split())
    faults.raise_all(path)
    return found


def _box(where: str, words: Sequence[str]) -> tuple[str, float, float, float, float]:
    try:
        kind, x, y, width, height = words[0], *map(float, words[1:])
        right = kind.isascii() and kind.isdigit()
        if right and all(0 <= part <= 1 for part in (x, y, width, height)):  # NaN is not
            return kind, x, y, width, height
    except ValueError:  # another number of columns, or no numbers
        pass
    found = " ".join(words)
    raise InputError(f"{where}: {found[:60]!r}, expected {LINE}; export the boxes again")


def boxes_of(labels: np.ndarray) -> np.ndarray:
    """Return the box around each cell of a label map, (H, W), numbered 1 to n: (n, 4) float64."""
    edges = [(y.start, x.start, y.stop, x.stop) for y, x in find_objects(labels)]
    return np.array(edges, float).reshape(-1, 4)


def areas_of(boxes: np.ndarray) -> np.ndarray:
    """Return the areas of boxes, (n, 4): (n,) square pixels."""
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)


def box_diameters(boxes: np.ndarray) -> np.ndarray:
    """Return the diameters of cells that fill their boxes, (n, 4), as ellipses do: (n,) pixels.

    It is that of a circle with the area of the ellipse, the root of width times height. Other cells
    fill less of their boxes, so it is larger than the diameter of their masks.
    """
    return np.sqrt(areas_of(boxes))
