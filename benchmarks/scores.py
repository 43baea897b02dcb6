"""All scores of a field, against the four pixel scores that scikit-learn gives in the paper."""

import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from benchmarks import Result, paired
from cellular.fetching.datasets import fetch_dataset
from cellular.imaging.images import read_labels
from cellular.imaging.masks import relabel
from cellular.scoring.cells import table_of_cells
from cellular.scoring.scores import FieldResult, summarise

SIDE = 2048


def run() -> Result:
    """Score time point 4's masks against time point 5's; and 2,000 cells in a field."""
    with tempfile.TemporaryDirectory() as folder:
        fetch_dataset("sample", Path(folder) / "raw")
        truth, predicted = (
            relabel(
                read_labels(Path(folder) / f"raw/masks/Timepoint_00{time}_220518-ST_C03_s3.tif")
            )
            for time in (5, 4)
        )

    def ours(truth: np.ndarray = truth, predicted: np.ndarray = predicted) -> None:
        summarise([FieldResult("x", *table_of_cells("x", truth, predicted))])

    def peer() -> None:
        flat = [(labels > 0).astype(np.uint8).ravel() for labels in (truth, predicted)]
        for score in (precision_score, recall_score, f1_score, jaccard_score):
            score(*flat, average=None)

    result = paired(ours, peer)
    many = [_many_cells(shift) for shift in (0, 6)]
    start = time.perf_counter()
    ours(*many)
    seconds = time.perf_counter() - start
    note = f"; {many[0].max():,} cells in a field of {SIDE} px: {seconds:.2f} s"
    return Result(result.ours, result.peer, note)


def _many_cells(shift: int) -> np.ndarray:
    """Return 2,000 cells that touch one another, moved by `shift` pixels."""
    rows, columns = 40, 50
    y, x = ((np.arange(SIDE) - shift).clip(0) * count // SIDE for count in (rows, columns))
    return (y[:, None] * columns + x[None] + 1).astype(np.uint16)
