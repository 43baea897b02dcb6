"""Intervals and paired differences: reproducible, and right where the answer is known."""

import numpy as np
import pytest
from helpers.label_maps import row_of_cells, scored
from scipy.stats import binom

from cellular.scoring.bootstrap import (
    BY_CELL,
    BY_FIELD,
    interval,
    paired_resamples,
    resamples,
    unit_of,
)

AP = ("objects", "average_precision", "0.5")
RECALL = ("objects", "recall")


def test_the_interval_of_a_recall_is_that_of_its_binomial():
    samples = resamples([row_of_cells(70, 100)], seed=0)
    low, high = interval(samples[RECALL])
    expected = binom(100, 0.7).ppf([0.025, 0.975]) / 100
    assert (low, high) == pytest.approx(tuple(expected), abs=0.011)


def test_one_field_resamples_its_cells_and_several_resample_fields():
    one, other = row_of_cells(5, 10, "a"), row_of_cells(10, 10, "b")
    assert unit_of([one]) == BY_CELL and unit_of([one, other]) == BY_FIELD
    samples = resamples([one, other], seed=0)
    assert set(np.round(samples[RECALL], 6)) == {0.5, 0.75, 1.0}
    # two draws of two fields differ with a chance of one half
    assert np.mean(samples[RECALL] == 0.75) == pytest.approx(0.5, abs=0.05)


def test_two_models_are_scored_on_the_same_resample():
    better, worse = row_of_cells(60, 100), row_of_cells(59, 100)
    differences = paired_resamples([worse], [better], seed=0)[RECALL]
    # They differ in one cell: unpaired, the difference would vary as much as each of them.
    assert differences.min() >= 0 and np.std(differences) < 0.2 * np.std(
        resamples([worse], seed=0)[RECALL]
    )


def test_false_positives_are_resampled_with_the_cells_around_them():
    samples = resamples([row_of_cells(10, 10, false_positives=5)], seed=0)
    low, high = interval(samples["objects", "precision"])
    assert low < 10 / 15 < high


def test_the_seed_decides_the_resamples():
    field = [row_of_cells(5, 10)]
    first, again, other = (resamples(field, seed=seed)[AP] for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_undefined_scores_have_no_interval():
    empty = scored(np.zeros((4, 4)), np.zeros((4, 4)))
    assert resamples([empty], seed=0) == {}
    samples = resamples([empty, scored(np.zeros((4, 4)), np.zeros((4, 4)), "b")], seed=0)
    assert interval(samples[AP]) is None
    samples = resamples([row_of_cells(0, 5)], seed=0)
    assert interval(samples["objects", "mean_iou"]) is None
    assert interval(samples[AP]) == (0, 0)


def test_models_on_different_fields_are_refused():
    with pytest.raises(ValueError, match="same fields"):
        paired_resamples([row_of_cells(1, 2, "a")], [row_of_cells(1, 2, "b")], seed=0)


def test_a_difference_counts_the_fields_in_which_both_have_the_score():
    # In field b the first model finds nothing, so it has no mean IoU there.
    first = [row_of_cells(2, 4, "a"), row_of_cells(0, 4, "b")]
    second = [row_of_cells(4, 4, "a"), row_of_cells(4, 4, "b")]
    samples = paired_resamples(first, second, seed=0)["objects", "mean_iou"]
    assert set(samples[~np.isnan(samples)]) == {0.0}
    recall = paired_resamples(first, second, seed=0)[RECALL]
    assert set(recall) == {0.5, 0.75, 1.0}
