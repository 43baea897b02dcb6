"""Tones: gamma correction, which makes dim cells easier to see beside bright ones.

A gamma below 1 brightens dim cells. At 0.5, the square root, photon noise also becomes equally
strong at all intensities.
"""

import numpy as np

SMALLEST_RANGE = 1e-3  # between the percentiles; Cellpose sets flatter channels to 0


def limits(values: np.ndarray) -> tuple[float, float]:
    """Return the 1st and the 99th percentile, which Cellpose normalises to 0 and 1."""
    values = values.astype(np.float32)
    return float(np.percentile(values, 1)), float(np.percentile(values, 99))


def normalised(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the values, of any shape, as float32 with `low` at 0 and `high` at 1; 0 if flat."""
    zero, width = np.float32(low), np.float32(high) - np.float32(low)
    if width <= SMALLEST_RANGE:
        return np.zeros(values.shape, np.float32)
    return (values.astype(np.float32) - zero) / width


def correct(image: np.ndarray, gamma: float) -> np.ndarray:
    """Return an image, (H, W) or (H, W, C), with each channel normalised and raised to `gamma`.

    Each channel x is 0 at its 1st percentile and 1 at its 99th; the result, float32, is
    sign(x) |x| ** gamma, so that values below 0 are kept. A gamma of 1 returns the image as it is,
    because Cellpose normalises it in any case.
    """
    if gamma == 1:
        return image
    planes = image[..., None] if image.ndim == 2 else image
    corrected = np.empty(planes.shape, np.float32)
    for number in range(planes.shape[-1]):
        plane = planes[..., number]
        shown = normalised(plane, *limits(plane))
        corrected[..., number] = np.sign(shown) * np.abs(shown) ** np.float32(gamma)
    return corrected.reshape(image.shape)
