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
    """Return an image, (H, W) or (H, W, C), with the tones of each channel bent by `gamma`.

    Where x is 0 at a channel's 1st percentile and 1 at its 99th, it becomes sign(x) |x| ** gamma,
    so that values below 0 are kept. The percentiles keep their own values: channels weigh as much
    in the mean of all, grey, as they did before, and a gamma near 1 changes little.

    Returns
    -------
    float32 array of the same shape; with a gamma of 1 the image as it is
    """
    if gamma == 1:
        return image
    planes = image[..., None] if image.ndim == 2 else image
    corrected = np.empty(planes.shape, np.float32)
    for number in range(planes.shape[-1]):
        plane = planes[..., number]
        low, high = limits(plane)
        shown = normalised(plane, low, high)
        bent = np.sign(shown) * np.abs(shown) ** np.float32(gamma)
        corrected[..., number] = np.float32(low) + np.float32(high - low) * bent
    return corrected.reshape(image.shape)
