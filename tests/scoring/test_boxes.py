"""Boxes: reading YOLO's format, and what becomes of annotated and predicted boxes."""

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellular.base.errors import InputError
from cellular.imaging.boxes import box_diameters, boxes_of, read_boxes
from cellular.imaging.matching import assign
from cellular.scoring.boxes import overlaps_of_boxes, table_of_boxes
from cellular.scoring.results import files_of, read_results, write_results
from cellular.scoring.scores import FieldResult, summarise

WELLS = [f"Timepoint_001_220518-ST_{well}_s1" for well in ("C05", "K07")]


def label_map(*boxes, side=40):
    """Return a label map, (side, side), in which each cell fills its box."""
    labels = np.zeros((side, side), np.uint16)
    for label, (top, left, bottom, right) in enumerate(boxes, start=1):
        labels[top:bottom, left:right] = label
    return labels


def boxed(truth, predicted, field="x"):
    boxes = np.array(truth, float).reshape(-1, 4)
    return FieldResult(field, table_of_boxes(field, boxes, predicted), pixels=0)


def scores(*results):
    return summarise(results)["objects"]


def test_lines_become_edges_in_pixels_that_are_clipped_to_the_frame(tmp_path):
    path = tmp_path / "a.txt"
    # On a frame of 10 x 20 pixels; the second box reaches over the right lower corner.
    path.write_text("0 0.5 0.5 0.25 0.5\n\n3 1 1 0.2 0.2\n0 0.5 0.5 0 0.1\n")
    boxes, classes = read_boxes(path, (10, 20))
    assert np.allclose(boxes, [[2.5, 7.5, 7.5, 12.5], [9, 18, 10, 20]])
    assert classes == ["0", "3"]  # the line without width is left out
    path.write_text("")
    assert read_boxes(path, (10, 20))[0].shape == (0, 4)


def test_all_wrong_lines_are_told_at_once(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(
        "0 0.5 0.5 0.1 nan\n0 0.5 0.5 0.1 0.1\n0 0.5\n0 0.5 0.5 0.1 1.1\ncell 0 0 1 1\n"
    )
    with pytest.raises(InputError, match="4 faults") as error:
        read_boxes(path, (10, 10))
    assert [fault.split(":")[0][-6:] for fault in error.value.faults] == [
        f"line {number}" for number in (1, 3, 4, 5)
    ]


def test_the_box_of_a_predicted_cell_is_the_one_around_its_mask():
    ring = label_map((2, 3, 9, 8))
    ring[4:6, 4:6] = 0
    ring[30, 39] = 2
    assert boxes_of(ring).tolist() == [[2, 3, 9, 8], [30, 39, 31, 40]]
    assert box_diameters(np.array([[0.0, 0, 9, 4]])) == [6]


def test_counted_by_hand():
    truth = [(0, 0, 10, 10), (0, 20, 10, 30), (20, 0, 30, 10), (20, 20, 30, 30)]
    # found exactly; found with an IoU of 0.5 exactly; missed with one of 0.4; missed; one invented
    predicted = label_map((0, 0, 10, 10), (0, 20, 10, 25), (20, 0, 30, 4), (32, 32, 36, 36))
    result = boxed(truth, predicted)
    cells = result.cells
    assert cells["outcome"].tolist() == ["found"] * 2 + ["missed"] * 2 + ["false positive"] * 2
    assert cells["iou"][:4].tolist() == [1, 0.5, 0.4, 0]
    assert cells["predicted_label"].fillna(0).tolist() == [1, 2, 0, 0, 3, 4]
    assert cells["unit"].tolist() == [1, 2, 3, 4, 3, 4]  # of the invented, the box that is nearest
    assert cells["border"].tolist() == [True, True, True, False, True, False]
    assert cells["diameter"][:2].tolist() == [10, 10]
    assert cells["predicted_diameter"][1] == pytest.approx(50**0.5)
    found = summarise([result])
    objects = found["objects"]
    assert (objects["precision"], objects["recall"], objects["f1"]) == (0.5, 0.5, 0.5)
    assert objects["strict"] == {"precision": 0.25, "recall": 0.25, "f1": 0.25}
    assert objects["average_precision"]["0.5"] == 2 / 6
    assert found["count_error"]["cells"] == 0
    assert found["diameter_error"]["px"] == pytest.approx((50**0.5 - 10) / 2)
    # What only masks can tell is undefined, and neither 0 nor 1.
    assert not {"cell", "background", "average"} & found.keys()
    assert not {"boundary_f1", "aggregated_jaccard"} & objects.keys()


def test_boxes_that_the_frame_cuts_count_as_all_others():
    cut = label_map((0, 0, 10, 4))
    assert scores(boxed([(0, 0, 10, 4)], cut))["f1"] == 1
    assert scores(boxed([], cut))["precision"] == 0
    assert scores(boxed([(0, 0, 10, 4)], 0 * cut))["recall"] == 0


def test_a_field_without_boxes_or_cells_has_no_scores_but_counts():
    found = summarise([boxed([], label_map())])
    assert found["objects"] == {}
    assert found["count_error"] == {"cells": 0}


def test_the_most_pairs_are_found_where_the_best_pair_would_take_a_partner_away():
    # The second prediction is nearest to the first box, and the only one for the second box.
    truth = [(0, 0, 10, 10), (0, 3, 10, 13)]
    guess = np.array([(0, 0, 10, 6), (0, 1, 10, 11)], float)
    overlaps = overlaps_of_boxes(np.array(truth, float), guess)
    true, predicted, _, iou = overlaps.pairs
    chosen = assign(true, predicted, iou, (2, 2))
    assert sorted(zip(true[chosen], predicted[chosen], strict=True)) == [(0, 0), (1, 1)]
    assert iou[chosen].tolist() == [0.6, 80 / 120]


edges = arrays(np.int64, (4,), elements=st.integers(0, 5))
some_boxes = st.lists(
    edges.map(lambda e: (*np.minimum(e[:2], e[2:]), *(np.maximum(e[:2], e[2:]) + 1))), max_size=4
).map(lambda boxes: np.array(boxes, float).reshape(-1, 4))


def iou_of(one, other):
    """Return the IoU of two boxes with whole edges, by counting pixels."""
    masks = np.zeros((2, 8, 8), bool)
    for mask, (top, left, bottom, right) in zip(masks, (one, other), strict=True):
        mask[int(top) : int(bottom), int(left) : int(right)] = True
    return masks.all(axis=0).sum() / masks.any(axis=0).sum()


def most_pairs(ious):
    """Return the largest number of pairs from 0.5 on, and the largest sum of all, by trying all."""
    n, m = ious.shape
    best = (0, 0.0)
    for k in range(1, min(n, m) + 1):
        for rows in combinations(range(n), k):
            for columns in permutations(range(m), k):
                chosen = ious[rows, columns]
                best = max(best, (int((chosen >= 0.5).sum()), float(chosen.sum())))
    return best


@given(some_boxes, some_boxes)
def test_no_other_pairing_finds_more(truth, guess):
    overlaps = overlaps_of_boxes(truth, guess)
    true, predicted, _, iou = overlaps.pairs
    expected = np.array([[iou_of(one, other) for other in guess] for one in truth])
    expected = expected.reshape(len(truth), len(guess))
    assert np.allclose(iou, expected[true, predicted])
    chosen = assign(true, predicted, iou, expected.shape)
    assert len(set(true[chosen])) == len(set(predicted[chosen])) == len(chosen)
    pairs, total = most_pairs(expected)
    assert (iou[chosen] >= 0.5).sum() == pairs
    assert iou[chosen].sum() == pytest.approx(total)


def test_results_of_boxes_are_written_with_intervals_and_read_again(tmp_path):
    truth = [(0, 0, 10, 10), (20, 20, 30, 30)]
    results = [
        boxed(truth, label_map(*truth), WELLS[0]),
        boxed(truth, label_map((0, 0, 10, 10)), WELLS[1]),
    ]
    written = write_results(files_of(tmp_path, "test"), results, seed=0)
    assert written["objects"]["recall"] == 0.75
    assert written["interval_by_site"]["objects"]["recall"]["low"] == 0
    assert {name: of["f1"] for name, of in written["groups"]["well"].items()} == {
        "220518-ST C05": 1,
        "220518-ST K07": pytest.approx(2 / 3),
    }
    again = read_results(tmp_path, "test")
    assert scores(*again) == scores(*results)
    alone = write_results(files_of(tmp_path, "alone"), results[1:], seed=0)
    assert alone["interval_by_cell"]["objects"]["recall"] == {"low": 0, "high": 1}
