"""Normalisation: what Cellpose's network sees as 0 and as 1, the 1st and the 99th percentile.

And two measures of an image that hang on it: how bright its middle is, and how much is cut off.
"""

import numpy as np

SMALLEST_RANGE = 1e-3  # between the percentiles; Cellpose sets flatter channels to 0
ENOUGH = 512  # pixels a side from which brightness is taken; in fields of 2048 it errs by 0.002


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


def brightness(image: np.ndarray) -> float:
    """Return where the median of an image in grey lies between its percentiles: 0 to 1.

    It tells pictures apart that normalisation leaves different, such as merged ones, in which most
    pixels are cell, from raw channels, in which a few bright spots are far above the rest.

    Parameters
    ----------
    image : (H, W) or (H, W, C)
    """
    step = max(1, min(image.shape[:2]) // ENOUGH)
    some = image[::step, ::step]
    grey = some if some.ndim == 2 else some.mean(axis=2, dtype=np.float32)
    return float(np.median(normalised(grey, *limits(grey))))


def saturated(image: np.ndarray) -> float:
    """Return the share of the pixels of which a channel has the image's highest value: 0 to 1.

    A flat image has none.

    Parameters
    ----------
    image : (H, W) or (H, W, C)
    """
    if image.max() == image.min():
        return 0.0
    highest = image == image.max()
    return float(np.mean(highest if image.ndim == 2 else highest.any(axis=2)))
