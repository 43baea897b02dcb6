"""Fields of the training set that were never on the disk."""

import numpy as np

from cellular.imaging.trainingset import TrainingField, make_field, percentiles
from cellular.preparing.flows import annotated, flows_of


def in_memory(name: str, image: np.ndarray, labels: np.ndarray, channels=(0, 0)) -> TrainingField:
    """Return a field of the training set that was never on the disk, with exact flows."""
    field = annotated(image, labels)
    return make_field(
        name, field.image, flows_of(field.labels), percentiles(field.image), channels,
        cells=field.cells, diameter=field.diameter,
    )  # fmt: skip
