"""Small label maps: random pairs of one shape, and rows of cells that are easy to count."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cellular.imaging.masks import relabel
from cellular.scoring.cells import table_of_cells
from cellular.scoring.scores import FieldResult

LABELS = st.integers(0, 4)
label_maps = arrays(np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=LABELS)


def with_a_second(truth: np.ndarray):
    """Pair a map with another one of its shape: an unrelated one, or a changed copy."""
    unrelated = arrays(np.uint16, truth.shape, elements=LABELS)
    places = st.lists(
        st.tuples(*(st.integers(0, side - 1) for side in truth.shape), LABELS), max_size=6
    )

    def changed(edits: list) -> np.ndarray:
        copy = truth.copy()
        for y, x, label in edits:
            copy[y, x] = label
        return copy

    second = st.one_of(unrelated, places.map(changed))
    return st.tuples(st.just(relabel(truth)), second.map(relabel))


pairs = label_maps.flatmap(with_a_second)


def scored(truth, predicted, field: str = "x", **known) -> FieldResult:
    truth, predicted = (np.asarray(labels, np.uint16) for labels in (truth, predicted))
    return FieldResult(field, *table_of_cells(field, truth, predicted, **known))


def row_of_cells(found: int, of: int, field: str = "x", false_positives: int = 0) -> FieldResult:
    """Return a field with a row of cells, `found` of which are found, and false positives below."""
    truth, predicted = np.zeros((2, 7, max(20, 4 * of)), np.uint16)
    for number in range(of):
        truth[1:3, 4 * number : 4 * number + 3] = number + 1
    predicted[:, : 4 * found] = truth[:, : 4 * found]
    for number in range(false_positives):
        predicted[4:6, 4 * number : 4 * number + 3] = found + number + 1
    return scored(truth, predicted, field)
