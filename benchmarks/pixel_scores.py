"""Pixel scores of a real field: counting the confusion against scikit-learn's four scores."""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from benchmarks import Result, paired
from cellular.datasets import fetch_dataset
from cellular.images import read_labels
from cellular.scores import pixel_scores


def run() -> Result:
    """Score time point 4's masks against time point 5's."""
    with tempfile.TemporaryDirectory() as folder:
        fetch_dataset("sample", Path(folder) / "raw")
        truth, predicted = (
            read_labels(Path(folder) / f"raw/masks/Timepoint_00{time}_220518-ST_C03_s3.tif")
            for time in (5, 4)
        )

    def peer() -> None:
        flat = [(labels > 0).astype(np.uint8).ravel() for labels in (truth, predicted)]
        for score in (precision_score, recall_score, f1_score, jaccard_score):
            score(*flat, average=None)

    return paired(lambda: pixel_scores(truth, predicted), peer)
