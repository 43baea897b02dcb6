"""The read-out of a field of 2048 px against scikit-image, one cell after another.

The peer looks for blobs in both channels of each cell with `blob_log`, in the rectangle around it,
and takes shape and brightness from `regionprops`. Channels and label map are read before.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from skimage.feature import blob_log
from skimage.measure import regionprops

from benchmarks import Result, memory, paired
from benchmarks._planting import PIXEL_SIZE, real_fields
from cellular.measuring.params import MeasureParams
from cellular.measuring.quality import background_of
from cellular.measuring.readout import field_of, measure

SHAPE = (
    *("label", "centroid", "area", "equivalent_diameter_area", "perimeter", "eccentricity"),
    *("solidity", "bbox"),
)


def run(small: bool = False) -> Result:
    """Time the field with the most cells, time point 5."""
    with tempfile.TemporaryDirectory() as folder:
        red, green, labels = real_fields(Path(folder), small)[4]
    params = MeasureParams()

    def ours() -> pd.DataFrame:
        return measure(field_of(red, green, PIXEL_SIZE, params), labels).cells

    cells = ours()
    peak = memory("VmHWM")
    # The peer takes most of a minute; the first read-out, above, was the warm-up.
    result = paired(ours, lambda: _peer(red, green, labels, params), rounds=1, warm_up=0)
    note = f"{len(cells)} cells; peak memory of ours {peak:.2f} GB"
    return replace(result, note=note)


def _peer(
    red: np.ndarray, green: np.ndarray, labels: np.ndarray, params: MeasureParams
) -> pd.DataFrame:
    """Return shape, brightness, and number of blobs of each cell."""
    channels = {
        name: channel - background_of(channel, labels)
        for name, channel in (("red", red), ("green", green))
    }
    least, most = (width / PIXEL_SIZE / 2 / 2**0.5 for width in (params.smallest, params.largest))
    rows = []
    for cell in regionprops(labels):
        row = {name: getattr(cell, name) for name in SHAPE}
        for name, channel in channels.items():
            crop = channel[cell.slice]
            own = crop[cell.image]
            row |= {f"mean_{name}": own.mean(), f"median_{name}": np.median(own)}
            row[f"sum_{name}"] = own.sum()
            threshold = params.contrast * max(float(np.median(own)), 1)
            blobs = blob_log(crop, least, most, num_sigma=5, threshold=threshold)
            y, x = blobs[:, :2].astype(int).T
            row[f"{name}_puncta"] = int(cell.image[y, x].sum())
        rows.append(row)
    return pd.DataFrame(rows)
