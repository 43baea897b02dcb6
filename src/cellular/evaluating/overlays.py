"""Overlays: pictures of fields and of single cells, with outlines in the colours of outcomes."""

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from cellular.imaging.matching import (
    FALSE_POSITIVE,
    FOUND,
    IGNORED,
    MERGED,
    MERGING,
    MISSED,
    PART,
    SPLIT,
)
from cellular.imaging.pictures import grey, palette_image, percentiles, plane
from cellular.scoring.boundaries import outlines

SIDE = 768  # pixels; cells of 120 px in a field of 2048 can be seen, and the file is small
# Okabe and Ito's colours, which colour-blind readers can tell apart (jfly.uni-koeln.de/color).
OUTCOMES = {
    FOUND: (0, 158, 115),
    MISSED: (230, 159, 0),
    FALSE_POSITIVE: (204, 121, 167),
    MERGED: (86, 180, 233),
    SPLIT: (240, 228, 66),
}
COLOURS = OUTCOMES | {"predicted": (255, 255, 255), "other": (120, 120, 120)}
OUTLINE = {MERGING: MERGED, PART: SPLIT, IGNORED: "other"}  # of predicted cells without a partner
GREYS = 256 - len(COLOURS)
INDEX = {name: GREYS + number for number, name in enumerate(COLOURS)}
FONT = ImageFont.load_default(15)
LINE = 22  # pixels of a line of text
GAP = 6  # pixels between two pictures

CELL = 180  # pixels of a cropped cell on the sheet
COLUMNS = 5
AROUND = 2.5  # diameters of the cell that its crop shows
SMALLEST_CROP = 60  # pixels of the field


def draw(
    image: np.ndarray, truth: np.ndarray, predicted: np.ndarray, cells: pd.DataFrame
) -> Image.Image:
    """Draw true and predicted outlines on a field.

    True cells have the colour of their outcome (`cellular.imaging.matching.match`). Predicted ones
    are white if they found a cell; otherwise they have the colour of their outcome too.

    Parameters
    ----------
    image : (H, W) or (H, W, C)
    truth : (H, W) label map, numbered 1 to n; or boxes, (n, 4) float64, as
        `cellular.imaging.boxes` reads them
    predicted : (H, W) label map, numbered 1 to m
    cells : the rows of the field, from `cellular.scoring.cells.table_of_cells` or
        `cellular.scoring.boxes.table_of_boxes`

    Returns
    -------
    palette image: the field without outlines, the same with outlines to its right, and a legend
    below; the longer side of the field has at most 768 pixels
    """
    height, width = predicted.shape
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shown = cv2.resize(plane(image), size, interpolation=cv2.INTER_AREA)
    plain = grey(shown, percentiles(image), GREYS)
    canvas = plain.copy()
    outcome = cells["outcome"]
    of_predicted = outcome.replace({**OUTLINE, FOUND: "predicted"})
    for labels, column, names in (
        (predicted, cells["predicted_label"], of_predicted),
        (truth, cells["label"], outcome),
    ):
        rows = column.notna()
        count = len(labels) if _are_boxes(labels) else int(labels.max(initial=0))
        colours = np.zeros(count + 1, np.uint8)
        colours[column[rows].to_numpy(np.int64)] = names[rows].map(INDEX)
        if _are_boxes(labels):
            for box, colour in zip(labels, colours[1:], strict=True):
                _frame(canvas, box * scale, int(colour))
            continue
        small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
        edge = outlines(small)
        canvas[edge] = colours[small[edge]]
    counts = outcome.value_counts()
    legend = [(name, f"{counts.get(name, 0)} {name}") for name in OUTCOMES]
    legend.append(("predicted", "prediction"))
    if counts.get(IGNORED, 0):
        legend.append((OUTLINE[IGNORED], f"{counts[IGNORED]} {IGNORED}"))
    both = np.hstack([plain, np.zeros((len(plain), GAP), np.uint8), canvas])
    return palette_image(np.vstack([both, _legend(both.shape[1], legend)]), COLOURS.values())


def worst(cells: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the rows of the `count` worst cells, the worst first.

    First cells that were not found and false positives, by their size; then found cells, by their
    IoU.
    """
    wrong = cells[~cells["outcome"].isin([FOUND, IGNORED])]
    diameter = wrong["diameter"].fillna(wrong["predicted_diameter"])
    wrong = wrong.iloc[np.argsort(-diameter.to_numpy(float), kind="stable")]
    found = cells[cells["outcome"] == FOUND].sort_values("iou", kind="stable")
    return pd.concat([wrong, found]).head(count)


def crops(
    image: np.ndarray, truth: np.ndarray, predicted: np.ndarray, cells: pd.DataFrame
) -> list[np.ndarray]:
    """Cut cells out of their field, one crop for each row of `cells`.

    The outline of the cell has the colour of its outcome. The outlines of predicted cells are
    white, those of other true cells grey. Two lines of text below name outcome, field and diameter.

    Returns
    -------
    arrays (CELL + 2 LINE, CELL) uint8, indices into the palette
    """
    shown, ends = plane(image), percentiles(image)
    return [_crop(shown, ends, truth, predicted, cell) for _, cell in cells.iterrows()]


def _crop(
    shown: np.ndarray,
    ends: tuple[float, float],
    truth: np.ndarray,
    predicted: np.ndarray,
    cell: pd.Series,
) -> np.ndarray:
    alone = pd.isna(cell["label"])
    diameter = float(cell["predicted_diameter" if alone else "diameter"])
    side = max(SMALLEST_CROP, round(AROUND * diameter))
    corner = round(float(cell["y"])) - side // 2, round(float(cell["x"])) - side // 2
    window = _window(shown, corner, side)
    how = cv2.INTER_AREA if side > CELL else cv2.INTER_CUBIC
    canvas = grey(cv2.resize(window, (CELL, CELL), interpolation=how), ends, GREYS)
    canvas[_edges(truth, corner, side)] = INDEX["other"]
    canvas[_edges(predicted, corner, side)] = INDEX["predicted"]
    own = (predicted, cell["predicted_label"]) if alone else (truth, cell["label"])
    edge = _edges(own[0], corner, side, int(own[1])).view(np.uint8)
    thick = cv2.dilate(edge, np.ones((2, 2), np.uint8)) > 0
    canvas[thick] = INDEX[OUTLINE.get(cell["outcome"], cell["outcome"])]

    what = cell["outcome"] if alone else f"{cell['outcome']}, IoU {cell['iou']:.2f}"
    where = str(cell["field"])[:14]
    if not pd.isna(cell["timepoint"]):
        where = f"t{cell['timepoint']} {cell['well'].split()[-1]}"  # the plate does not fit in
    strip = Image.new("L", (CELL, 2 * LINE), 0)
    pen = ImageDraw.Draw(strip)
    pen.text((4, 2), what, fill=GREYS - 1, font=FONT)
    pen.text((4, LINE), f"{where}, {diameter:.0f} px", fill=GREYS - 1, font=FONT)
    return np.vstack([canvas, np.minimum(np.asarray(strip), GREYS - 1)])


def _edges(
    cells: np.ndarray, corner: tuple[int, int], side: int, label: int | None = None
) -> np.ndarray:
    """Return the outlines in a crop, (CELL, CELL) bool: of all cells, or of the one with a label.

    `cells` are a label map or boxes.
    """
    if _are_boxes(cells):
        canvas = np.zeros((CELL, CELL), np.uint8)
        for box in cells if label is None else cells[[label - 1]]:
            _frame(canvas, (box - np.tile(corner, 2)) * (CELL / side), 1)
        return canvas > 0
    shown = cv2.resize(_window(cells, corner, side), (CELL, CELL), interpolation=cv2.INTER_NEAREST)
    return outlines(shown if label is None else (shown == label).astype(np.uint8))


def _are_boxes(cells: np.ndarray) -> bool:
    """Tell boxes, (n, 4) float64, from a label map of whole numbers."""
    return bool(np.issubdtype(cells.dtype, np.floating))


def _frame(canvas: np.ndarray, box: np.ndarray, colour: int) -> None:
    """Draw a box, (4,), top, left, bottom, right in pixels of the canvas, along its inner side."""
    top, left, bottom, right = (round(float(edge)) for edge in box)
    cv2.rectangle(canvas, (left, top), (max(left, right - 1), max(top, bottom - 1)), colour)


def _window(source: np.ndarray, corner: tuple[int, int], side: int) -> np.ndarray:
    """Return a square of an array, filled with 0 where it extends beyond the frame."""
    (y, x), found = corner, np.zeros((side, side), source.dtype)
    top, left = max(0, y), max(0, x)
    inside = source[top : y + side, left : x + side]
    found[top - y : top - y + inside.shape[0], left - x : left - x + inside.shape[1]] = inside
    return found


def sheet(crops: Sequence[np.ndarray]) -> Image.Image:
    """Arrange crops in rows of five, with a legend of their colours below."""
    height, width = CELL + 2 * LINE, CELL
    rows = -(-max(1, len(crops)) // COLUMNS)
    canvas = np.zeros((rows * (height + GAP), COLUMNS * (width + GAP) - GAP), np.uint8)
    for number, one in enumerate(crops):
        top, left = (height + GAP) * (number // COLUMNS), (width + GAP) * (number % COLUMNS)
        canvas[top : top + height, left : left + width] = one
    legend = [(name, name) for name in OUTCOMES]
    legend += [("predicted", "prediction"), ("other", "other cells")]
    return palette_image(np.vstack([canvas, _legend(canvas.shape[1], legend)]), COLOURS.values())


def _legend(width: int, entries: Sequence[tuple[str, str]]) -> np.ndarray:
    """Return lines of coloured squares, each with its text: (h, width) uint8."""
    places, left, line = [], 8, 0
    for name, text in entries:
        needed = 18 + int(FONT.getlength(text)) + 14
        if left + needed > width and left > 8:
            left, line = 8, line + 1
        places.append((left, 6 + line * LINE, name, text))
        left += needed
    strip = Image.new("L", (width, (line + 1) * LINE + 10), 0)
    pen = ImageDraw.Draw(strip)
    for left, top, _, text in places:
        pen.text((left + 18, top - 2), text, fill=GREYS - 1, font=FONT)
    drawn = np.minimum(np.asarray(strip), GREYS - 1).copy()
    for left, top, name, _ in places:
        drawn[top : top + 12, left : left + 12] = INDEX[name]
    return drawn
