"""Validation on whole fields: how many cells the network finds, not only how well it fits crops."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from cellular import weights
from cellular.fields import load_pairs, read_pair
from cellular.params import SegmentParams
from cellular.scores import IOU_THRESHOLDS, score_field
from cellular.segmentation import load_model, segment


def mean_ap50(
    state: weights.State, folder: Path, params: SegmentParams, device: torch.device
) -> float:
    """Return AP@0.5 of weights on the fields of a prepared folder, mean over the fields."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "weights"
        weights.save(state, path)
        model = load_model(path, device)
    scores = []
    for pair in load_pairs(folder):
        image, truth = read_pair(pair)
        scores.append(score_field(pair.field, truth, segment(model, image, params)))
    half = IOU_THRESHOLDS.index(0.5)
    return float(np.mean([score.average_precision[half] for score in scores]))
