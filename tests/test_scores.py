"""Scores against scikit-learn, Cellpose, and counting by hand."""

import warnings

import numpy as np
import pytest
from cellpose.metrics import average_precision
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from cellular.masks import relabel
from cellular.scores import overlaps, pixel_scores, score_field, summarise

label_maps = arrays(
    np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 5)
)
pairs = label_maps.flatmap(
    lambda truth: st.tuples(
        st.just(truth), arrays(np.uint16, truth.shape, elements=st.integers(0, 5))
    )
)
SKLEARN = {
    "precision": precision_score,
    "recall": recall_score,
    "f1": f1_score,
    "jaccard": jaccard_score,
}


@given(pairs)
def test_pixel_scores_are_those_of_sklearn(pair):
    truth, predicted = pair
    scores = pixel_scores(truth, predicted)
    for name, score in SKLEARN.items():
        by_class = [
            score((truth > 0).ravel(), (predicted > 0).ravel(), pos_label=label, zero_division=0)
            for label in (False, True)
        ]
        expected = {"background": by_class[0], "cell": by_class[1], "average": np.mean(by_class)}
        for kind, value in expected.items():
            assert scores[kind][name] == pytest.approx(value, abs=1e-12)


@given(pairs)
def test_average_precision_is_that_of_cellpose(pair):
    truth, predicted = relabel(pair[0]), relabel(pair[1])
    score = score_field("x", *pair)
    if not truth.any() and not predicted.any():
        assert score.average_precision == (1, 1, 1)
        return
    ap, tp, fp, fn = average_precision(truth, predicted, threshold=[0.5, 0.75, 0.9])
    assert score.average_precision == tuple(ap.tolist())
    assert (score.tp, score.fp, score.fn) == (tuple(tp), tuple(fp), tuple(fn))


@given(pairs)
def test_overlaps_are_those_of_counting_each_pair(pair):
    truth, predicted = relabel(pair[0]), relabel(pair[1])
    ious = overlaps(truth, predicted)
    assert ious.shape == (truth.max(), predicted.max())
    for i, j in np.ndindex(ious.shape):
        a, b = truth == i + 1, predicted == j + 1
        assert ious[i, j] == (a & b).sum() / (a | b).sum()


def test_counted_by_hand():
    #  two true cells of 2 px; one is found, of the other half, and one is invented
    truth = np.array([[1, 1, 0, 2, 2, 0, 0]], np.uint16)
    predicted = np.array([[1, 1, 0, 2, 0, 0, 3]], np.uint16)
    score = score_field("x", truth, predicted)
    assert score.tp == (2, 1, 1)
    assert score.fp == (1, 2, 2)
    assert score.fn == (0, 1, 1)
    assert score.average_precision == pytest.approx((2 / 3, 1 / 4, 1 / 4))
    assert score.pixels["cell"] == pytest.approx(
        {"precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4, "jaccard": 3 / 5}
    )
    assert score.pixels["background"]["precision"] == pytest.approx(2 / 3)


NOTHING, EVERYTHING = np.zeros((4, 4), np.uint16), np.ones((4, 4), np.uint16)


@pytest.mark.parametrize("truth", [NOTHING, EVERYTHING])
@pytest.mark.parametrize("predicted", [NOTHING, EVERYTHING])
def test_no_cell_or_nothing_but_cells_has_defined_scores(truth, predicted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score = score_field("x", truth, predicted)
    values = [value for kind in score.pixels.values() for value in kind.values()]
    assert np.isfinite([*values, *score.average_precision]).all()
    assert (score.average_precision[0] == 1) == np.array_equal(truth, predicted)


def test_gaps_in_the_numbers_are_no_missed_cells():
    truth = np.array([[9, 0, 4]], np.uint16)
    assert score_field("x", truth, truth).fn == (0, 0, 0)


def test_a_split_is_the_mean_over_its_fields():
    perfect = score_field("a", np.array([[1, 0]]), np.array([[1, 0]]))
    missed = score_field("b", np.array([[1, 2]]), np.array([[0, 0]]))
    summary = summarise([perfect, missed])
    assert summary["cell"]["f1"] == 0.5
    assert summary["objects"]["average_precision"] == {"0.5": 0.5, "0.75": 0.5, "0.9": 0.5}
    assert summary["objects"]["tp"]["0.5"] == 1 and summary["objects"]["fn"]["0.5"] == 2
    assert summary["fields"] == 2


def test_maps_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="differ"):
        score_field("x", np.ones((2, 2), int), np.ones((2, 3), int))
