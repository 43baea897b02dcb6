"""The optimal matching and the outcome of every cell, against brute force and Cellpose."""

import numpy as np
import pytest
from cellpose.metrics import mask_ious
from helpers import reference
from helpers.label_maps import pairs
from hypothesis import given, settings
from hypothesis import strategies as st

from cellular.imaging.masks import relabel
from cellular.imaging.matching import count_overlaps, match


@pytest.mark.slow
@settings(max_examples=1500)
@given(pairs)
def test_the_matching_is_the_best_of_all(pair):
    truth, predicted = pair
    true, guess = reference.cells_of(truth), reference.cells_of(predicted)
    overlaps = count_overlaps(truth, predicted)
    found = match(overlaps)
    chosen = dict(zip((found.true + 1).tolist(), (found.predicted + 1).tolist(), strict=True))
    assert chosen in reference.best_matchings(true, guess)
    for t, p, value in zip(found.true, found.predicted, found.iou, strict=True):
        assert value == reference.iou(true[t + 1], guess[p + 1])
    matched = {t for t, p in chosen.items() if reference.iou(true[t], guess[p]) >= 0.5}
    assert found.true_outcomes.tolist() == [
        reference.outcome_of_true(label, true, guess, matched) for label in sorted(true)
    ]
    matched = {chosen[t] for t in matched}
    assert found.predicted_outcomes.tolist() == [
        reference.outcome_of_prediction(label, true, guess, matched) for label in sorted(guess)
    ]


@settings(max_examples=500)
@given(pairs)
def test_one_matching_is_optimal_at_every_threshold_from_one_half_on(pair):
    truth, predicted = pair
    true, guess = reference.cells_of(truth), reference.cells_of(predicted)
    ious = match(count_overlaps(truth, predicted)).iou
    for threshold in (0.5, 0.55, 0.6, 0.75, 0.9, 0.95, 1.0):
        assert np.sum(ious >= threshold) == reference.most_pairs(true, guess, threshold)


@settings(max_examples=500)
@given(pairs)
def test_overlaps_are_those_that_counting_each_pair_gives(pair):
    truth, predicted = pair
    overlaps = count_overlaps(truth, predicted)
    shared = overlaps.shared.toarray()
    assert shared.shape == (truth.max(), predicted.max())
    for i, j in np.ndindex(shared.shape):
        assert shared[i, j] == ((truth == i + 1) & (predicted == j + 1)).sum()
    a, b = truth > 0, predicted > 0
    assert overlaps.true_areas.sum() == a.sum() and overlaps.predicted_areas.sum() == b.sum()
    assert overlaps.shared.sum() == (a & b).sum() and overlaps.pixels == truth.size


@settings(max_examples=300)
@given(pairs)
def test_the_matching_is_that_of_cellpose_where_only_one_is_best(pair):
    truth, predicted = pair
    if not truth.any() or not predicted.any():
        return
    true, guess = reference.cells_of(truth), reference.cells_of(predicted)
    if len(reference.best_matchings(true, guess)) > 1:
        return
    found = match(count_overlaps(truth, predicted))
    with np.errstate(invalid="ignore"):
        theirs, _ = mask_ious(truth, predicted)
    ours = np.zeros(truth.max())
    ours[found.true] = found.iou
    assert ours == pytest.approx(theirs)


def fields(*rows: str) -> np.ndarray:
    return np.array([[int(letter) for letter in row.replace(".", "0")] for row in rows], np.uint16)


def test_outcomes_of_a_small_example():
    truth = fields("111.222", "111.222", ".......", "3333444", ".......", "55.....")
    guess = fields("1111111", "1111111", ".......", "2233444", ".......", "...5566")
    found = match(count_overlaps(truth, relabel(guess)))
    # 1 and 2 lie in one prediction, and share 6 of 14 pixels with it, less than half; 3 is in two
    # halves, one of which finds it at exactly 0.5; 4 is found; 5 is missed, and there are two false
    # positives.
    assert found.true_outcomes.tolist() == ["merged", "merged", "found", "found", "missed"]
    expected = ["merging", "found", "part", "found", "false positive", "false positive"]
    assert found.predicted_outcomes.tolist() == expected


def test_a_cell_in_three_parts_is_split():
    found = match(count_overlaps(fields("111111"), fields("112233")))
    assert found.true_outcomes.tolist() == ["split"]
    assert found.predicted_outcomes.tolist() == ["part"] * 3


def test_excluded_pixels_count_neither_way():
    truth = fields("11.....", ".......")
    guess = fields("1112233", ".....33")
    excluded = fields("..11.11", ".....11").astype(bool)
    overlaps = count_overlaps(truth, guess, excluded)
    # 1: without its excluded pixel it is right; of 2 half is excluded, not more; 3 is excluded.
    assert overlaps.predicted_areas.tolist() == [2, 1, 0]
    assert overlaps.excluded_areas.tolist() == [1, 1, 4]
    assert overlaps.pixels == 14 - 6
    found = match(overlaps)
    assert found.iou.tolist() == [1.0]
    assert found.predicted_outcomes.tolist() == ["found", "false positive", "ignored"]


@settings(max_examples=800)
@given(pairs, st.integers(0, 2**31 - 1))
def test_ignored_cells_change_nothing(pair, seed):
    truth, predicted = pair
    marked = np.random.default_rng(seed).random(truth.shape) < 0.6
    excluded = marked & (truth == 0)
    true = reference.cells_of(truth)
    whole = reference.cells_of(predicted)
    off = frozenset(map(tuple, np.argwhere(excluded).tolist()))
    counted = reference.cells_of(predicted, without=off)
    first = reference.best_matchings(true, counted)
    if len(first) > 1:
        return  # which of two equals is found decides what is ignored
    kept = {p for t, p in first[0].items() if reference.iou(true[t], counted[p]) >= 0.5}
    ignored = {p for p in whole if p not in kept and len(whole[p]) > 2 * len(counted[p])}
    left = {p: cell for p, cell in counted.items() if p not in ignored}
    found = match(count_overlaps(truth, predicted, marked))
    chosen = dict(zip((found.true + 1).tolist(), (found.predicted + 1).tolist(), strict=True))
    assert chosen in reference.best_matchings(true, left)
    matched = {t for t, p in chosen.items() if reference.iou(true[t], left[p]) >= 0.5}
    assert found.true_outcomes.tolist() == [
        reference.outcome_of_true(label, true, left, matched) for label in sorted(true)
    ]
    matched = {chosen[t] for t in matched}
    assert found.predicted_outcomes.tolist() == [
        "ignored" if p in ignored else reference.outcome_of_prediction(p, true, left, matched)
        for p in sorted(whole)
    ]


def test_maps_that_differ_in_size_are_refused():
    with pytest.raises(ValueError, match="differ"):
        count_overlaps(np.ones((2, 2), int), np.ones((2, 3), int))
