"""Intervals, paired differences and the test of them: right where the answer is known."""

from itertools import product

import numpy as np
import pytest
from helpers.label_maps import row_of_cells, scored
from scipy.stats import binom, ttest_1samp

from benchmarks import false_claims
from cellular.scoring.results import files_of, write_results
from cellular.scoring.uncertainty import (
    FLIPS,
    count_units,
    interval,
    intervals,
    kind_of,
    p_value,
    paired_intervals,
    paired_scores,
    units_of,
)

AP = ("objects", "average_precision", "0.5")
RECALL = ("objects", "recall")
EMPTY = np.zeros((4, 4))


def named(*names: str):
    return [row_of_cells(1, 2, name) for name in names]


def of(plate: str, well: str, site: int, time: int = 1) -> str:
    return f"Timepoint_00{time}_{plate}_{well}_s{site}"


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("site", ["p C03 s1", "p C03 s1", "p C03 s2", "q C03 s1", "mine"]),
        ("well", ["p C03", "p C03", "p C03", "q C03", "mine"]),
    ],
)
def test_fields_of_one_site_or_well_are_one_unit_and_plates_differ(unit, expected):
    fields = [of("p", "C03", 1), of("p", "C03", 1, 2), of("p", "C03", 2), of("q", "C03", 1), "mine"]
    assert units_of(named(*fields), unit).tolist() == expected


def test_what_is_drawn_at_random_has_a_name():
    assert kind_of(named(of("p", "C03", 1)), "site") == "cell"
    assert kind_of(named("a", "b"), "site") == "field"
    assert kind_of(named(of("p", "C03", 1), "b"), "well") == "well"


def test_the_interval_of_a_recall_is_that_of_its_binomial():
    found = intervals([row_of_cells(70, 100)], seed=0)[RECALL]
    expected = binom(100, 0.7).ppf([0.025, 0.975]) / 100
    assert found == pytest.approx(tuple(expected), abs=0.011)


def test_with_one_field_in_each_unit_the_interval_is_that_of_students_t():
    values = np.array([0.4, 0.6, 0.7, np.nan, 0.5])
    expected = ttest_1samp(values, 0, nan_policy="omit").confidence_interval(0.95)
    assert interval(values, np.array(list("abcde"))) == pytest.approx(tuple(expected))


def test_more_fields_of_the_same_sites_make_no_interval_narrower():
    values, units = np.array([0.4, 0.6, 0.7]), np.array(list("abc"))
    once = interval(values, units)
    assert interval(np.repeat(values, 5), np.repeat(units, 5)) == pytest.approx(once)


def test_a_score_is_a_mean_over_fields_and_so_is_the_middle_of_its_interval():
    values, units = np.array([0.2, 0.4, 0.9]), np.array(list("aab"))
    assert np.mean(interval(values, units)) == pytest.approx(0.5)


def test_fields_of_one_unit_have_no_interval(tmp_path):
    results = named(*(of("p", "C03", 1, time) for time in (1, 2, 3)))
    assert intervals(results, seed=0) == {}
    assert write_results(files_of(tmp_path, "test"), results, seed=0)["interval_by_site"] == {}
    assert interval(np.array([0.5, np.nan]), np.array(list("ab"))) is None


def test_no_interval_goes_beyond_the_values_that_a_score_can_have():
    first = [row_of_cells(10, 10, "a"), row_of_cells(1, 10, "b")]
    second = [row_of_cells(10, 10, "a"), row_of_cells(10, 10, "b")]
    before, _, difference = paired_intervals(first, second, seed=0)
    assert before[RECALL] == (0, 1) and difference[RECALL] == (-1, 1)
    assert difference["count_error", "cells"][1] > 1


def test_two_models_are_scored_on_the_same_resample():
    better, worse = row_of_cells(60, 100), row_of_cells(59, 100)
    one, _, difference = (ends[RECALL] for ends in paired_intervals([worse], [better], seed=0))
    # They differ in one cell: unpaired, the difference would vary more than each of them.
    assert 0 <= difference[0] < difference[1] < 0.3 * (one[1] - one[0])


def test_false_positives_are_resampled_with_the_cells_around_them():
    found = intervals([row_of_cells(10, 10, false_positives=5)], seed=0)
    low, high = found["objects", "precision"]
    assert low < 10 / 15 < high


def test_the_seed_decides_the_resamples():
    first, again, other = (intervals([row_of_cells(50, 100)], seed=seed) for seed in (0, 0, 1))
    assert first == again and first != other


def test_undefined_scores_have_no_interval():
    empty = scored(EMPTY, EMPTY)
    assert intervals([empty], seed=0) == {}
    assert AP not in intervals([empty, scored(EMPTY, EMPTY, "b")], seed=0)
    found = intervals([row_of_cells(0, 5)], seed=0)
    assert ("objects", "mean_iou") not in found and found[AP] == (0, 0)


def test_models_on_different_fields_are_refused():
    with pytest.raises(ValueError, match="same fields"):
        paired_scores([row_of_cells(1, 2, "a")], [row_of_cells(1, 2, "b")])


def test_both_models_and_their_difference_count_the_same_fields():
    # In field c the first model finds nothing, so it has no mean IoU there.
    first = [row_of_cells(2, 4, "a"), row_of_cells(4, 4, "b"), row_of_cells(0, 4, "c")]
    second = [row_of_cells(4, 4, "a"), row_of_cells(4, 4, "b"), scored(np.eye(4), np.eye(4), "c")]
    for table in paired_scores(first, second):
        assert np.isnan(table["objects", "mean_iou"]).tolist() == [False, False, True]
        assert not np.isnan(table[RECALL]).any()
    precision = ("objects", "precision")
    first = [row_of_cells(2, 4, "a", 1), row_of_cells(2, 4, "b", 1), row_of_cells(0, 4, "c")]
    second = [row_of_cells(2, 4, "a"), row_of_cells(2, 4, "b"), row_of_cells(1, 4, "c", 3)]
    one, two, difference = (ends[precision] for ends in paired_intervals(first, second, seed=0))
    assert one == pytest.approx((2 / 3, 2 / 3)) and two == (1, 1)
    assert difference == pytest.approx((1 / 3, 1 / 3))


def test_p_is_the_part_of_all_signs_that_give_as_large_a_difference():
    differences, units = np.array([0.1, 0.2, -0.05, 0.3, 0.0, 0.1]), np.array(list("abcdee"))
    sums = np.array([0.1, 0.2, -0.05, 0.3, 0.1])
    every = np.array(list(product((1, -1), repeat=5))) @ sums
    expected = np.mean(np.abs(every) >= abs(sums.sum()) - 1e-12)
    assert p_value(differences, units, seed=0) == pytest.approx(expected)
    assert count_units(differences, units) == 5


@pytest.mark.parametrize("units", [2, 5, 6, 12])
def test_the_smallest_p_depends_on_the_number_of_units(units):
    differences = np.linspace(0.1, 0.2, units)
    assert p_value(differences, np.arange(units), seed=0) == pytest.approx(2 / 2**units)


def test_equal_models_have_a_p_of_1_and_a_seed_decides_it_for_many_units():
    assert p_value(np.zeros(8), np.arange(8), seed=0) == 1
    differences = np.random.default_rng(0).normal(0.2, 1, 40)
    first, again, other = (p_value(differences, np.arange(40), seed) for seed in (0, 0, 1))
    assert first == again and first != other and first == pytest.approx(other, abs=0.02)
    assert FLIPS < 2**40


@pytest.mark.parametrize(
    ("units", "worlds"),
    [
        (6, 300),
        (8, 300),
        *(pytest.param(units, 500, marks=pytest.mark.slow) for units in (12, 18)),
    ],
)
def test_of_equal_models_at_most_6_percent_are_called_better(units, worlds):
    claims = false_claims.simulate(units, worlds)
    assert claims.signs <= 6 < claims.sites < claims.fields
    assert claims.student <= 8
