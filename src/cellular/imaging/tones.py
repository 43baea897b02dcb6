"""Tones: gamma correction, with which dim cells count beside bright ones.

With a gamma below 1 the network sees more of the dim ones; 0.5 is a square root, which also makes
photon noise equally strong everywhere.
"""

import numpy as np

SMALLEST_RANGE = 1e-3  # between the percentiles; Cellpose sets flatter channels to 0


def limits(values: np.ndarray) -> tuple[float, float]:
    """Return the 1st and the 99th percentile, between which Cellpose normalises."""
    values = values.astype(np.float32)
    return float(np.percentile(values, 1)), float(np.percentile(values, 99))


def normalised(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return values with `low` at 0 and `high` at 1, float32; of a flat channel, 0."""
    low, high = np.float32(low), np.float32(high)
    if high - low <= SMALLEST_RANGE:
        return np.zeros(values.shape, np.float32)
    return (values.astype(np.float32) - low) / (high - low)


def correct(image: np.ndarray, gamma: float) -> np.ndarray:
    """Return an image, (H, W) or (H, W, C), each channel normalised and raised to `gamma`.

    Between the 1st percentile (0) and the 99th (1): y = x ** gamma; below 0 mirrored, so that
    nothing is cut off. With a gamma of 1 the image is returned as it is, which Cellpose, that
    normalises as well, sees in the same way.
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
