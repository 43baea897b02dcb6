"""Rendering: the channels of an image, each in a colour, summed up to an 8-bit picture in RGB."""

import re
from collections.abc import Sequence

import numpy as np

from cellular.imaging.normalisation import limits, normalised

COLOURS = {
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "cyan": (0, 1, 1),
    "magenta": (1, 0, 1),
    "yellow": (1, 1, 0),
    "grey": (1, 1, 1),
    "black": (0, 0, 0),
}
PERCENTILES = "percentiles"
MINMAX = "minmax"
RANGE = re.compile(r"(-?\d+(?:\.\d+)?)\.\.(-?\d+(?:\.\d+)?)")

# How CELLULAR's authors merged the channels w2 (mRFP), w1 (EGFP) and w3 (transmitted light), which
# is added to all three colours. No source states it. It was fitted on the five fields of the
# sample, which exist as channels and as merged JPEG: free ends were -3.8 to -3.1 and 2491.5 to
# 2493.1 for w2, 197.7 to 199.2 and 1992.9 to 1994.2 for w1, and round numbers nearby are taken.
# All five are of one well; whether others were merged alike is not known. See docs/paper.md.
MERGED_COLOURS = ("red", "green", "grey")
MERGED_RANGES = ("0..2500", "200..2000", MINMAX)


def ends_of(plane: np.ndarray, shown: str) -> tuple[float, float]:
    """Return the values of a channel that are shown as black and as its full colour.

    Parameters
    ----------
    plane : (H, W)
    shown : `<low>..<high>`; `minmax`, the channel's own; or `percentiles`, the 1st and the 99th, as
        Cellpose normalises

    Raises
    ------
    ValueError
        If `shown` is none of these.
    """
    if shown == PERCENTILES:
        return limits(plane)
    if shown == MINMAX:
        return float(plane.min()), float(plane.max())
    named = RANGE.fullmatch(shown)
    if named is None or float(named[1]) >= float(named[2]):
        raise ValueError(
            f"expected {PERCENTILES}, {MINMAX} or <low>..<high>, such as 200..2000, found {shown!r}"
        )
    return float(named[1]), float(named[2])


def render(image: np.ndarray, colours: Sequence[str], ranges: Sequence[str]) -> np.ndarray:
    """Return the sum of an image's channels in their colours, cut off at 255: (H, W, 3) uint8.

    Parameters
    ----------
    image : (H, W, C), of any integer or float dtype
    colours : C keys of `COLOURS`
    ranges : C ranges, see `ends_of`; values outside are cut off, and a flat channel is black
    """
    picture = np.zeros((*image.shape[:2], 3), np.float32)
    for number, (colour, shown) in enumerate(zip(colours, ranges, strict=True)):
        plane = image[..., number]
        part = np.clip(normalised(plane, *ends_of(plane, shown)), 0, 1)
        picture += part[..., None] * np.array(COLOURS[colour], np.float32)
    return np.rint(np.minimum(picture, 1) * 255).astype(np.uint8)
