"""Normalisation: what Cellpose's network sees as 0 and as 1, the 1st and the 99th percentile."""

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
