"""Training fields that are in memory only."""

import numpy as np

from cellular.imaging.trainingset import TrainingField, make_field, percentiles
from cellular.preparing.flows import annotated, flows_of


def in_memory(name: str, image: np.ndarray, labels: np.ndarray, channels=(0, 0)) -> TrainingField:
    """Return a training field with exact flows, made from an image and its label map."""
    field = annotated(image, labels)
    return make_field(
        name,
        field.image,
        flows_of(field.labels),
        field.labels,
        percentiles(field.image),
        channels,
        cells=field.cells,
        diameter=field.diameter,
    )
