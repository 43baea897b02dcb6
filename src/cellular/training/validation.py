"""Validation on whole fields: how many cells the network finds, not only its loss on crops."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from cellular.imaging.fields import load_pairs, read_field
from cellular.imaging.images import read_labels
from cellular.imaging.masks import relabel
from cellular.imaging.matching import FOUND, count_overlaps, match
from cellular.network import weights
from cellular.network.segmentation import load_model, segment_all
from cellular.network.settings import Settings


def mean_ap50(
    state: weights.State, folder: Path, settings: Settings, device: torch.device
) -> float:
    """Return AP@0.5 of weights on the fields of a prepared folder, mean over the fields.

    It is 0 if no field has a cell, true or predicted.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "weights"
        weights.save(state, path)
        model = load_model(path, device)
    pairs = load_pairs(folder)
    images = (read_field(pair.image) for pair in pairs)
    scores = []
    for pair, predicted in zip(pairs, segment_all(model, images, settings), strict=True):
        truth = relabel(read_labels(pair.labels), pair.labels)
        matching = match(count_overlaps(truth, predicted))
        found = np.count_nonzero(matching.true_outcomes == FOUND)
        every = len(matching.true_outcomes) + len(matching.predicted_outcomes) - found
        if every:  # of a field without any cell it is not defined
            scores.append(found / every)
    return float(np.mean(scores)) if scores else 0.0
