"""Uncertainty: how much scores would vary if other sites, or other cells, had been imaged.

Fields of one site are not independent of one another, so what is drawn at random is a unit with all
its fields: a site over all its time points, or a well. Intervals of scores are those of Student's t
over the units: with few units they hold the true score more often than those of a bootstrap
(docs/scores.md). If there is one field only, its true cells are resampled instead, each with the
predicted cells around it, which says nothing about other fields. Two models are scored on the same
fields, or on the same resamples.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from cellular.imaging.fields import origin
from cellular.scoring.scores import FieldResult, Place, scores_of, table_of_scores

LEVEL = 0.95
RESAMPLES = 2000  # of the cells of a field
FLIPS = 10_000  # of signs; up to 13 units, all combinations are fewer, and p is exact
SITE, FIELD, CELL = "site", "field", "cell"
SIGNED = ("count_error", "diameter_error")  # all other scores are between 0 and 1

Table = dict[Place, np.ndarray]  # each score, in each field or each resample; NaN if undefined
Ends = tuple[float, float]  # of an interval


def kind_of(results: Sequence[FieldResult], unit: str) -> str:
    """Return what is drawn at random: the cells of a single field, or fields, or sites or wells.

    Fields are units of their own if none has a name that tells its site and well.
    """
    if len(results) == 1:
        return CELL
    return unit if any(origin(result.field) for result in results) else FIELD


def units_of(results: Sequence[FieldResult], unit: str) -> np.ndarray:
    """Return the unit, site or well, that each field belongs to: (fields,) str.

    A field whose name does not tell it is a unit of its own.
    """
    return np.array([origin(result.field).get(unit, result.field) for result in results])


def intervals(results: Sequence[FieldResult], seed: int, unit: str = SITE) -> dict[Place, Ends]:
    """Return the 95 % interval of each score of a model.

    Parameters
    ----------
    seed : decides the resamples of cells, if there is one field only
    unit : site or well

    Returns
    -------
    the lower and the upper end by score; without scores that are defined in fewer than two units,
    or, for a single field, on no resample
    """
    if len(results) == 1:
        return _percentiles(_resampled(results[0], seed))
    return over_units(table_of_scores(results), units_of(results, unit))


def paired_intervals(
    first: Sequence[FieldResult], second: Sequence[FieldResult], seed: int, unit: str = SITE
) -> tuple[dict[Place, Ends], dict[Place, Ends], dict[Place, Ends]]:
    """Return what `intervals` returns: of each model, and of the second's scores minus the first's.

    All three are taken on the fields (on the resamples, for a single field) in which both models
    have the score.

    Parameters
    ----------
    first, second : the results of each model on the same fields, in the same order
    """
    if len(first) == 1:
        # Both have the same true cells, so the same seed draws the same cells for both.
        one, two, differences = _paired(_resampled(first[0], seed), _resampled(second[0], seed))
        return _percentiles(one), _percentiles(two), _percentiles(differences)
    units = units_of(first, unit)
    one, two, differences = paired_scores(first, second)
    return over_units(one, units), over_units(two, units), over_units(differences, units, -1)


def paired_scores(
    first: Sequence[FieldResult], second: Sequence[FieldResult]
) -> tuple[Table, Table, Table]:
    """Return the scores of each model and their differences: arrays of shape (fields,).

    All three are NaN in fields in which one of the models does not have the score.
    """
    if [item.field for item in first] != [item.field for item in second]:
        raise ValueError("two models can be compared on the same fields only")
    return _paired(table_of_scores(first), table_of_scores(second))


def _paired(first: Table, second: Table) -> tuple[Table, Table, Table]:
    differences = {place: second[place] - first[place] for place in first}
    one, two = (
        {
            place: np.where(np.isnan(apart), np.nan, table[place])
            for place, apart in differences.items()
        }
        for table in (first, second)
    )
    return one, two, differences


def p_value(differences: np.ndarray, units: np.ndarray, seed: int) -> float:
    """Return the chance that models which are equally good differ by this much, or by more.

    Sign-flip permutation test, two-sided: if two models are equally good, each unit's difference
    could as well have had the other sign (Fisher, The Design of Experiments, 1935, section 21).
    With n units, p is at least 2 / 2^n (`smallest_p`).

    Parameters
    ----------
    differences : (fields,), of a score of two models; NaN where one does not have it
    units : (fields,), the unit of each field, from `units_of`
    seed : decides which combinations of signs are tried, if there are more than `FLIPS`
    """
    sums, _ = _by_unit(differences, units)
    return float(
        stats.permutation_test(
            (sums,),
            np.sum,
            permutation_type="samples",
            vectorized=True,
            n_resamples=FLIPS,
            rng=np.random.default_rng(seed),
        ).pvalue
    )


def smallest_p(units: int) -> float:
    """Return the smallest p that `p_value` can give of so many units: all differ in one direction.

    >>> smallest_p(5)
    0.0625
    """
    # Signs that are drawn count the combination that was seen as well, so that p is never 0.
    return min(1.0, 2 / min(2**units, FLIPS + 1))


def interval(values: np.ndarray, units: np.ndarray) -> Ends | None:
    """Return the 95 % interval of the mean over fields, or None with fewer than two units.

    The mean is a ratio, the sum over the fields of all units to the number of their fields; its
    standard error is that of the units' deviations from it (Cochran, Sampling Techniques, 1977,
    chapter 6). If all units have equally many fields, this is Student's t for the units' means.

    Parameters
    ----------
    values : (fields,), a score, or the difference of two models; NaN where it is undefined
    units : (fields,), the unit of each field, from `units_of`
    """
    sums, fields = _by_unit(values, units)
    if len(sums) < 2:
        return None
    mean = sums.sum() / fields.sum()
    error = stats.sem((sums - mean * fields) / fields.mean())
    low, high = mean + np.array(stats.t.interval(LEVEL, len(sums) - 1)) * error
    return float(low), float(high)


def over_units(table: Table, units: np.ndarray, lowest: float = 0) -> dict[Place, Ends]:
    """Return the interval of each score; none goes beyond the values that the score can have.

    Parameters
    ----------
    table : (fields,) of each score, NaN where it is undefined
    units : (fields,), the unit of each field; scores defined in fewer than two units are left out
    lowest : of the values that a score can have, but for `SIGNED` ones: 0, of differences -1
    """
    found = {}
    for place, values in table.items():
        if ends := interval(values, units):
            low, high = ends
            found[place] = ends if place[0] in SIGNED else (max(low, lowest), min(high, 1.0))
    return found


def count_units(values: np.ndarray, units: np.ndarray) -> int:
    """Return the number of units that have a value: those that `p_value` and `interval` see."""
    return len(_by_unit(values, units)[0])


def _by_unit(values: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each unit with a value the sum of its values, and their number."""
    defined = ~np.isnan(values)
    _, number = np.unique(units[defined], return_inverse=True)
    return np.bincount(number, values[defined]), np.bincount(number)


def _resampled(result: FieldResult, seed: int) -> Table:
    """Return the scores on resamples of a field's true cells; empty if it has none.

    `scipy.stats.bootstrap` would give the same in the same time, but refuses a field with one cell.
    """
    cells, rest = result.units()
    count = len(cells)
    if not count:
        return {}
    random = np.random.default_rng(seed)
    times = random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return scores_of(times.astype(float) @ cells + rest)


def _percentiles(samples: Table) -> dict[Place, Ends]:
    tail = (1 - LEVEL) / 2
    found = {}
    for place, values in samples.items():
        defined = values[~np.isnan(values)]
        if defined.size:
            low, high = np.quantile(defined, (tail, 1 - tail))
            found[place] = float(low), float(high)
    return found
