"""compare.py: two models on the same fields, and how certain their difference is."""

import json

import numpy as np
import pytest
from helpers.label_maps import row_of_cells, scored

from cellular.reporting.comparison import SEEN, compare, markdown
from cellular.scoring.results import files_of, write_results


@pytest.fixture
def write(tmp_path):
    def write(split: str = "test", **models) -> None:
        for model, results in models.items():
            write_results(files_of(tmp_path / model, split), results, seed=0)

    return write


def sites(count: int) -> list[str]:
    """Return two time points of each site, all of one well."""
    return [f"Timepoint_00{time}_p_C03_s{site}" for site in range(count) for time in (1, 2)]


def compared(write, tmp_path, first, second, **options):
    write(a=first, b=second)
    (comparison,) = compare(tmp_path, ("a", "b"), ["test"], **options)
    return comparison


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
    assert "test: 1 field cannot tell whether b finds cells better than a: AP@0.5 0.950" in out
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


def test_the_main_scores_come_first(write, tmp_path):
    comparison = compared(write, tmp_path, [row_of_cells(5, 10)], [row_of_cells(8, 10)])
    names = [row.name for row in comparison.rows]
    assert names[:2] == ["AP@0.5", "AP@0.75"]
    assert names.index("cells missed") == len(comparison.main_rows) + 3
    assert len(set(names)) == len(names) and comparison.rows[-1].name == "error of the diameter, px"


@pytest.mark.parametrize(
    ("units", "found", "verdict"),
    [
        (1, 8, "2 fields of 1 site cannot tell whether b finds cells better than a"),
        (5, 8, "5 sites cannot tell whether b finds cells better than a"),
        (6, 8, "b finds cells better than a"),
        (6, 2, "b finds cells worse than a"),
        (6, 5, "no difference between b and a could be shown"),
    ],
)
def test_the_sentence_claims_what_a_test_over_the_sites_shows(
    write, tmp_path, units, found, verdict
):
    fields = sites(units)
    comparison = compared(
        write,
        tmp_path,
        [row_of_cells(5, 10, name) for name in fields],
        [row_of_cells(found, 10, name) for name in fields],
    )
    assert comparison.sentence.startswith(f"test: {verdict}: AP@0.5")
    assert (f"{units} sites, p = " in comparison.sentence) == (units == 6)
    difference = comparison.scores["objects", "recall"].difference
    expected = ((found - 5) / 10,) * 2
    assert difference.interval == (pytest.approx(expected) if units > 1 else None)
    sure = {"b finds cells better than a", "b finds cells worse than a"}
    assert comparison.rows[0].sure == (verdict in sure)


def test_where_sites_of_one_well_are_alike_the_well_is_the_unit(run_script, write, tmp_path):
    fields = sites(6)
    for model, found in (("a", 5), ("b", 8)):
        write(**{model: [row_of_cells(found, 10, name) for name in fields]})
    arguments = ("--metrics_dir", tmp_path, "--models", "a", "b", "--splits", "test")
    _, by_site, _ = run_script("compare", *arguments)
    _, by_well, _ = run_script("compare", *arguments, "--unit", "well")
    assert "b finds cells better than a" in by_site and "6 sites, p = 0.031" in by_site
    assert "12 fields of 1 well cannot tell" in by_well


def test_mixed_differences_are_no_verdict(write, tmp_path):
    names = [f"field_{number}" for number in range(8)]
    comparison = compared(
        write,
        tmp_path,
        [row_of_cells(5, 10, name) for name in names],
        [
            row_of_cells(found, 10, n)
            for n, found in zip(names, (9, 6, 6, 6, 6, 6, 4, 4), strict=True)
        ],
    )
    assert "no difference between b and a could be shown" in comparison.sentence
    assert "8 fields, p = 0.23" in comparison.sentence


@pytest.mark.parametrize(
    ("first", "second", "good"),
    [(5, 8, True), (8, 5, False), (5, 5, None)],
)
def test_whether_a_difference_is_good_depends_on_what_is_measured(
    write, tmp_path, first, second, good
):
    comparison = compared(write, tmp_path, [row_of_cells(first, 10)], [row_of_cells(second, 10)])
    rows = {row.name: row for row in comparison.rows}
    for name in ("AP@0.5", "cells found (IoU 0.5)", "cells missed", "error of the count, relative"):
        assert rows[name].good is good, name
    assert rows["cells merged"].good is None


def test_an_error_is_better_if_it_is_nearer_to_0(write, tmp_path):
    first, second = row_of_cells(4, 10), row_of_cells(10, 10, false_positives=2)
    comparison = compared(write, tmp_path, [first], [second])
    assert comparison.scores["count_error", "relative"].good is True  # +0.2 in place of -0.6
    assert comparison.counts["false_positive"].good is False


def test_small_cells_that_got_worse_are_said_in_the_sentence(write, tmp_path):
    truth = np.zeros((20, 60), int)
    for number in range(8):  # four cells of 2 x 2 pixels and four of 6 x 6
        side = 2 if number < 4 else 6
        truth[2 : 2 + side, 7 * number : 7 * number + side] = number + 1
    small, large = (np.where(truth > 4, 0, truth), np.where(truth > 4, truth - 4, 0))
    for first, second, said in ((small * (small < 4), large, True), (small * 0, large, False)):
        comparison = compared(write, tmp_path, [scored(truth, first)], [scored(truth, second)])
        assert ("But b finds fewer of the smallest quarter" in comparison.sentence) == said
    assert "the smallest quarter" in markdown([comparison])


@pytest.mark.parametrize("flags", [("--output", "--table"), ("--table", "--summary")])
def test_two_outputs_of_one_name_are_refused(run_script, write, tmp_path, flags):
    write(a=[row_of_cells(1, 2)], b=[row_of_cells(1, 2)])
    arguments = ("--metrics_dir", tmp_path, "--models", "a", "b", "--splits", "test")
    same = [part for flag in flags for part in (flag, tmp_path / "same")]
    code, _, err = run_script("compare", *arguments, *same, "--force")
    assert code == 2 and "would be lost; choose another output" in err
    assert not (tmp_path / "same").exists()


def test_an_output_that_is_an_input_is_refused_with_force_too(run_script, write, tmp_path):
    write(a=[row_of_cells(1, 2)], b=[row_of_cells(1, 2)])
    arguments = ("--metrics_dir", tmp_path, "--models", "a", "b", "--splits", "test")
    cells = tmp_path / "a" / "test_cells.csv"
    before = cells.read_bytes()
    code, _, err = run_script("compare", *arguments, "--table", cells, "--force")
    assert code == 2 and "would be lost; choose another output" in err
    assert cells.read_bytes() == before


def test_outputs_appear_together_or_not_at_all(run_script, write, tmp_path):
    write(a=[row_of_cells(1, 2)], b=[row_of_cells(1, 2)])
    (tmp_path / "file").touch()
    code, _, err = run_script(
        *("compare", "--metrics_dir", tmp_path, "--models", "a", "b", "--splits", "test"),
        *("--output", tmp_path / "out.json", "--table", tmp_path / "file" / "table.md"),
    )
    assert code == 2 and "table.md" in err
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "file"}


def test_scores_are_compared_on_the_fields_where_both_have_them(write, tmp_path):
    comparison = compared(
        write,
        tmp_path,
        [row_of_cells(2, 4, "x"), row_of_cells(2, 4, "y"), row_of_cells(0, 4, "z")],
        [row_of_cells(4, 4, "x"), row_of_cells(4, 4, "y"), row_of_cells(1, 4, "z", 1)],
    )
    precision = comparison.scores["objects", "precision"]  # a found nothing in z
    for value, expected in ((precision.first, 1), (precision.second, 1), (precision.difference, 0)):
        assert value.number == expected and value.interval == (expected, expected)


def test_without_any_cell_nothing_is_claimed(write, tmp_path):
    write(a=[row_of_cells(0, 0)], b=[row_of_cells(0, 0)])
    (comparison,) = compare(tmp_path, ("a", "b"), ["test"])
    assert "nothing can be said" in comparison.sentence
    assert markdown([comparison])
    json.dumps(comparison.as_json(), allow_nan=False)


def test_scores_of_fields_that_were_trained_on_are_not_shown_as_those_of_others(
    run_script, write, tmp_path
):
    for split in ("test", "train"):
        write(split, a=[row_of_cells(5, 10)], b=[row_of_cells(8, 10)])
    table = tmp_path / "comparison.md"

    def told(training) -> list[str]:
        """Return the splits of which the table says that they were trained on."""
        if training is not None:
            (tmp_path / "train.json").write_text(json.dumps(training))
        code, _, err = run_script(
            *("compare", "--metrics_dir", tmp_path, "--models", "a", "b", "--table", table),
            *("--splits", "test", "train", "--output", tmp_path / "comparison.json", "--force"),
        )
        assert code == 0, err
        content = json.loads((tmp_path / "comparison.json").read_text())
        lines = [line for line in table.read_text().splitlines() if SEEN in line]
        splits = [line.split(":")[0] for line in lines]
        assert splits == [split for split, of in content.items() if of["trained_on"]]
        return splits

    assert told(None) == []  # nothing is known of a training
    assert told({"epochs": 3}) == ["train"]  # of an earlier version
    assert told({"trained_on": ["train"]}) == ["train"]
    assert told({"trained_on": ["train", "valid", "test"]}) == ["test", "train"]
    (tmp_path / "train.json").write_text('{"trained_on": 3}')
    code, _, err = run_script(
        "compare", "--metrics_dir", tmp_path, "--models", "a", "b", "--splits", "test"
    )
    assert code == 2 and "train.json: trained_on is 3, expected a list of splits" in err


def test_models_scored_on_different_cells_are_not_compared(run_script, write, tmp_path):
    write(a=[row_of_cells(5, 10)], b=[row_of_cells(5, 11)])
    code, _, err = run_script(
        "compare", "--metrics_dir", tmp_path, "--models", "a", "b", "--splits", "test"
    )
    assert code == 2 and "scored on different cells of test" in err


def test_a_missing_file_is_named_in_the_error(run_script, tmp_path):
    code, _, err = run_script("compare", "--metrics_dir", tmp_path)
    assert code == 2 and "test_eval.json does not exist; run the pipeline" in err
