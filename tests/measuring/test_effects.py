"""Effects: right where the answer is known, sure as often as they say, and silent without wells."""

import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cellular.measuring.effects import contrast, contrasts_by_time, course, sentence, smallest_p
from cellular.measuring.wells import by_well

CONDITIONS = ("fed", "starved")
WORLDS = 2000


def table(wells: dict[str, list]) -> pd.DataFrame:
    """Return a table of wells from their red puncta at time points 001, 002 and so on.

    Wells whose name begins with f are fed, those with s starved; others are of no known condition.
    """
    known = {"f": "fed", "s": "starved"}
    rows = [
        ("annotated", well, known.get(well[0]), f"{time:03}", value)
        for well, values in wells.items()
        for time, value in enumerate(values, 1)
    ]
    return pd.DataFrame(rows, columns=["source", "well", "condition", "timepoint", "red_puncta"])


def compared(wells: dict[str, list], conditions: tuple[str, str] = CONDITIONS) -> dict:
    found = contrast(table(wells), "red_puncta", conditions)
    json.dumps(found, allow_nan=False)
    assert sentence(found).endswith(".")
    return found


def of(fed, starved) -> dict[str, list]:
    """Return one value of each well, by its name."""
    return {f"f{n}": [v] for n, v in enumerate(fed)} | {f"s{n}": [v] for n, v in enumerate(starved)}


def test_a_well_counts_once_however_many_time_points_it_has():
    found = compared({"f1": [1, 3], "f2": [3], "s1": [6, 6, 9], "s2": [5], "s3": [6, np.nan]})
    assert found["wells"] == {"fed": 2, "starved": 3}
    assert found["means"] == {"fed": 2.5, "starved": 6}
    assert found["difference"] == 3.5
    assert found["timepoints"] == "differ"
    assert "Some wells lack time points" in sentence(found)


def test_the_interval_is_welchs():
    fed, starved = [1.0, 2, 4], [6.0, 9, 8, 15]
    found = compared(of(fed, starved))
    expected = stats.ttest_ind(starved, fed, equal_var=False).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected))
    assert found["claimed"] == (expected.low > 0)
    assert "timepoints" not in found


@pytest.mark.filterwarnings("error")
def test_wells_of_one_condition_may_be_alike():
    found = compared(of([0, 0, 0], [2, 3, 4]))
    expected = stats.ttest_1samp([2, 3, 4], 0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected))


def test_a_sentence_says_what_n_is_and_how_small_p_can_be():
    assert sentence(compared(of([1, 2, 3], [7, 8, 9]))) == (
        "Red puncta a cell: starved minus fed is +6 (95 % interval +3.73 to +8.27; "
        "N = 3 fed and 3 starved wells, not cells), so a difference is claimed. "
        "The exact permutation test gives p = 0.1; with so many wells it is at least 0.1."
    )
    assert "so no difference is claimed" in sentence(compared(of([1, 2, 3], [2, 3, 4])))


@pytest.mark.parametrize(
    ("wells", "reason"),
    [
        (of([], []), "there is no contrast, since no well with a value is fed or starved"),
        (of([1, 2], []), "there is no contrast, since all wells with a value are fed"),
        (of([1, 2], [np.nan]), "there is no contrast, since all wells with a value are fed"),
        (of([], [3]), "there is no contrast, since all wells with a value are starved"),
        (of([1, 2], [3]), "there is no interval, since only one well is starved"),
        (of([1], [3]), "there is no interval, since only one well is fed and one starved"),
        (of([0.1] * 3, [0.3, 0.1 + 0.2]), "there is no interval, since the wells within each"),
        ({"w": [1, 2]}, "there is no contrast, since no well with a value is fed or starved"),
    ],
)
def test_too_few_wells_have_no_interval_and_it_says_why(wells, reason):
    found = compared(wells)
    assert found["reason"].startswith(reason)
    assert found["reason"] in sentence(found)
    assert not {"low", "high", "claimed", "p"} & set(found)
    assert ("difference" in found) == all(found["wells"].values())


def test_a_table_without_cells_has_no_effects():
    wells = by_well(pd.DataFrame())
    assert contrast(wells, "ratio", CONDITIONS)["wells"] == {"fed": 0, "starved": 0}
    assert contrasts_by_time(wells, "ratio", CONDITIONS) == course(wells, "ratio") == []


def test_wells_of_two_sources_are_not_mixed():
    wells = table(of([1, 2], [3, 4])).assign(source=["annotated", "annotated", "x", "x"])
    for effect in (lambda: contrast(wells, "red_puncta", CONDITIONS), lambda: course(wells, "y")):
        with pytest.raises(ValueError, match="one source"):
            effect()


def test_each_time_point_is_compared_on_its_own():
    wells = {"f1": [1, 2], "f2": [2, 2.5], "s1": [5, 2], "s2": [5.5]}
    first, second = contrasts_by_time(table(wells), "red_puncta", CONDITIONS)
    assert (first["timepoint"], first["difference"], first["claimed"]) == ("001", 3.75, True)
    assert (second["timepoint"], second["difference"]) == ("002", -0.25)
    assert sentence(second).startswith("Red puncta a cell, time point 002: starved minus fed is")


values = st.lists(st.integers(-50, 50).map(float), min_size=2, max_size=4)


@settings(deadline=None, max_examples=25)
@given(values, values, st.randoms())
def test_swapped_conditions_change_the_sign_and_the_order_of_rows_nothing(fed, starved, random):
    wells = of(fed, starved)
    there, back = compared(wells), compared(wells, CONDITIONS[::-1])
    assert back["difference"] == -there["difference"]
    if "low" in there:
        assert (back["low"], back["high"]) == pytest.approx((-there["high"], -there["low"]))
        assert (back["p"], back["claimed"]) == (there["p"], there["claimed"])
    shuffled = list(wells.items())
    random.shuffle(shuffled)
    assert compared(dict(shuffled)) == there


@pytest.mark.parametrize("sizes", [(2, 2), (2, 3), (3, 3), (4, 2), (5, 4), (2, 8)])
def test_the_smallest_p_is_that_of_conditions_that_do_not_overlap(sizes):
    first, second = sizes
    found = compared(of(range(first), range(10, 10 + second)))
    pooled = [*range(first), *range(10, 10 + second)]
    differences = np.array(
        [np.mean(own) - (sum(pooled) - sum(own)) / first for own in combinations(pooled, second)]
    )  # of all splits
    extreme = np.isclose(differences, found["difference"]) | (differences > found["difference"])
    assert found["p"] == found["smallest_p"] == smallest_p(*sizes) == 2 * extreme.mean()
    assert found["exact"]


def test_beyond_some_thousand_splits_a_sample_of_them_is_tried_and_repeats():
    fed, starved = range(8), range(20, 28)
    found = compared(of(fed, starved))
    assert found == compared(of(fed, starved))
    assert not found["exact"]
    assert found["p"] == found["smallest_p"] == pytest.approx(2 / 10_001)
    assert "with so many splits it is at least 0.0002" in sentence(found)


def test_the_interval_holds_the_truth_and_claims_no_difference_where_there_is_none():
    """Three wells against three, of which the starved vary twice as much: all worlds at once."""
    fed, starved = np.random.default_rng(0).normal(size=(2, WORLDS, 3)) * [[[1]], [[2]]]
    ends = stats.ttest_ind(starved, fed, axis=1, equal_var=False).confidence_interval(0.95)
    one = compared(of(fed[0], starved[0]))
    assert (one["low"], one["high"]) == pytest.approx((ends.low[0], ends.high[0]))
    # An effect moves the interval with the truth, so both demands are one.
    outside = np.mean((ends.low > 0) | (ends.high < 0))
    assert 0.02 < outside < 0.05


def test_a_course_is_the_mean_slope_of_wells():
    wells = {"f1": [1, 2, 3], "f2": [5, 8, 11], "s1": [4, 4, 7], "w": [3]}
    fed, starved, unknown = course(table(wells), "red_puncta")
    assert (fed["condition"], fed["wells"], fed["slope"]) == ("fed", 2, pytest.approx(2))
    expected = stats.ttest_1samp([1, 3], 0).confidence_interval(0.95)
    assert (fed["low"], fed["high"]) == pytest.approx(tuple(expected))
    assert "so no change with time is claimed" in sentence(fed)
    assert sentence(starved) == (
        "Red puncta a cell, starved wells: +1.5 from one time point to the next "
        "(N = 1 well, not cells); there is no interval, since there is only one well."
    )
    assert unknown == {
        "readout": "red_puncta",
        "wells": 0,
        "reason": "there is no slope, since no well has values at two time points",
    }


def test_a_time_point_that_is_missing_or_no_number_is_left_out():
    wells = table({"f1": [1, 9, 3, 4]})
    wells["timepoint"] = ["1", "late", "3", None]
    (found,) = course(wells, "red_puncta")
    assert found["slope"] == pytest.approx(1)


def test_wells_that_do_not_change_have_no_interval_made_of_rounding():
    (found,) = course(table({"f1": [0.1, 0.1, 0.1], "f2": [0.3, 0.1 + 0.2, 0.3]}), "red_puncta")
    assert found["slope"] == pytest.approx(0)
    assert found["reason"] == "there is no interval, since the wells change alike"
