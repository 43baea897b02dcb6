"""Puncta: small bright spots in cells, found in one channel and looked at in the other.

A white top-hat takes from the smoothed channel what a morphological opening leaves of it, with a
disc as wide as the largest puncta (Serra, Image Analysis and Mathematical Morphology, 1982): every
pixel has a height above its surroundings, whatever these are. A punctum has a brightest point that
is higher than two thresholds: a multiple of the noise at that brightness, and a part of what the
surroundings are above the field's background. It reaches to half of its own height, so that its
area does not grow with its brightness, and puncta that touch are parted by a watershed.

Puncta are found in the whole field, before any label map is looked at: whoever draws the outlines
of cells, the puncta are the same.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from skimage.morphology import disk
from skimage.segmentation import watershed

from cellular.measuring.params import MeasureParams

NORMAL = 1.4826  # standard deviation of normally distributed values by their median distance
EVERY = 16  # pixels from which the noise is taken
STEPS = 64  # of brightness, in each of which the noise is measured
FEWEST = 100  # pixels of a step
ROUNDING = 1e-5  # of the brightest pixel; what differs by less is rounding, and no signal
# Of the threshold; what a double punctum's fine detail is in the other channel, at least. Chosen on
# planted puncta: with 0.2, light of neighbours in clusters counts more often, and with 0.3 faint
# double puncta more often do not.
SHARED = 0.25

# Columns in their order.
COLUMNS = {
    "y": "int64",  # pixels, place of the point that stands out most
    "x": "int64",
    "area": "int64",  # pixels
    "area_um2": "float64",
    "height": "float64",  # grey values above the surroundings, mean
    "contrast": "float64",  # height divided by what the surroundings are above the background
    "other_contrast": "float64",  # contrast of the same pixels in the other channel
    "double": "bool",  # whether these pixels stand out in the other channel, too
}


@dataclass(frozen=True)
class Standing:
    """How far each pixel of a channel stands out: (H, W) float32 grey values."""

    height: np.ndarray  # above its surroundings
    detail: np.ndarray  # the same, without what is wide
    level: np.ndarray  # of the surroundings above the background, at least the noise
    threshold: np.ndarray  # the height that a punctum has at its brightest point, at least


def standing(
    channel: np.ndarray,
    smooth: np.ndarray,
    background: float,
    params: MeasureParams,
    pixel_size: float,
) -> Standing:
    """Return how far the pixels of a channel stand out.

    Parameters
    ----------
    channel, smooth : (H, W) float32 grey values, and the same, smoothed by `smoothed`
    background : grey value of the field outside all cells
    pixel_size : µm
    """
    sigma = sigma_of(params, pixel_size)
    around = cv2.morphologyEx(smooth, cv2.MORPH_OPEN, _disc(params.largest / pixel_size))
    height = smooth - around
    level, usual, spread = _noise(around, height, np.abs(channel - smooth))
    # A Gaussian lowers the deviation of white noise 2 sqrt(pi) sigma times.
    spread *= NORMAL / max(2 * np.sqrt(np.pi) * sigma, 1)
    spread = np.maximum(spread, ROUNDING * smooth.max())
    noise = np.interp(around, level, spread).astype(np.float32)
    offset = np.interp(around, level, usual).astype(np.float32)
    above = around + offset - np.float32(background)
    return Standing(
        height - offset,
        smooth - cv2.GaussianBlur(smooth, (0, 0), 2 * sigma),
        np.maximum(above, noise),
        np.maximum(params.noise * noise, params.contrast * above),
    )


def sigma_of(params: MeasureParams, pixel_size: float) -> float:
    """Return the standard deviation, in pixels, of the Gaussian that smooths channels."""
    return params.smallest / 2 / pixel_size


def smoothed(channel: np.ndarray, params: MeasureParams, pixel_size: float) -> np.ndarray:
    """Return a channel, (H, W) float32, smoothed to the size of the smallest puncta."""
    return cv2.GaussianBlur(channel, (0, 0), sigma_of(params, pixel_size))


def _noise(level: np.ndarray, height: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """Return level, height and residual, medians in steps of the level: (3, steps) float64.

    Photons make more noise where there are more of them. Noise also raises what an opening takes
    away, as that leaves the least of many values: the median height is what noise alone has.

    Parameters
    ----------
    level, height, residual : (H, W), of the field
    """
    values = np.stack([plane.ravel()[::EVERY] for plane in (level, height, residual)])
    steps = np.clip(values.shape[1] // FEWEST, 1, STEPS)
    parts = np.array_split(values[:, np.argsort(values[0])], steps, axis=1)
    return np.stack([np.median(part, axis=1) for part in parts], axis=1).astype(np.float64)


def puncta_of(
    channel: Standing, other: Standing, params: MeasureParams, pixel_size: float
) -> pd.DataFrame:
    """Find the puncta of a channel, in the whole field.

    A punctum is double if its pixels stand out in the other channel, too. There, only fine detail
    counts, as a punctum in a cluster also has light from its neighbours.

    Parameters
    ----------
    channel, other : of the same field
    pixel_size : µm

    Returns
    -------
    a row for each punctum, from top to bottom, with `COLUMNS`
    """
    markers, parts = _parts(channel, params.smallest / pixel_size)
    _, first = np.unique(markers, return_index=True)  # of a flat top, its first pixel
    y, x = np.divmod(first[1:], markers.shape[1])
    places = np.flatnonzero(parts)
    number = parts.ravel()[places] - 1
    height = channel.height.ravel()[places]
    top = np.zeros(len(y), np.float32)
    np.maximum.at(top, number, height)
    kept = height >= top[number] / 2
    places, number = places[kept], number[kept]
    area = np.bincount(number, minlength=len(y))

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(number, values.ravel()[places], minlength=len(y)) / area

    table = pd.DataFrame(
        {
            "y": y,
            "x": x,
            "area": area,
            "area_um2": area * pixel_size**2,
            "height": mean(channel.height),
            "contrast": mean(channel.height) / mean(channel.level),
            "other_contrast": mean(other.height) / mean(other.level),
            "double": mean(other.detail) > SHARED * mean(other.threshold),
        }
    ).astype(COLUMNS)
    table = table[table["area_um2"] >= params.min_area]
    return table.sort_values(["y", "x"], ignore_index=True)


def _parts(channel: Standing, smallest: float) -> tuple[np.ndarray, np.ndarray]:
    """Return label maps of the brightest points, and of what lies around each.

    The points are those of the fine detail: in a cluster, it has more of them than the height.
    """
    mask = channel.height > channel.threshold / 2
    peaks = channel.height > channel.threshold
    peaks &= channel.detail == cv2.dilate(channel.detail, _disc(smallest))
    _, markers = cv2.connectedComponents(peaks.astype(np.uint8))
    return markers, watershed(-channel.detail, markers, mask=mask)


def _disc(diameter: float) -> np.ndarray:
    """Return a disc, at least 3 pixels wide, of an odd number of pixels: (n, n) uint8.

    That of OpenCV is not the same if it is turned by 90 degrees.
    """
    return disk(max(1, round((diameter - 1) / 2)))
