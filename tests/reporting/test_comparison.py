"""compare.py: two models on the same fields, and how certain their difference is."""

import json

import pytest
from helpers.label_maps import row_of_cells

from cellular.reporting.comparison import compare, markdown
from cellular.scoring.results import write_results


@pytest.fixture
def write(tmp_path):
    def write(split: str = "test", **models) -> None:
        for model, results in models.items():
            write_results(tmp_path / model, split, results, seed=0)

    return write


def test_scores_stand_side_by_side_with_the_interval_of_their_difference(
    run_script, write, tmp_path
):
    write(a=[row_of_cells(20, 40)], b=[row_of_cells(38, 40)])
    code, out, _ = run_script(
        *("compare", "--metrics_dir", tmp_path, "--models", "a", "b", "--splits", "test"),
        *("--output", tmp_path / "comparison.json", "--table", tmp_path / "comparison.md"),
    )
    assert (tmp_path / "comparison.md").read_text() == out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()]
    assert code == 0
    assert "test: b finds cells better than a: AP@0.5 0.950 against 0.500" in out
    assert "cells of the one field resampled" in out
    assert ["cells missed", "20", "2", "-18"] in rows
    title, header = "test (1 field, 40 cells)", "difference (95 % interval)"
    assert [title, "a", "b", header] in rows
    content = json.loads((tmp_path / "comparison.json").read_text())["test"]
    found = content["difference_by_cell"]["objects"]["average_precision"]["0.5"]
    assert (found["a"], found["b"]) == (0.5, 0.95)
    assert found["difference"] == pytest.approx(0.45)
    assert 0.25 < found["low"] < 0.45 < found["high"] < 0.65
    assert content["counts"]["found"] == {"a": 20, "b": 38, "difference": 18}
    assert f"({found['low']:+.3f} to {found['high']:+.3f})" in out


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (20, 21, "no difference between b and a could be shown"),
        (21, 21, "no difference between b and a could be shown"),
        (38, 20, "b finds cells worse than a"),
    ],
)
def test_the_sentence_claims_no_more_than_the_interval(write, tmp_path, first, second, verdict):
    write(a=[row_of_cells(first, 40)], b=[row_of_cells(second, 40)])
    (comparison,) = compare(tmp_path, ("a", "b"), ["test"])
    assert verdict in comparison.sentence


@pytest.mark.parametrize(
    ("fields", "verdict"), [(2, "2 fields are too few to say"), (6, "b finds cells better than a")]
)
def test_several_fields_are_resampled_as_wholes(write, tmp_path, fields, verdict):
    names = [f"field_{number}" for number in range(fields)]
    write(
        a=[row_of_cells(5, 10, name) for name in names],
        b=[row_of_cells(8, 10, name) for name in names],
    )
    (comparison,) = compare(tmp_path, ("a", "b"), ["test"])
    assert "fields resampled" in comparison.sentence and verdict in comparison.sentence
    difference = comparison.scores["objects", "recall"].difference
    assert difference.interval == pytest.approx((0.3, 0.3))


def test_scores_are_compared_on_the_fields_where_both_have_them(write, tmp_path):
    write(
        a=[row_of_cells(2, 4, "x"), row_of_cells(0, 4, "y")],
        b=[row_of_cells(4, 4, "x"), row_of_cells(1, 4, "y", false_positives=1)],
    )
    (comparison,) = compare(tmp_path, ("a", "b"), ["test"])
    precision = comparison.scores["objects", "precision"]  # a found nothing in y
    both = (precision.first.number, precision.second.number)
    assert both == (1, 1) and precision.difference.number == 0


def test_without_any_cell_nothing_is_claimed(write, tmp_path):
    write(a=[row_of_cells(0, 0)], b=[row_of_cells(0, 0)])
    (comparison,) = compare(tmp_path, ("a", "b"), ["test"])
    assert "nothing can be said" in comparison.sentence
    assert markdown([comparison])
    json.dumps(comparison.as_json(), allow_nan=False)


def test_models_scored_on_different_cells_are_not_compared(run_script, write, tmp_path):
    write(a=[row_of_cells(5, 10)], b=[row_of_cells(5, 11)])
    code, _, err = run_script(
        "compare", "--metrics_dir", tmp_path, "--models", "a", "b", "--splits", "test"
    )
    assert code == 2 and "scored on different cells of test" in err


def test_a_missing_file_is_named_in_the_error(run_script, tmp_path):
    code, _, err = run_script("compare", "--metrics_dir", tmp_path)
    assert code == 2 and "test_fields.csv does not exist; run the pipeline" in err
