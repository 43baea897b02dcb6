"""Scores compared with brute force, Cellpose and scikit-learn, and with counts by hand."""

import json
import math
import warnings

import numpy as np
import pytest
from cellpose.metrics import aggregated_jaccard_index, average_precision
from helpers import reference
from helpers.label_maps import pairs, scored
from hypothesis import given, settings
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from cellular.scoring.groups import groups
from cellular.scoring.scores import (
    IOU_THRESHOLDS,
    scores_of,
    summarise,
    table_of_scores,
    typical_first,
)

SKLEARN = {
    "precision": precision_score,
    "recall": recall_score,
    "f1": f1_score,
    "jaccard": jaccard_score,
}


def scores(truth, predicted, **known) -> dict:
    """Return the defined scores of one field by place."""
    found = scores_of(scored(truth, predicted, **known).totals)
    return {place: float(value) for place, value in found.items() if not np.isnan(value)}


@pytest.mark.slow
@settings(max_examples=400)
@given(pairs)
def test_pixel_scores_are_those_of_sklearn(pair):
    found = scores(*pair)
    truth, predicted = ((labels > 0).ravel() for labels in pair)
    for name, score in SKLEARN.items():
        by_class = [
            score(truth, predicted, pos_label=label, zero_division=0) for label in (False, True)
        ]
        assert found["background", name] == pytest.approx(by_class[0], abs=1e-12)
        assert found["cell", name] == pytest.approx(by_class[1], abs=1e-12)
        assert found["average", name] == pytest.approx(np.mean(by_class), abs=1e-12)


@pytest.mark.slow
@settings(max_examples=400)
@given(pairs)
def test_average_precision_is_that_of_cellpose(pair):
    if not pair[0].any() and not pair[1].any():
        return
    found = scores(*pair)
    with np.errstate(invalid="ignore"):
        theirs = average_precision(*pair, threshold=list(IOU_THRESHOLDS))[0]
    for threshold, value in zip(IOU_THRESHOLDS, theirs, strict=True):
        ours = found["objects", "average_precision", f"{threshold:g}"]
        assert ours == pytest.approx(value, abs=1e-6)
    assert found["objects", "average_precision", "mean"] == pytest.approx(np.mean(theirs), abs=1e-6)


@pytest.mark.slow
@settings(max_examples=400)
@given(pairs)
def test_aggregated_jaccard_is_that_of_cellpose_for_one_of_the_best_matchings(pair):
    truth, predicted = pair
    found = scores(*pair).get(("objects", "aggregated_jaccard"))
    union = np.count_nonzero((truth > 0) | (predicted > 0))
    if not union:
        assert found is None
        return
    true, guess = reference.cells_of(truth), reference.cells_of(predicted)
    best = reference.best_matchings(true, guess)
    possible = [
        sum(len(true[t] & guess[p]) for t, p in pairing.items()) / union for pairing in best
    ]
    assert any(found == pytest.approx(value, abs=1e-12) for value in possible)
    if len(best) == 1 and truth.any() and predicted.any():
        with np.errstate(invalid="ignore"):
            assert found == pytest.approx(aggregated_jaccard_index([truth], [predicted])[0])


@pytest.mark.slow
@settings(max_examples=1000)
@given(pairs)
def test_scores_of_cells_are_those_of_brute_force(pair):
    truth, predicted = pair
    found = scores(*pair)
    true, guess = reference.cells_of(truth), reference.cells_of(predicted)
    n, m = len(true), len(guess)
    # All of the best matchings have the same number of found cells and the same sum of IoU.
    matching = reference.best_matchings(true, guess)[0]
    ious = {t: reference.iou(true[t], guess[p]) for t, p in matching.items()}
    ious = {t: value for t, value in ious.items() if value >= 0.5}
    tp = len(ious)
    expected = {
        ("objects", "precision"): tp / m if m else None,
        ("objects", "recall"): tp / n if n else None,
        ("objects", "f1"): 2 * tp / (n + m) if n + m else None,
        ("objects", "mean_iou"): math.fsum(ious.values()) / tp if tp else None,
        # Kirillov et al.: sum of IoU / (TP + FP / 2 + FN / 2)
        ("objects", "panoptic_quality"): (
            math.fsum(ious.values()) / (tp + (m - tp) / 2 + (n - tp) / 2) if n + m else None
        ),
        ("count_error", "cells"): m - n,
        ("count_error", "relative"): (m - n) / n if n else None,
        ("objects", "boundary_f1", "2px"): reference.boundary_f1(truth, predicted, 2.0),
    }
    if n:
        areas = [len(cell) for cell in true.values()]
        part = 0.02 * np.median(np.sqrt(4 * np.array(areas) / np.pi))
        place = ("objects", "boundary_f1", "2pct")
        expected[place] = reference.boundary_f1(truth, predicted, part)
    for place, value in expected.items():
        assert found.get(place) == (value if value is None else pytest.approx(value, abs=1e-9))
    if tp and len(reference.best_matchings(true, guess)) == 1:
        diameters = [
            [2 * math.sqrt(len(cell) / math.pi) for cell in (true[t], guess[matching[t]])]
            for t in ious
        ]
        errors = [b - a for a, b in diameters]
        assert found["diameter_error", "px"] == pytest.approx(np.mean(errors), abs=1e-9)
        assert found["diameter_error", "absolute_px"] == pytest.approx(np.mean(np.abs(errors)))
        relative = np.mean([(b - a) / a for a, b in diameters])
        assert found["diameter_error", "relative"] == pytest.approx(relative, abs=1e-9)


@pytest.mark.slow
@settings(max_examples=300)
@given(pairs)
def test_every_cell_is_counted_once_and_every_number_is_finite(pair):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = scored(*pair)
        summary = summarise([result])
        by_group = groups([result])
    counts = summary["counts"]
    assert counts["cells"] == pair[0].max() and counts["predictions"] == pair[1].max()
    assert counts["cells"] == sum(counts[k] for k in ("found", "merged", "split", "missed"))
    assert counts["predictions"] == sum(
        counts[k] for k in ("found", "merging", "part", "false_positive")
    )
    units, rest = result.units()
    assert len(units) == counts["cells"]
    assert np.allclose(units.sum(axis=0) + rest, result.totals)
    for kind, of in by_group.items():
        assert sum(group["cells"] for group in of.values()) == counts["cells"], kind
        assert sum(group["found"] for group in of.values()) == counts["found"], kind
    json.dumps([summary, by_group], allow_nan=False)


def test_counted_by_hand():
    # Two true cells of 2 px: one is found whole, the other by half; there is one false positive.
    found = scores([[1, 1, 0, 2, 2, 0, 0]], [[1, 1, 0, 2, 0, 0, 3]])
    assert found["objects", "average_precision", "0.5"] == pytest.approx(2 / 3)
    assert found["objects", "average_precision", "0.55"] == pytest.approx(1 / 4)
    # stardist's `matching` gives at 0.5: tp 2, fp 1, fn 0; the sum of IoU is 1.5
    assert found["objects", "precision"] == pytest.approx(2 / 3)
    assert found["objects", "recall"] == 1
    assert found["objects", "f1"] == pytest.approx(4 / 5)
    assert found["objects", "panoptic_quality"] == pytest.approx(1.5 / 2.5)
    assert found["objects", "mean_iou"] == pytest.approx(0.75)
    assert found["objects", "aggregated_jaccard"] == pytest.approx(3 / 5)
    assert found["cell", "f1"] == pytest.approx(3 / 4)
    assert found["background", "precision"] == pytest.approx(2 / 3)
    assert found["count_error", "cells"] == 1
    assert found["diameter_error", "px"] == pytest.approx(
        (math.sqrt(4 / math.pi) - math.sqrt(8 / math.pi)) / 2
    )


TRUTH = np.kron(np.arange(1, 10).reshape(3, 3), np.pad(np.ones((8, 8), int), 2)).astype(np.uint16)
MODELS = {
    "finds nothing": np.zeros_like(TRUTH),
    "all one cell": np.ones_like(TRUTH),
    "perfect": TRUTH,
    "perfect, other numbers": np.where(TRUTH, 10 - TRUTH.astype(int), 0).astype(np.uint16),
}
RIGHT = {
    "finds nothing": {"ap": 0, "aji": 0, "pixel_recall": 0, "missed": 9, "merged": 0},
    # one prediction of 36 x 36 pixels, matched to one of the cells of 8 x 8
    "all one cell": {"ap": 0, "aji": 64 / 1296, "pixel_recall": 1, "missed": 0, "merged": 9},
    "perfect": {"ap": 1, "aji": 1, "pixel_recall": 1, "missed": 0, "merged": 0},
}


@pytest.mark.parametrize("model", MODELS)
def test_models_that_find_every_cell_or_none(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = summarise([scored(TRUTH, MODELS[model])])
    right = RIGHT[model.partition(",")[0]]
    objects, counts = summary["objects"], summary["counts"]
    assert set(objects["average_precision"].values()) == {right["ap"]}
    assert objects["recall"] == right["ap"]
    assert objects["aggregated_jaccard"] == pytest.approx(right["aji"])
    assert summary["cell"]["recall"] == right["pixel_recall"]
    assert (counts["missed"], counts["merged"]) == (right["missed"], right["merged"])
    if right["ap"]:
        assert objects["boundary_f1"] == {"2px": 1, "2pct": 1}
        assert objects["panoptic_quality"] == objects["mean_iou"] == 1
        assert summary["diameter_error"] == {"px": 0, "absolute_px": 0, "relative": 0}
    else:
        assert objects["boundary_f1"] == {"2px": 0, "2pct": 0}
        assert objects["panoptic_quality"] == objects["f1"] == 0
        assert "mean_iou" not in objects and "diameter_error" not in summary
    assert ("precision" in objects) == (model != "finds nothing")
    json.dumps(summary, allow_nan=False)


def test_a_field_without_cells_has_scores_of_cells_only_if_some_are_predicted():
    empty = np.zeros((4, 4), int)
    nothing = scores(empty, empty)
    assert {place[0] for place in nothing} == {"background", "cell", "average", "count_error"}
    assert nothing["background", "f1"] == 1
    false_positives = scores(empty, TRUTH[:4, :4])
    assert false_positives["objects", "average_precision", "0.5"] == 0
    assert ("objects", "recall") not in false_positives


def test_a_score_of_a_split_is_the_mean_over_the_fields_in_which_it_is_defined():
    perfect = scored([[1, 0]], [[1, 0]], "a")
    missed = scored([[1, 2]], [[0, 0]], "b")
    empty = scored([[0, 0]], [[0, 0]], "c")
    summary = summarise([perfect, missed, empty])
    assert summary["cell"]["f1"] == pytest.approx(1 / 3)
    assert summary["objects"]["average_precision"]["0.5"] == 0.5
    assert summary["objects"]["precision"] == 1
    assert summary["counts"]["found"] == 1 and summary["counts"]["missed"] == 2
    assert summary["fields"] == 3
    of_fields = table_of_scores([perfect, missed, empty])["objects", "recall"]
    assert of_fields.tolist()[:2] == [1, 0] and np.isnan(of_fields[2])


def test_pixels_of_excluded_cells_can_be_ignored():
    truth = np.array([[1, 1, 0, 0, 0, 0]])
    predicted = np.array([[1, 1, 0, 2, 2, 0]])
    excluded = np.array([[0, 0, 0, 1, 1, 0]], bool)
    as_background = scores(truth, predicted)
    ignored = scores(truth, predicted, excluded=excluded)
    assert as_background["objects", "precision"] == 0.5
    assert as_background["cell", "precision"] == 0.5
    for name in ("precision", "aggregated_jaccard"):
        assert ignored["objects", name] == 1
    assert ignored["objects", "boundary_f1", "2px"] == 1
    assert ignored["cell", "precision"] == ignored["background", "f1"] == 1
    assert summarise([scored(truth, predicted, excluded=excluded)])["counts"]["ignored"] == 1


@pytest.mark.parametrize(
    ("scores", "order"),
    [
        ([0.9, 0.1, np.nan, 0.5], [3, 1, 0, 2]),
        ([0.3, 0.2], [0, 1]),
        ([0.4, 0.4, 0.4], [1, 0, 2]),
        ([np.nan], [0]),
    ],
)
def test_a_typical_field_has_the_median_score(scores, order):
    assert typical_first(np.array(scores)).tolist() == order
