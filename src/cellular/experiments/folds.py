"""Folds: the scores of a cross-validation, over groups of fields that were left out in turn.

The unit is the fold: seeds of one fold share their fields, so they are averaged first. The training
fields of different folds overlap, which makes the intervals over folds somewhat too narrow; no
estimate mends that (Bengio and Grandvalet, JMLR 5:1089, 2004).
"""

import math
from typing import Any

import numpy as np
import pandas as pd

from cellular.base.errors import InputError
from cellular.scoring.summary import NUMBERS
from cellular.scoring.uncertainty import over_units, p_value, smallest_p

KEYS = ["group", "seed"]
# The scores by their names in files, those of `NUMBERS`, with their names in tables.
SCORES = {
    "ap50": "AP@0.5",
    "ap75": "AP@0.75",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "panoptic_quality": "panoptic quality",
    "pixel_f1": "pixel F1",
    "count_error": "count error",
}


def by_fold(folds: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of each fold: means over its seeds.

    Parameters
    ----------
    folds : a row a fold and seed: group, seed, and `SCORES` (float64, NaN where undefined)

    Returns
    -------
    one row a fold, in the order of the rows: group (the index) and `SCORES`
    """
    return folds.groupby("group", sort=False)[[*SCORES]].mean()


def summary(folds: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return each score over the folds; scores that no fold has are left out.

    Parameters
    ----------
    folds : as `by_fold` takes them

    Returns
    -------
    dict
        By score: `mean` over folds, `folds` (number of those that have the score), the ends `low`
        and `high` of Student's 95 % interval if there are two or more, and `seed_sd`, the standard
        deviation between seeds of one fold, if there are several seeds.
    """
    means = by_fold(folds)
    ends = over_units(_by_place(means), np.arange(len(means)))
    variances = folds.groupby("group", sort=False)[[*SCORES]].var(ddof=1).mean()
    found = {}
    for name in means.columns[means.notna().any()]:
        found[name] = {"mean": float(means[name].mean()), "folds": int(means[name].count())}
        found[name] |= _named(ends.get(NUMBERS[name]))
        if not np.isnan(variances[name]):
            found[name]["seed_sd"] = math.sqrt(variances[name])
    return found


def paired(folds: pd.DataFrame, other: pd.DataFrame, seed: int = 0) -> dict[str, Any]:
    """Compare two recipes on the folds and seeds that both have.

    Parameters
    ----------
    folds, other : as `by_fold` takes them, with `fields` and `cells`, the numbers of what was
        scored
    seed : decides which signs the test tries, if there are too many for all

    Returns
    -------
    dict
        The `groups` and `seeds` that both have, and by score in `scores`: the means over folds
        `first` and `second`, their `difference` (the first minus the second), `folds`, and, with
        two folds or more, the ends `low` and `high` of the 95 % interval of the difference, and
        `p` of the sign-flip permutation test with the `smallest_p` that so many folds can give.

    Raises
    ------
    InputError
        If they have no fold and seed in `common`, or a fold has other fields or cells.
    """
    both = common(folds, other)
    first, second = (both.merge(table, "left", on=KEYS) for table in (folds, other))
    apart = (first[["fields", "cells"]] != second[["fields", "cells"]]).any(axis=1)
    if apart.any():
        mine, its = first[apart].iloc[0], second[apart].iloc[0]
        raise InputError(
            f"fold {mine['group']}: {mine['cells']} cells in {mine['fields']} fields here, "
            f"{its['cells']} in {its['fields']} there; compare recipes on the same data, with "
            "the same class_name and prepare.exclude"
        )
    means, others = by_fold(first), by_fold(second)
    differences = _by_place(means - others)
    units = np.arange(len(means))
    ends = over_units(differences, units, lowest=-1)
    scores = {}
    for name in SCORES:
        values = differences[NUMBERS[name]]
        known = ~np.isnan(values)
        if not known.any():
            continue
        scores[name] = {
            "first": float(means.loc[known, name].mean()),
            "second": float(others.loc[known, name].mean()),
            "difference": float(values[known].mean()),
            "folds": int(known.sum()),
        }
        if NUMBERS[name] in ends:
            scores[name] |= _named(ends[NUMBERS[name]])
            least = smallest_p(int(known.sum()))
            scores[name] |= {"p": p_value(values, units, seed), "smallest_p": least}
    return {
        "groups": list(means.index),
        "seeds": sorted({int(number) for number in both["seed"]}),
        "scores": scores,
    }


def common(folds: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return the group and seed of all rows that two tables share; `InputError` if there is none.

    Parameters
    ----------
    folds, other : with group (str) and seed (int64)
    """
    both = folds[KEYS].merge(other[KEYS])
    if both.empty:
        here, there = map(_listed, (folds, other))
        raise InputError(
            f"no fold and seed in common: here are {here}, there {there}; run both with the same "
            "--by and --seeds"
        )
    return both


def _by_place(means: pd.DataFrame) -> dict[tuple[str, ...], np.ndarray]:
    return {NUMBERS[name]: means[name].to_numpy(float) for name in SCORES}


def _named(ends: tuple[float, float] | None) -> dict[str, float]:
    return dict(zip(("low", "high"), ends, strict=True)) if ends else {}


def _listed(folds: pd.DataFrame) -> str:
    groups, seeds = folds["group"].unique(), sorted(folds["seed"].unique())
    return f"{', '.join(map(str, groups))} with seeds {', '.join(map(str, seeds))}"
