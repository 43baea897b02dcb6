"""Gains: which cells each of two models finds."""

import numpy as np
import pytest
from helpers.label_maps import label_maps, row_of_cells, scored, with_a_second
from hypothesis import given
from hypothesis import strategies as st

from cellular.imaging.matching import FOUND
from cellular.reporting.gains import COLOURS, differing, draw, gains

MODELS = ("a", "b")
# Two cells above and one below; the first model finds cells 1 and 2, the second 2 and 3.
TRUTH = np.array([[1, 1, 0, 2, 2], [1, 1, 0, 2, 2], [0, 0, 0, 0, 0], [3, 3, 0, 0, 0]], np.uint16)
FIRST = np.where(TRUTH == 3, 0, TRUTH).astype(np.uint16)
SECOND = np.where(TRUTH > 1, TRUTH - 1, 0).astype(np.uint16)


def of_maps(*predicted, field="x"):
    return ([scored(TRUTH, labels, field)] for labels in predicted)


def test_each_cell_is_found_by_both_by_one_or_by_neither():
    found = gains("test", MODELS, *of_maps(FIRST, SECOND))
    assert found.cells["label"].tolist() == [1, 2, 3]
    assert found.cells["found_by"].tolist() == ["a", "both", "b"]
    assert found.counts == {"both": 1, "a": 1, "b": 1, "neither": 0}
    assert found.sentence.startswith(
        "Of the 3 cells of test, only b finds 1, only a 1, both find 1, and neither finds 0."
    )
    areas = [np.sqrt(4 * area / np.pi) for area in (2, 4, 4)]
    first, second, all_cells = (f"{size:#.3g}" for size in (areas[0], areas[1], areas[2]))
    assert f"is {first} px of those that only b finds and {second} px of those" in found.sentence
    assert found.sentence.endswith(f"of all cells it is {all_cells} px.")


def test_models_that_find_the_same_cells_have_no_sizes_to_tell():
    found = gains("test", MODELS, *of_maps(FIRST, FIRST))
    assert found.counts == {"both": 2, "a": 0, "b": 0, "neither": 1}
    assert "diameter" not in found.sentence and differing(found, 3) == []


def test_cells_are_counted_by_size_and_by_class_and_well_where_there_are_several():
    found = gains("test", MODELS, *of_maps(FIRST, SECOND))
    assert list(found.table.groups) == ["by size (quarters of the diameters)"]  # no class, no well
    names = [f"Timepoint_001_p_{well}_s1" for well in ("C03", "I06")]
    results = [
        [scored(TRUTH, labels, name, classes=["fed", "fed", "starved"]) for name in names]
        for labels in (FIRST, SECOND)
    ]
    table = gains("test", MODELS, *results).table
    assert list(table.columns) == ["group", "cells", "both", "only a", "only b", "neither"]
    assert table.groups["by class"] == [
        ["fed", "4", "2", "2", "0", "0"],
        ["starved", "2", "0", "0", "2", "0"],
    ]
    assert table.groups["by well"] == [[f"p {w}", "3", "1", "1", "1", "0"] for w in ("C03", "I06")]


def test_the_fields_with_most_cells_of_one_model_come_first():
    first = [row_of_cells(3, 6, "x"), row_of_cells(6, 6, "y"), row_of_cells(5, 6, "z")]
    second = [row_of_cells(4, 6, "x"), row_of_cells(1, 6, "y"), row_of_cells(5, 6, "z")]
    found = gains("test", MODELS, first, second)
    assert differing(found, 3) == ["y", "x"] and differing(found, 1) == ["y"]


@given(label_maps.flatmap(lambda truth: st.tuples(with_a_second(truth), with_a_second(truth))))
def test_what_a_model_finds_is_what_both_find_and_what_only_it_finds(pairs):
    (truth, one), (_, two) = pairs
    first, second = scored(truth, one), scored(truth, two)
    counts = gains("test", MODELS, [first], [second]).counts
    assert sum(counts.values()) == truth.max(initial=0)
    for result, name in zip((first, second), MODELS, strict=True):
        assert (result.cells["outcome"] == FOUND).sum() == counts["both"] + counts[name]


def test_fields_without_cells_have_none_to_find():
    found = gains("test", MODELS, [row_of_cells(0, 0)], [row_of_cells(0, 0)])
    assert found.sentence.startswith("Of the 0 cells of test, only b finds 0,")
    assert found.table.groups == {} and differing(found, 3) == []


def test_results_on_different_cells_are_refused():
    with pytest.raises(ValueError, match="not scored on the same cells"):
        gains("test", MODELS, [row_of_cells(1, 2)], [row_of_cells(1, 3)])


def test_outlines_have_the_colour_of_who_finds_the_cell():
    truth, predicted = np.zeros((2, 60, 120), np.uint16)
    for number in range(4):
        truth[5:25, 30 * number + 2 : 30 * number + 22] = number + 1
    predicted[40:55, 2:22] = 1  # a false positive, of the second model only
    nothing = np.zeros_like(truth)
    image = np.full((60, 120), 100, np.uint8)
    found_by = ["both", "a", "b", "neither"]
    drawn = np.asarray(draw(image, truth, [nothing, predicted], found_by, [[], [1]], MODELS))
    assert drawn.shape == (60, 246, 3)
    for left in (0, 126):  # both halves show the annotated cells
        colours = [tuple(drawn[15, left + 30 * number + 2].tolist()) for number in range(4)]
        assert colours == [COLOURS[name] for name in ("both", "first", "second", "neither")]
        inner = [tuple(drawn[15, left + 30 * number + 3].tolist()) for number in range(4)]
        assert inner[1:3] == colours[1:3]  # thick, but for what both find or neither does
        assert inner[0] != colours[0] and inner[3] != colours[3]
    pink = (drawn == COLOURS["false positive"]).all(axis=2)
    assert pink[:, 126:].sum() == 2 * (15 + 20) - 4 and not pink[:, :126].any()


def test_a_prediction_that_is_no_false_positive_is_white_where_no_cell_is_outlined():
    truth, predicted = np.zeros((2, 30, 30), np.uint16)
    truth[5:20, 5:20], predicted[5:22, 5:22] = 1, 1
    image = np.zeros((30, 30, 3), np.uint8)
    drawn = np.asarray(draw(image, truth, [predicted, predicted], ["both"], [[], []], MODELS))
    assert tuple(drawn[21, 10].tolist()) == COLOURS["prediction"]
    assert tuple(drawn[5, 10].tolist()) == COLOURS["both"]
