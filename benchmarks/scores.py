"""All scores of a field, against the four pixel scores that scikit-learn gives in the paper."""

import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from benchmarks import Result, paired
from benchmarks._sample import CORNER, raw
from cellular.imaging.images import read_labels
from cellular.imaging.masks import relabel
from cellular.scoring.cells import table_of_cells
from cellular.scoring.scores import FieldResult, summarise

SIDE = 2048


def run(small: bool = False) -> Result:
    """Score time point 4's masks against time point 5's; and 2,000 cells in a field."""
    with tempfile.TemporaryDirectory() as folder:
        masks = sorted((raw(Path(folder), small) / "masks").iterdir())
        truth, predicted = (relabel(read_labels(masks[number])) for number in (4, 3))

    def ours(truth: np.ndarray = truth, predicted: np.ndarray = predicted) -> None:
        summarise([FieldResult("x", *table_of_cells("x", truth, predicted))])

    def peer() -> None:
        flat = [(labels > 0).astype(np.uint8).ravel() for labels in (truth, predicted)]
        for score in (precision_score, recall_score, f1_score, jaccard_score):
            score(*flat, average=None)

    result = paired(ours, peer, rounds=1 if small else 5)
    side, rows, columns = (CORNER, 4, 5) if small else (SIDE, 40, 50)
    many = [_grid_of_cells(side, rows, columns, shift) for shift in (0, 6)]
    start = time.perf_counter()
    ours(*many)
    seconds = time.perf_counter() - start
    note = f"; {many[0].max():,} cells in a field of {side} px: {seconds:.2f} s"
    return Result(result.ours, result.peer, note)


def _grid_of_cells(side: int, rows: int, columns: int, shift: int) -> np.ndarray:
    """Return a label map full of cells that touch one another, moved by `shift` pixels."""
    y, x = ((np.arange(side) - shift).clip(0) * count // side for count in (rows, columns))
    return (y[:, None] * columns + x[None] + 1).astype(np.uint16)
