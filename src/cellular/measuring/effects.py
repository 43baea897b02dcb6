"""Effects: how far two conditions differ, and how a read-out changes with time.

The unit is the well, never the cell: cells of one well share its treatment and its fate, so a
thousand of them are still one observation (Lazic et al., PLoS Biol 16:e2005282, 2018). All
functions take the table of `cellular.measuring.wells.by_well`, of one source of outlines.

A difference is claimed if its 95 % interval excludes 0. That is decided for one read-out and one
question at a time: of twenty comparisons without any effect, one is expected to be claimed.
"""

from math import comb
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from cellular.measuring.wells import READOUTS, natural_order
from cellular.scoring.uncertainty import LEVEL

SPLITS = 10_000  # of wells into two conditions; up to 7 against 7, all of them are fewer
ROUNDING = 1e-9  # values of wells that differ by less than this part of them do not differ


def contrast(
    wells: pd.DataFrame, readout: str, conditions: tuple[str, str], seed: int = 0
) -> dict[str, Any]:
    """Compare a read-out between the wells of two conditions.

    A well's value is the mean over its time points. The interval is Welch's, which does not ask for
    equal variances (Biometrika 34:28, 1947); for normal values and three wells against three it
    holds the true difference in 96.7 % of the cases, in 94.4 % if one condition varies four times
    as much as the other. With two wells against many it is too narrow (90.8 % for two against
    eight). The test permutes the conditions of the wells: over all splits, which makes it exact, or
    over `SPLITS` random ones if there are more.

    Parameters
    ----------
    wells : one row a well and time point, from `by_well`, of one source
    readout : one of `READOUTS`
    conditions : the reference, then the other one
    seed : decides which splits are tried, if there are too many for all

    Returns
    -------
    dict
        readout, conditions, and by condition `wells` (number of those with a value) and `means`
        (over wells). If both have wells: `difference`, the other mean minus the reference's. If
        there is an interval: its ends `low` and `high`, `claimed`, and of the test `p` (two-sided),
        `smallest_p` and `exact` (all splits were tried). Otherwise `reason`, which says why there
        is none. `timepoints`: "differ" if some wells lack time points that others have.
    """
    _check_source(wells)
    defined = wells[wells["condition"].isin(conditions)].dropna(subset=readout)
    values = defined.groupby(["condition", "well"])[readout].mean()
    samples = {
        name: values[values.index.get_level_values("condition") == name].to_numpy()
        for name in conditions
    }
    found: dict[str, Any] = {
        "readout": readout,
        "conditions": list(conditions),
        "wells": {name: len(own) for name, own in samples.items()},
        "means": {name: float(own.mean()) for name, own in samples.items() if own.size},
    }
    if len(found["means"]) == 2:
        found["difference"] = found["means"][conditions[1]] - found["means"][conditions[0]]
    # Wells that were seen late are no fair match for wells that were seen early.
    if defined.fillna({"timepoint": ""}).groupby("well")["timepoint"].agg(frozenset).nunique() > 1:
        found["timepoints"] = "differ"
    if reason := _no_contrast(samples):
        return found | {"reason": reason}
    reference, other = samples.values()
    return found | _tested(reference, other, seed)


def contrasts_by_time(
    wells: pd.DataFrame, readout: str, conditions: tuple[str, str], seed: int = 0
) -> list[dict[str, Any]]:
    """Return what `contrast` returns for each time point, with its `timepoint`, sorted."""
    ordered = wells.sort_values("timepoint", key=natural_order)
    return [
        {"timepoint": str(time)} | contrast(rows, readout, conditions, seed)
        for time, rows in ordered.groupby("timepoint", sort=False)
    ]


def smallest_p(first: int, second: int) -> float:
    """Return the smallest two-sided p that a test on so many wells can give.

    If all wells of one condition lie above all of the other, only one of the C(n, k) splits of n
    wells is as extreme: the one that was seen. scipy's two-sided p is twice the smaller of both
    one-sided ones, whether or not the conditions have equally many wells.

    >>> smallest_p(3, 3)
    0.1
    """
    splits = comb(first + second, first)
    # A sample of splits counts the one that was seen as well, so that p is never 0.
    return min(1.0, 2 / (splits if splits <= SPLITS else SPLITS + 1))


def course(wells: pd.DataFrame, readout: str) -> list[dict[str, Any]]:
    """Return how a read-out changes from one time point to the next, for each condition.

    A well's slope is that of the least-squares line through its values; the interval is Student's t
    over the slopes of wells.

    Parameters
    ----------
    wells : one row a well and time point, from `by_well`, of one source; rows whose time point is
        no number are left out
    readout : one of `READOUTS`

    Returns
    -------
    list of dict
        One for each condition, sorted, then one without `condition` for wells of which it is
        unknown: readout, `wells` (number of those with at least two time points) and, if there are
        any, `slope` (mean over wells, a time point). Ends `low` and `high` and `claimed`, or
        `reason`, as for `contrast`.
    """
    _check_source(wells)
    time = pd.to_numeric(wells["timepoint"], errors="coerce").astype("float64")
    defined = wells.assign(time=time).dropna(subset=["time", readout])
    found = []
    for condition, rows in defined.groupby("condition", dropna=False, sort=True):
        slopes = [
            np.polyfit(own["time"], own[readout], 1)[0]
            for _, own in rows.groupby("well")
            if len(own) > 1
        ]
        named = {} if pd.isna(condition) else {"condition": str(condition)}
        scale = float(rows[readout].abs().max())
        found.append({"readout": readout} | named | _mean_slope(np.array(slopes), scale))
    return found


def sentence(found: dict[str, Any]) -> str:
    """Say in words what `contrast`, or an element of `contrasts_by_time` or `course`, has found."""
    name, unit = READOUTS[found["readout"]]
    parts = [name[0].upper() + name[1:]]
    if "timepoint" in found:
        parts.append(f"time point {found['timepoint']}")
    if "condition" in found:
        parts.append(f"{found['condition']} wells")
    told = _contrast_in_words if "conditions" in found else _course_in_words
    return f"{', '.join(parts)}: {told(found, unit)}"


def _check_source(wells: pd.DataFrame) -> None:
    if wells["source"].nunique() > 1:
        raise ValueError("wells must be of one source of outlines")


def _no_contrast(samples: dict[str, np.ndarray]) -> str | None:
    """Say why two conditions have no difference, or no interval of it; None if they have."""
    present = [name for name, own in samples.items() if len(own)]
    single = [name for name, own in samples.items() if len(own) == 1]
    if not present:
        return f"there is no contrast, since no well with a value is {' or '.join(samples)}"
    if len(present) == 1:
        return f"there is no contrast, since all wells with a value are {present[0]}"
    if single:
        return f"there is no interval, since only one well is {' and one '.join(single)}"
    scale = max(np.abs(own).max() for own in samples.values())
    if all(_alike(own, scale) for own in samples.values()):
        return "there is no interval, since the wells within each condition are alike"
    return None


def _alike(values: np.ndarray, scale: float) -> bool:
    """Return whether values, of a read-out of that size, differ by no more than rounding."""
    return bool(np.ptp(values) <= ROUNDING * scale)


def _tested(reference: np.ndarray, other: np.ndarray, seed: int) -> dict[str, Any]:
    """Return the interval of the difference of two means, and the test of it."""
    sizes = np.array([len(reference), len(other)])
    variances = np.array([reference.var(ddof=1), other.var(ddof=1)]) / sizes
    freedom = variances.sum() ** 2 / (variances**2 / (sizes - 1)).sum()
    # scipy's ttest_ind gives the same, but warns if the wells of one condition are alike.
    ends = stats.t.interval(
        LEVEL, freedom, other.mean() - reference.mean(), np.sqrt(variances.sum())
    )
    test = stats.permutation_test(
        (other, reference),
        lambda first, second, axis: first.mean(axis) - second.mean(axis),
        vectorized=True,
        n_resamples=SPLITS,
        rng=np.random.default_rng(seed),
    )
    return _ends(*ends) | {
        "p": float(test.pvalue),
        "smallest_p": smallest_p(len(reference), len(other)),
        "exact": comb(sizes.sum(), sizes[0]) <= SPLITS,
    }


def _ends(low: float, high: float) -> dict[str, Any]:
    return {"low": float(low), "high": float(high), "claimed": bool(low > 0 or high < 0)}


def _mean_slope(slopes: np.ndarray, scale: float) -> dict[str, Any]:
    """Return the mean of the slopes of wells and its interval, or why there is none."""
    found: dict[str, Any] = {"wells": len(slopes)}
    if not slopes.size:
        return found | {"reason": "there is no slope, since no well has values at two time points"}
    found["slope"] = float(slopes.mean())
    if slopes.size == 1:
        return found | {"reason": "there is no interval, since there is only one well"}
    if _alike(slopes, scale):
        return found | {"reason": "there is no interval, since the wells change alike"}
    return found | _ends(
        *stats.t.interval(LEVEL, slopes.size - 1, found["slope"], stats.sem(slopes))
    )


def _contrast_in_words(found: dict[str, Any], unit: str) -> str:
    reference, other = found["conditions"]
    wells = f"N = {found['wells'][reference]} {reference} and {found['wells'][other]} {other} wells"
    if "difference" not in found:
        return f"{found['reason']}."
    difference = f"{other} minus {reference} is {_signed(found['difference'], unit)}"
    if "reason" in found:
        return f"{difference} ({wells}, not cells); {found['reason']}."
    test, limit = (
        ("exact permutation test", "wells") if found["exact"] else ("permutation test", "splits")
    )
    uneven = " Some wells lack time points that others have." if "timepoints" in found else ""
    return (
        f"{difference} ({_interval(found, unit)}; {wells}, not cells), so "
        f"{'a' if found['claimed'] else 'no'} difference is claimed. The {test} gives "
        f"p = {found['p']:.2g}; with so many {limit} it is at least "
        f"{found['smallest_p']:.2g}.{uneven}"
    )


def _course_in_words(found: dict[str, Any], unit: str) -> str:
    if "slope" not in found:
        return f"{found['reason']}."
    slope = f"{_signed(found['slope'], unit)} from one time point to the next"
    wells = f"N = {found['wells']} well{'s' * (found['wells'] > 1)}, not cells"
    if "reason" in found:
        return f"{slope} ({wells}); {found['reason']}."
    claim = "a" if found["claimed"] else "no"
    return f"{slope} ({_interval(found, unit)}; {wells}), so {claim} change with time is claimed."


def _interval(found: dict[str, Any], unit: str) -> str:
    return f"95 % interval {_signed(found['low'])} to {_signed(found['high'], unit)}"


def _signed(value: float, unit: str = "") -> str:
    """Write a number with its sign and three digits, never as 1.2e+03 or -0."""
    digits = np.format_float_positional(
        value + 0.0, precision=3, unique=False, fractional=False, trim="-", sign=True
    )
    return f"{digits} {unit}".rstrip()
