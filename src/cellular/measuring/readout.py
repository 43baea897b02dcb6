"""The read-out of a field: its cells and puncta, measured with one label map or several."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from skimage.segmentation import relabel_sequential

from cellular.imaging.microscopy import Image
from cellular.imaging.normalisation import saturated
from cellular.measuring.params import MeasureParams
from cellular.measuring.puncta import Heights, heights_of, puncta_of, standing
from cellular.measuring.quality import background_of, focus_of, shift_of
from cellular.measuring.tables import table_of

COLOURS = "red", "green"  # mRFP, which acid leaves bright, and EGFP, which it quenches
OF_PUNCTA = ("", "_area_um2", "_share", "_per_100um2", "_contrast")
T = TypeVar("T")


@dataclass(frozen=True)
class Field:
    """A field, filtered once for all label maps."""

    channels: tuple[np.ndarray, np.ndarray]  # red and green, (H, W) float32 grey values each
    heights: tuple[Heights, Heights]
    pixel_size: float  # µm
    params: MeasureParams
    shift: tuple[float, float]  # pixels (y, x) by which red lies further down and right than green


@dataclass(frozen=True)
class Reading:
    """What was measured in a field with one label map."""

    cells: pd.DataFrame  # a row for each cell
    puncta: (
        pd.DataFrame
    )  # a row for each punctum: channel, then `cellular.measuring.puncta.COLUMNS`
    quality: dict[str, float]  # background, saturation, focus of each channel, shift between them


def field_of(red: np.ndarray, green: np.ndarray, pixel_size: float, params: MeasureParams) -> Field:
    """Filter the channels of a field, (H, W) float32 each; `pixel_size` is in µm."""
    channels = red, green
    heights = _both(lambda channel: heights_of(channel, params, pixel_size), channels)
    return Field(channels, heights, pixel_size, params, shift_of(green, red))


def measure(field: Field, labels: np.ndarray) -> Reading:
    """Measure all cells of a field.

    Parameters
    ----------
    labels : (H, W) label map of the same size; numbers may be missing

    Returns
    -------
    Reading
        Brightness is above the field's background, where there is no cell.
    """
    dense, _, found = relabel_sequential(labels)
    dense = dense.astype(np.int32)
    grounds = _both(lambda heights: background_of(heights.smooth, dense), field.heights)
    puncta = _puncta(field, dense, grounds)
    pixels = np.dstack(
        [
            channel - np.float32(ground)
            for channel, ground in zip(field.channels, grounds, strict=True)
        ]
    )
    cells = table_of(dense, Image(pixels, COLOURS), field.pixel_size)
    cells["ratio"] = (cells["mean_red"] / cells["mean_green"]).where(cells["mean_green"] > 0)
    for colour in COLOURS:
        cells = cells.join(_counted(puncta[puncta["channel"] == colour], colour, cells))
    red = puncta[puncta["channel"] == "red"]
    cells["double_positive"] = cells["label"].map(red.groupby("label")["double"].sum()).fillna(0)
    cells["double_positive"] = cells["double_positive"].astype(int)
    cells["red_only"] = cells["red_puncta"] - cells["double_positive"]
    cells["red_only_fraction"] = cells["red_only"] / cells["red_puncta"].where(lambda n: n > 0)
    for table in (cells, puncta):
        table["label"] = np.asarray(found).astype(np.int64)[table["label"]]
    return Reading(cells, puncta, _quality(field, grounds))


def _puncta(field: Field, labels: np.ndarray, grounds: tuple[float, float]) -> pd.DataFrame:
    """Return the puncta of both channels."""
    seen = _both(
        lambda pair: standing(pair[0], labels, pair[1], field.params),
        tuple(zip(field.heights, grounds, strict=True)),
    )
    tables = _both(
        lambda pair: puncta_of(labels, pair[0], pair[1], field.params, field.pixel_size),
        (seen, seen[::-1]),
    )
    named = [table.assign(channel=colour) for table, colour in zip(tables, COLOURS, strict=True)]
    puncta = pd.concat(named, ignore_index=True)
    return puncta[["channel", *puncta.columns.drop("channel")]]


def _counted(puncta: pd.DataFrame, colour: str, cells: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of a channel's puncta, with a row for each row of `cells`."""
    of_cell = puncta.groupby("label")
    labels = cells["label"]
    count = labels.map(of_cell.size()).fillna(0).astype(int)
    area = labels.map(of_cell["area_um2"].sum()).fillna(0.0)
    columns = (
        count,
        area,
        area / cells["area_um2"],
        100 * count / cells["area_um2"],
        labels.map(of_cell["contrast"].mean()),
    )
    names = (f"{colour}_puncta{end}" for end in OF_PUNCTA)
    return pd.DataFrame(dict(zip(names, columns, strict=True)))


def _quality(field: Field, grounds: tuple[float, float]) -> dict[str, float]:
    found = {"shift_y": field.shift[0], "shift_x": field.shift[1]}
    for colour, channel, heights, ground in zip(
        COLOURS, field.channels, field.heights, grounds, strict=True
    ):
        found[f"background_{colour}"] = ground
        found[f"saturated_{colour}"] = saturated(channel)
        found[f"focus_{colour}"] = focus_of(heights.smooth, ground)
    return found


def _both(function: Callable[..., T], items: tuple) -> tuple[T, T]:
    """Return the function's results for red and for green, computed at the same time."""
    with ThreadPoolExecutor(len(COLOURS)) as pool:
        first, second = pool.map(function, items)
    return first, second
