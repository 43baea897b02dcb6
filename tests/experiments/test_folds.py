"""Statistics of folds: checked by eye, and against plainer ways to compute them."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cellular.base.errors import InputError
from cellular.experiments.folds import SCORES, by_fold, common, paired, summary
from cellular.experiments.foldtables import as_text, draw, markdown, markdown_of_difference
from cellular.scoring.summary import NUMBERS
from cellular.scoring.uncertainty import smallest_p


def table(values, cells=10, **others):
    """Return folds a, b, ... with these values of AP@0.5 by seed; all other scores are 0.5."""
    rows = [
        {"group": group, "seed": seed, "fields": 2, "cells": cells}
        | {name: value if name == "ap50" else others.get(name, 0.5) for name in SCORES}
        | {"experiment": f"cv-{group}-{seed}"}
        for group, seeds in zip("abcdefgh", values, strict=False)
        for seed, value in enumerate(seeds)
    ]
    return pd.DataFrame(rows)


def test_scores_are_those_of_the_summary():
    assert list(SCORES) == list(NUMBERS)


def test_seeds_are_averaged_before_folds():
    folds = table([[0.2, 0.4], [0.5, 0.7], [0.9, 0.9]])
    assert by_fold(folds)["ap50"].to_dict() == pytest.approx({"a": 0.3, "b": 0.6, "c": 0.9})
    found = summary(folds)["ap50"]
    assert found["mean"] == pytest.approx(0.6) and found["folds"] == 3
    # The folds' standard error is 0.3 / sqrt(3); Student's t with two degrees of freedom is 4.303.
    assert found["low"] == 0  # no AP is below
    assert found["high"] == pytest.approx(1.0)
    # Variances of the seeds are 0.02, 0.02 and 0.
    assert found["seed_sd"] == pytest.approx(np.sqrt(0.04 / 3))


def test_the_interval_of_a_count_error_may_go_below_0():
    folds = table([[0.5], [0.5], [0.5]])
    folds["count_error"] = [-0.3, 0.0, 0.3]
    found = summary(folds)["count_error"]
    assert found["high"] == -found["low"] == pytest.approx(4.303 * 0.3 / np.sqrt(3), abs=1e-3)


def test_one_seed_has_no_spread_and_one_fold_no_interval():
    assert "seed_sd" not in summary(table([[0.2], [0.4]]))["ap50"]
    assert summary(table([[0.2, 0.4]]))["ap50"].keys() == {"mean", "folds", "seed_sd"}


def test_a_score_that_is_undefined_in_a_fold_is_left_out():
    folds = table([[0.2, 0.4], [np.nan, 0.6], [np.nan, np.nan]])
    assert summary(folds)["ap50"]["mean"] == pytest.approx((0.3 + 0.6) / 2)
    assert summary(folds)["ap50"]["folds"] == 2
    assert "ap50" not in summary(table([[np.nan], [np.nan]]))
    assert "| b " in markdown(folds, "well")


VALUES = st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), min_size=2, max_size=6)


@given(VALUES)
def test_mean_and_interval_are_students_over_the_means_of_seeds(values):
    found = summary(table(values))["ap50"]
    means = np.mean(values, axis=1)
    assert found["mean"] == pytest.approx(means.mean())
    error = stats.sem(means)
    spread = stats.t.ppf(0.975, len(means) - 1) * error
    assert found["low"] == pytest.approx(max(means.mean() - spread, 0), abs=1e-9)
    assert found["high"] == pytest.approx(min(means.mean() + spread, 1), abs=1e-9)


# Sums of such values are exact, so that two that are equal count as equal.
EXACT = st.integers(0, 1024).map(lambda number: number / 1024)


@given(st.lists(st.tuples(*[EXACT] * 4), min_size=2, max_size=6))
def test_the_test_tries_all_signs_of_the_folds(folds):
    values, others = ([list(fold[part]) for fold in folds] for part in (slice(2), slice(2, 4)))
    found = paired(table(values), table(others))["scores"]["ap50"]
    apart = np.mean(values, axis=1) - np.mean(others, axis=1)
    assert found["difference"] == pytest.approx(apart.mean(), abs=1e-12)
    assert found["first"] - found["second"] == pytest.approx(apart.mean(), abs=1e-12)
    sums = np.array([np.dot(signs, apart) for signs in product((1, -1), repeat=len(apart))])
    assert found["p"] == pytest.approx(np.mean(np.abs(sums) >= abs(apart.sum())))
    assert found["p"] >= found["smallest_p"] - 1e-12


@pytest.mark.parametrize(("folds", "least"), [(1, 1), (2, 0.5), (5, 0.0625), (6, 0.03125)])
def test_folds_that_all_differ_in_one_direction_give_the_smallest_p(folds, least):
    assert smallest_p(folds) == least
    if folds > 1:
        better = np.linspace(0.5, 0.7, folds)
        found = paired(table([[v] for v in better]), table([[v - 0.1] for v in better]))
        assert found["scores"]["ap50"]["p"] == found["scores"]["ap50"]["smallest_p"] == least


def test_only_folds_and_seeds_that_both_have_are_compared():
    mine, other = table([[0.5, 0.9], [0.6, 0.9], [0.7, 0.9]]), table([[0.4], [0.4]])
    found = paired(mine, other)
    assert (found["groups"], found["seeds"]) == (["a", "b"], [0])
    assert found["scores"]["ap50"]["difference"] == pytest.approx(0.15)
    assert "p" not in paired(mine, table([[0.4]]))["scores"]["ap50"]
    with pytest.raises(InputError, match="here are a, b, c with seeds 0, 1, there x, y with"):
        common(mine, other.assign(group=["x", "y"]))


def test_folds_of_other_data_are_not_compared():
    with pytest.raises(InputError, match="fold a: 10 cells in 2 fields here, 11 in 2 there"):
        paired(table([[0.5], [0.6]]), table([[0.5], [0.6]], cells=11))


def test_the_tables_show_what_was_found():
    mine, other = table([[0.5, 0.7], [0.6, 0.6], [0.7, 0.8]]), table([[0.4], [0.4], [0.4]])
    text = as_text(mine, "timepoint", paired(mine, other), ("new", "old"), seen_sites=True)
    assert "n = 3 folds, each the mean of 2 seeds" in text
    assert "says nothing of others" in text
    assert "new minus old" in text and "with 3 folds it is at least 0.25" in text
    assert "cannot tell which recipe is better" in text
    rows = {
        line.split("|")[1].strip(): line.split("|") for line in markdown(mine, "well").split("\n")
    }
    assert [cell.strip() for cell in rows["a"][2:5]] == ["2", "10", "0.600"]
    assert rows["mean"][4].strip() == "0.650"
    assert rows["sd over seeds"][4].strip() == f"{np.sqrt((0.02 + 0 + 0.005) / 3):.3f}"
    line = markdown_of_difference(paired(mine, other), ("new", "old")).split("\n")[2]
    assert [cell.strip() for cell in line.split("|")[2:5]] == ["0.600", "0.400", "+0.200"]


def test_the_figure_shows_each_score_of_each_fold_and_seed():
    figure = draw(table([[0.5, 0.7], [0.6, 0.6], [0.7, np.nan]]), "well")
    assert [panel.get_title() for panel in figure.axes] == list(SCORES.values())
    first = figure.axes[0]
    assert [text.get_text() for text in first.get_yticklabels()] == ["a", "b", "c", "mean"]
    seeds, means = first.get_lines()[:2]
    assert len(seeds.get_xdata()) == 6
    assert list(means.get_xdata()) == pytest.approx([0.6, 0.6, 0.7])
    single = draw(table([[0.5], [0.6]]), "well").axes[0]
    assert len(single.get_lines()) == len(first.get_lines()) - 1
