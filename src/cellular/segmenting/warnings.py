"""Warnings: what is odd about an image and its cells, and by which measure."""

from collections.abc import Iterator

import pandas as pd

from cellular.imaging.masks import FAR
from cellular.imaging.microscopy import Image
from cellular.imaging.normalisation import brightness, saturated
from cellular.models.folders import Seen

# An image is unlike the training images if it is darker or brighter than those by this factor. The
# sample's merged pictures have 0.18 to 0.22, those of two other wells, in which cells are found,
# 0.10 to 0.22, and the sample's raw channels, in which they are not, 0.06.
DIM = 2
EMPTY, SATURATED, UNLIKE = KINDS = ("empty", "saturated", "unlike the training images")
CUT_OFF = 0.01  # share of pixels at the highest value that any image may have


def warnings_of(
    image: Image, pixel_size: float | None, cells: pd.DataFrame, seen: Seen | None
) -> list[str]:
    """Return a sentence on each thing that is odd; [] if there is none.

    Parameters
    ----------
    pixel_size : edge of a pixel in µm, if it is known
    cells : the table of the image's cells (`cellular.measuring.tables`)
    seen : what the training images were like, if the model says it
    """
    return list(_warnings(image, pixel_size, cells, seen))


def _warnings(
    image: Image, pixel_size: float | None, cells: pd.DataFrame, seen: Seen | None
) -> Iterator[str]:
    pixels = image.pixels
    if pixels.max() == pixels.min():
        yield f"{EMPTY}: all pixels have one value"
        return
    if not len(cells):
        yield f"{EMPTY}: no cells found"
    share, most = saturated(pixels), max(CUT_OFF, DIM * seen.saturated if seen else 0)
    if share > most:
        yield f"{SATURATED}: {share:.1%} of the pixels have the highest value, above {most:.1%}"
    if seen is None:
        return
    count = pixels.shape[2] if pixels.ndim == 3 else 1
    if count not in seen.channels:
        yield f"{UNLIKE}: {count} channel{'' if count == 1 else 's'}, there {_or(seen.channels)}"
    level, (low, high) = brightness(pixels), seen.brightness
    if not low / DIM <= level <= high * DIM:
        yield (
            f"{UNLIKE}: brightness {level:.2f}, there {low:.2f} to {high:.2f} "
            "(median between the 1st and 99th percentile)"
        )
    if len(cells) and _far(diameter := float(cells["diameter"].median()), seen.diameter):
        yield (f"{UNLIKE}: cells of {diameter:.0f} px, there {seen.diameter:.0f} px")
    if pixel_size and seen.pixel_size and _far(pixel_size, seen.pixel_size):
        yield (
            f"{UNLIKE}: {pixel_size:.3g} µm a pixel, there {seen.pixel_size:.3g}; for cells as "
            f"large as those, give --diameter {seen.diameter * seen.pixel_size / pixel_size:.0f}"
        )


def _far(value: float, known: float) -> bool:
    return not 1 / FAR <= value / known <= FAR


def _or(counts: list[int]) -> str:
    return " or ".join(map(str, counts))
