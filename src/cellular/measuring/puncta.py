"""Puncta: small bright spots in cells, found in one channel and looked at in the other.

A white top-hat takes from the smoothed channel what a morphological opening leaves of it, with a
disc as wide as the largest puncta (Serra, Image Analysis and Mathematical Morphology, 1982): every
pixel has a height above its surroundings, whatever these are. It belongs to a punctum if that
height is above two thresholds of the cell's own: a multiple of the cell's noise, and a part of what
the surroundings are above the field's background. Puncta that touch are parted by a watershed.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from skimage.segmentation import watershed

from cellular.measuring.params import MeasureParams
from cellular.measuring.tables import Runs

NORMAL = 1.4826  # standard deviation of normally distributed values by their median distance

# Columns in their order.
COLUMNS = {
    "label": "int64",  # of the cell
    "y": "float64",  # pixels, mean of the punctum's pixels
    "x": "float64",
    "area": "int64",  # pixels
    "area_um2": "float64",
    "height": "float64",  # grey values above the surroundings, mean
    "contrast": "float64",  # height divided by what the surroundings are above the background
    "other_contrast": "float64",  # contrast of the same pixels in the other channel
    "double": "bool",  # whether these pixels stand out in the other channel, too
}


@dataclass(frozen=True)
class Heights:
    """A channel, smoothed, and what lies around each pixel: (H, W) float32 grey values."""

    smooth: np.ndarray
    surroundings: np.ndarray
    residual: np.ndarray  # what smoothing took away
    sigma: float  # pixels, of the Gaussian that smoothed


def heights_of(channel: np.ndarray, params: MeasureParams, pixel_size: float) -> Heights:
    """Return what does not depend on cells. `channel` is (H, W) float32, `pixel_size` in µm."""
    sigma = params.smallest / 2 / pixel_size
    smooth = cv2.GaussianBlur(channel, (0, 0), sigma)
    around = cv2.morphologyEx(smooth, cv2.MORPH_OPEN, _disc(params.largest / pixel_size))
    return Heights(smooth, around, channel - smooth, sigma)


@dataclass(frozen=True)
class Standing:
    """How far each pixel of a channel stands out: (H, W) float32 grey values."""

    height: np.ndarray  # above its surroundings
    level: np.ndarray  # of the surroundings above the background, at least the cell's noise
    threshold: np.ndarray  # the height above which it belongs to a punctum


def standing(
    heights: Heights, labels: np.ndarray, runs: Runs, background: float, params: MeasureParams
) -> Standing:
    """Return how far the pixels of a channel stand out in their cells.

    A cell's noise is that of its smoothed pixels: what smoothing took away gives the standard
    deviation of single pixels, and a Gaussian lowers that of white noise 2 sqrt(pi) sigma times.

    Parameters
    ----------
    labels : (H, W) label map, numbered 1 to n without gaps
    runs : those of `labels`
    background : grey value of the field outside all cells
    """
    residual = np.abs(heights.residual).ravel()[runs.pixels(labels.shape[1])]
    noise = NORMAL * runs.medians(residual) / max(2 * np.sqrt(np.pi) * heights.sigma, 1)
    of_pixels = np.concatenate([[0], noise]).astype(np.float32)[labels]
    above = heights.surroundings - np.float32(background)
    return Standing(
        heights.smooth - heights.surroundings,
        np.maximum(above, of_pixels),
        np.maximum(params.noise * of_pixels, params.contrast * above),
    )


def puncta_of(
    labels: np.ndarray,
    channel: Standing,
    other: Standing,
    params: MeasureParams,
    pixel_size: float,
) -> pd.DataFrame:
    """Find the puncta of a channel in all cells of a field.

    A punctum is double if the mean height of its pixels in the other channel is above their mean
    threshold there.

    Parameters
    ----------
    labels : (H, W) label map, numbered 1 to n without gaps
    channel, other : of the same field
    pixel_size : µm

    Returns
    -------
    a row for each punctum, by cell and then from top to bottom, with `COLUMNS`
    """
    mask = (channel.height > channel.threshold) & (labels > 0)
    highest = cv2.dilate(channel.height, _disc(params.smallest / pixel_size * 2))
    _, peaks = cv2.connectedComponents((mask & (channel.height == highest)).astype(np.uint8))
    parts = watershed(-channel.height, peaks, mask=mask)
    places = np.flatnonzero(parts)
    # What lies in two cells is a punctum in each.
    pairs = np.stack([labels.ravel()[places], parts.ravel()[places]])
    (cells, _), number = np.unique(pairs, axis=1, return_inverse=True)

    area = np.bincount(number, minlength=len(cells))

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(number, values, minlength=len(cells)) / area

    def contrast(seen: Standing) -> np.ndarray:
        return mean(seen.height.ravel()[places]) / mean(seen.level.ravel()[places])

    y, x = np.divmod(places, labels.shape[1])
    there = mean(other.height.ravel()[places]) > mean(other.threshold.ravel()[places])
    table = pd.DataFrame(
        {
            "label": cells,
            "y": mean(y),
            "x": mean(x),
            "area": area,
            "area_um2": area * pixel_size**2,
            "height": mean(channel.height.ravel()[places]),
            "contrast": contrast(channel),
            "other_contrast": contrast(other),
            "double": there,
        }
    ).astype(COLUMNS)
    table = table[table["area_um2"] >= params.min_area]
    return table.sort_values(["label", "y", "x"], ignore_index=True)


def _disc(diameter: float) -> np.ndarray:
    """Return a disc, at least 3 pixels wide, of an odd number of pixels: (n, n) uint8."""
    side = max(3, 2 * round((diameter - 1) / 2) + 1)
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
