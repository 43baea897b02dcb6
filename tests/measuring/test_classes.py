"""Classes: told in wells that were not learnt from, or not at all, and it says why."""

import json

import numpy as np
import pandas as pd
import pytest

from cellular.measuring.classes import classify, sentence
from cellular.measuring.wells import READOUTS


def cells(classes: dict[str, str], effect: float = 0, luck: float = 0, of: int = 40, seed: int = 0):
    """Return cells of some wells, with the red puncta of unfed ones `effect` higher.

    Parameters
    ----------
    classes : the class of a well's cells; "both": half of them are fed
    luck : standard deviation of a well's mean of each read-out; that of its cells is 1
    """
    random = np.random.default_rng(seed)
    tables = []
    for well, name in classes.items():
        table = pd.DataFrame(
            random.normal(0, 1, (of, len(READOUTS))) + random.normal(0, luck, len(READOUTS)),
            columns=list(READOUTS),
        )
        table["class"] = np.resize(["fed", "unfed"], of) if name == "both" else name
        table["well"] = well
        table["red_puncta"] += effect * (table["class"] == "unfed")
        table["red_only_fraction"] = table["red_only_fraction"].where(table.index % 3 > 0)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def told(table: pd.DataFrame) -> dict:
    found = classify(table)
    json.dumps(found, allow_nan=False)
    assert sentence(found).endswith(".")
    return found


SIX = dict(zip("abcdef", ["fed"] * 3 + ["unfed"] * 3, strict=True))


def test_an_effect_on_one_readout_is_found_in_wells_not_learnt_from():
    found = told(cells(SIX, effect=2))
    assert found["wells"] == {"fed": 3, "unfed": 3}
    assert found["cells"] == {"fed": 120, "unfed": 120}
    # Best possible: the chance that a normal value lies less than one deviation off its mean.
    assert found["balanced_accuracy"] == pytest.approx(0.84, abs=0.05)
    assert found["balanced_accuracy"] == pytest.approx(np.mean([*found["recall"].values()]))
    assert 0.5 < found["low"] < found["balanced_accuracy"] < found["high"] <= 1
    assert found["claimed"]
    assert "which is better than guessing" in sentence(found)
    assert list(found["coefficients"]) == list(READOUTS)
    assert max(found["coefficients"], key=found["coefficients"].get) == "red_puncta"
    assert found["coefficients"]["red_puncta"] > 1


def test_luck_of_wells_is_no_class():
    found = [told(cells(SIX, luck=1, seed=seed)) for seed in range(10)]
    assert not any(world["claimed"] for world in found)
    assert "is not shown to be better than guessing" in sentence(found[0])


def test_wells_may_hold_both_classes():
    found = told(cells(dict.fromkeys("abcd", "both"), effect=2))
    assert found["wells"] == {"fed": 4, "unfed": 4}
    assert found["claimed"]


def test_unidentified_cells_and_those_of_no_known_well_are_left_out():
    table = cells(SIX, effect=2)
    others = table.assign(**{"class": "Unidentified"})
    unknown = table.assign(well=None)
    none = table.assign(**{"class": pd.NA})
    assert told(pd.concat([others, table, unknown, none])) == told(table)


def test_the_balanced_accuracy_of_few_cells_is_checked_by_eye():
    """Puncta tell the class of all cells but one: in the fed well b a cell looks unfed."""
    puncta = {"a": [0, 0, 0, 0], "b": [0, 0, 0, 9], "c": [9, 9], "d": [9, 9]}
    rows = [(well, value) for well, values in puncta.items() for value in values]
    table = pd.DataFrame(rows, columns=["well", "red_puncta"])
    table["class"] = np.where(table["well"].isin(["a", "b"]), "fed", "unfed")
    found = told(table)
    assert found["recall"] == {"fed": 7 / 8, "unfed": 1}
    assert found["balanced_accuracy"] == 15 / 16
    # The recall of fed cells is a mean of two wells, 1 and 3/4, with a standard error of 1/8, half
    # of which is that of balanced accuracy; Student's t of two wells is 12.7.
    assert (found["low"], found["high"]) == (pytest.approx(15 / 16 - 12.706 / 16, abs=1e-4), 1)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (pd.DataFrame(), "there is no result, since no cell of a known well is fed or unfed"),
        (cells({"a": "fed"}, of=1), "there is no result, since all cells of these classes are fed"),
        (
            cells({"a": "unfed", "b": "unfed"}),
            "there is no result, since all cells of these classes",
        ),
        (
            cells({"a": "both"}),
            "there is no result, since only one well has cells of the",
        ),
        (cells({"a": "fed", "b": "both"}), "there is no result, since only one well has cells of"),
        (cells(SIX)[["class", "well"]], "there is no result, since no read-out has a value"),
        (cells(SIX, effect=99), "there is no interval, since the wells do not differ"),
        (
            cells({"a": "both", "b": "both", "c": "unfed"}, effect=2),
            "there is no interval, since unfed cells prevail in one well only",
        ),
    ],
)
def test_without_enough_wells_there_is_a_reason(table, reason):
    found = told(table)
    assert found["reason"].startswith(reason)
    assert found["reason"] in sentence(found)
    assert not {"low", "high", "claimed"} & set(found)


def test_a_readout_without_any_value_is_left_out_and_an_infinite_one_counts_as_missing():
    table = cells(SIX, effect=2).assign(area_um2=np.nan)
    found = told(table)
    assert "area_um2" not in found["coefficients"]
    first = table.index == 0
    infinite = table.assign(ratio=table["ratio"].mask(first, np.inf))
    missing = table.assign(ratio=table["ratio"].mask(first))
    assert told(infinite) == told(missing)


def test_the_order_of_cells_does_not_matter():
    table = cells(SIX, effect=1, luck=0.5)
    found, again = told(table), told(table.sample(frac=1, random_state=1))
    assert again["balanced_accuracy"] == found["balanced_accuracy"]
    assert again["coefficients"] == pytest.approx(found["coefficients"], rel=1e-3, abs=1e-4)
