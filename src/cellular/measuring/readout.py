"""The read-out of a field: its cells and puncta, measured with one label map or several."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd

from cellular.imaging.microscopy import Image
from cellular.imaging.normalisation import saturated
from cellular.measuring.params import MeasureParams
from cellular.measuring.puncta import Standing, puncta_of, smoothed, standing
from cellular.measuring.quality import background_of, focus_of, shift_of
from cellular.measuring.tables import table_of

# Standard deviations of the noise that a cell's green is above the background, at least, if the
# cell is to have a ratio: a cell without green would have one of hundreds, and decide the mean.
LEAST_GREEN = 5
COLOURS = "red", "green"  # mRFP, which acid leaves bright, and EGFP, which it quenches
OF_PUNCTA = ("", "_area_um2", "_share", "_per_100um2", "_contrast")
T = TypeVar("T")


@dataclass(frozen=True)
class Field:
    """A field: what does not depend on the outlines of cells, found once for all label maps."""

    above: np.ndarray  # (H, W, 2) float32, red and green above their backgrounds
    puncta: pd.DataFrame  # a row for each: channel, then `cellular.measuring.puncta.COLUMNS`
    faint: float  # grey value of a cell's mean green below which it has no ratio
    pixel_size: float  # µm
    quality: dict[str, float]  # background, saturation, focus of each channel, shift between them


@dataclass(frozen=True)
class Reading:
    """What was measured in a field with one label map."""

    cells: pd.DataFrame  # a row for each cell
    puncta: pd.DataFrame  # the rows of the field's puncta that lie in cells, with their labels


def field_of(
    red: np.ndarray,
    green: np.ndarray,
    pixel_size: float,
    params: MeasureParams,
    cells: np.ndarray | None = None,
) -> Field:
    """Find background and puncta of a field.

    Parameters
    ----------
    red, green : (H, W) float32 grey values
    pixel_size : µm
    cells : (H, W) bool, where cells are, by any label map; None: not known
    """
    channels = red, green
    known = np.zeros(red.shape, bool) if cells is None else cells

    def look(channel: np.ndarray) -> tuple[float, float, Standing]:
        smooth = smoothed(channel, params, pixel_size)
        background = background_of(smooth, known)
        focus = focus_of(smooth, background)
        return background, focus, standing(channel, smooth, background, params, pixel_size)

    looks = _both(look, channels)
    seen = looks[0][2], looks[1][2]
    tables = _both(lambda pair: puncta_of(pair[0], pair[1], params, pixel_size), (seen, seen[::-1]))
    puncta = pd.concat(
        [table.assign(channel=colour) for table, colour in zip(tables, COLOURS, strict=True)],
        ignore_index=True,
    )
    y, x = shift_of(green, red)
    quality = {"shift_y": y, "shift_x": x}
    for colour, channel, (background, focus, _) in zip(COLOURS, channels, looks, strict=True):
        quality[f"background_{colour}"] = background
        quality[f"saturated_{colour}"] = saturated(channel) if np.ptp(channel) else 1.0
        quality[f"focus_{colour}"] = focus
    faint = LEAST_GREEN * float(looks[1][2].level.min())  # in the dark, the level is the noise
    above: np.ndarray = np.dstack(channels) - np.array([look[0] for look in looks], np.float32)
    return Field(
        above, puncta[["channel", *puncta.columns.drop("channel")]], faint, pixel_size, quality
    )


def measure(field: Field, labels: np.ndarray, *, shapes: bool = True) -> Reading:
    """Measure all cells of a field.

    A punctum is of the cell in which its brightest point lies.

    Parameters
    ----------
    labels : (H, W) label map of the same size; numbers may be missing
    shapes : False: leave out all but area and mean brightness of what is no punctum, which takes a
        third of the time

    Returns
    -------
    Reading
        Brightness is above the field's background.
    """
    owner = labels[field.puncta["y"], field.puncta["x"]].astype(np.int64)
    puncta = field.puncta.assign(label=owner)[["label", *field.puncta.columns]]
    puncta = puncta[owner > 0].sort_values(["label", "channel", "y", "x"], ignore_index=True)
    if shapes:
        cells = table_of(labels, Image(field.above, COLOURS), field.pixel_size)
    else:
        cells = _means(field, labels)
    green = cells["mean_green"]
    cells["ratio"] = (cells["mean_red"] / green).where(green > field.faint)
    for colour in COLOURS:
        cells = cells.join(_counted(puncta[puncta["channel"] == colour], colour, cells))
    red = puncta[puncta["channel"] == "red"]
    cells["double_positive"] = cells["label"].map(red.groupby("label")["double"].sum()).fillna(0)
    cells["double_positive"] = cells["double_positive"].astype(int)
    cells["red_only"] = cells["red_puncta"] - cells["double_positive"]
    cells["red_only_fraction"] = cells["red_only"] / cells["red_puncta"].where(lambda n: n > 0)
    return Reading(cells, puncta)


def _means(field: Field, labels: np.ndarray) -> pd.DataFrame:
    """Return area and mean brightness of all cells, as `table_of` does."""
    pixels = labels.ravel()
    count = np.bincount(pixels)
    found = np.flatnonzero(count[1:]) + 1
    cells = {"label": found, "area_um2": count[found] * field.pixel_size**2}
    for number, colour in enumerate(COLOURS):
        total = np.bincount(pixels, field.above[..., number].ravel())
        cells[f"mean_{colour}"] = total[found] / count[found]
    return pd.DataFrame(cells)


def _counted(puncta: pd.DataFrame, colour: str, cells: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of a channel's puncta, with a row for each row of `cells`."""
    of_cell = puncta.groupby("label")
    labels = cells["label"]
    count = labels.map(of_cell.size()).fillna(0).astype(int)
    area = labels.map(of_cell["area_um2"].sum()).fillna(0.0)
    columns = (
        count,
        area,
        (area / cells["area_um2"]).clip(upper=1),  # puncta reach beyond outlines
        100 * count / cells["area_um2"],
        labels.map(of_cell["contrast"].mean()),
    )
    names = (f"{colour}_puncta{end}" for end in OF_PUNCTA)
    return pd.DataFrame(dict(zip(names, columns, strict=True)))


def _both(function: Callable[..., T], items: tuple) -> tuple[T, T]:
    """Return the function's results for red and for green, computed at the same time."""
    with ThreadPoolExecutor(len(COLOURS)) as pool:
        first, second = pool.map(function, items)
    return first, second
