"""Gallery: pictures of the cells with the most and the fewest red puncta, for a look at them."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from cellular.imaging.normalisation import normalised
from cellular.scoring.boundaries import outlines

COUNT = 6  # cells of each kind
MOST, FEWEST = "most", "fewest"
SIDE = 200  # pixels of each half of a picture: CELLULAR's cells are 120 across, the mean
MARGIN = 10  # pixels around a cell that is larger than that
PERCENTILES = 1, 98  # of the cell's pixels, which are shown as black and as the full colour
REACH = 4  # pixels from the middle of a mark to its line; puncta are 2 to 11 pixels wide
LINE, MARK = (255, 255, 255), (120, 220, 255)  # outline; marks, of a colour that no channel has
ABOUT_A_CELL = (  # columns that belong beside a picture
    "kind",
    "source",
    "field",
    "label",
    "red_puncta",
    "green_puncta",
    "red_only_fraction",
    "area_um2",
)


def gallery(
    cells: pd.DataFrame,
    puncta: pd.DataFrame,
    read: Callable[[str], tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> list[tuple[Image.Image, dict[str, Any]]]:
    """Return pictures of the cells that `choose` takes, each with what belongs beside it.

    Parameters
    ----------
    cells, puncta : the tables of one source of outlines
    read : gives red, green and the label map of a field, (H, W) each
    """
    chosen = choose(cells)
    drawn: dict[Any, Image.Image] = {}
    for field, rows in chosen.groupby("field", sort=True):
        planes = read(str(field))
        own = puncta[puncta["field"] == field]
        drawn |= {place: picture(*planes, label, own) for place, label in rows["label"].items()}
    return [
        (drawn[place], {key: row[key] for key in ABOUT_A_CELL if not pd.isna(row[key])})
        for place, row in enumerate(chosen.to_dict("records"))
    ]


def choose(cells: pd.DataFrame, count: int = COUNT) -> pd.DataFrame:
    """Return the cells with the most red puncta, and those with the fewest.

    Cells that touch the frame of the image are left out. Those with the fewest are at least as
    large as the median of the others, since a fragment has few puncta because it is small. Of cells
    with equally many puncta, the larger one comes first.

    Parameters
    ----------
    cells : the table of cells, of one source of outlines
    count : how many of each kind, at most; no cell is of both

    Returns
    -------
    rows of `cells`, with their `kind`: "most", then "fewest"
    """
    whole = cells[~cells["touches_border"].astype(bool)]
    ties = {"area_um2": False, "field": True, "label": True}

    def first(some: pd.DataFrame, ascending: bool) -> pd.DataFrame:
        orders = {"red_puncta": ascending} | ties
        return some.sort_values(list(orders), ascending=list(orders.values())).head(count)

    most = first(whole, ascending=False)
    large = whole[whole["area_um2"] >= whole["area_um2"].median()]
    fewest = first(large.drop(most.index, errors="ignore"), ascending=True)
    return pd.concat([most.assign(kind=MOST), fewest.assign(kind=FEWEST)], ignore_index=True)


def picture(
    red: np.ndarray, green: np.ndarray, labels: np.ndarray, label: int, puncta: pd.DataFrame
) -> Image.Image:
    """Draw a cell twice: as it is with its outline, and beside it with its red puncta marked.

    A circle is around a red punctum without green, a square around one that is green, too.

    Parameters
    ----------
    red, green : (H, W) channels of the field; each is stretched between two percentiles of the cell
    labels : (H, W) label map
    label : of the cell
    puncta : the table of puncta of the field, from this label map; those of others are left out

    Returns
    -------
    a picture in RGB, twice as wide as high
    """
    window, scale = _window(labels == label)
    mask = labels[window] == label
    planes = [
        np.clip(normalised(plane[window], *np.percentile(plane[window][mask], PERCENTILES)), 0, 1)
        for plane in (red, green)
    ]
    colours = np.rint(255 * np.stack([*planes, np.zeros_like(planes[0])], axis=2))
    sides = [max(1, round(scale * side)) for side in mask.shape[::-1]]
    cell = cv2.resize(colours.astype(np.uint8), sides, interpolation=cv2.INTER_AREA)
    shape = cv2.resize(mask.astype(np.uint8), sides, interpolation=cv2.INTER_NEAREST)
    cell[outlines(shape)] = LINE
    own = puncta[(puncta["label"] == label) & (puncta["channel"] == "red")]
    marked = cell.copy()
    for punctum in own.itertuples():
        place = (np.array([punctum.x - window[1].start, punctum.y - window[0].start]) + 0.5) * scale
        _mark(marked, place - 0.5, bool(punctum.double))
    gap = np.zeros((len(cell), 2, 3), np.uint8)
    return Image.fromarray(np.hstack([cell, gap, marked]))


def _window(mask: np.ndarray) -> tuple[tuple[slice, slice], float]:
    """Return the square around a cell, within the frame, and what makes it `SIDE` pixels wide."""
    spans = [np.flatnonzero(mask.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    side = max(SIDE, *(int(np.ptp(span)) + 1 + 2 * MARGIN for span in spans))
    starts = [
        int(np.clip(span.sum() // 2 - side // 2, 0, max(0, length - side)))
        for span, length in zip(spans, mask.shape, strict=True)
    ]
    return (slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)), SIDE / side


def _mark(image: np.ndarray, place: np.ndarray, double: bool) -> None:
    x, y = np.rint(place).astype(int).tolist()
    if double:
        cv2.rectangle(image, (x - REACH, y - REACH), (x + REACH, y + REACH), MARK, 1)
    else:
        cv2.circle(image, (x, y), REACH, MARK, 1, cv2.LINE_AA)
