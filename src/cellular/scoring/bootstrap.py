"""Bootstrap: how much scores would vary if other fields, or other cells, had been imaged.

Percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
Fields are resampled. If there is only one, its true cells are resampled, each with the predicted
cells around it; this says nothing about other fields. Two models are scored on the same resamples.
"""

from collections.abc import Sequence

import numpy as np

from cellular.scoring.scores import FieldResult, Place, scores_of, table_of_scores

LEVEL = 0.95
RESAMPLES = 2000
BY_FIELD, BY_CELL = "by_field", "by_cell"

Samples = dict[Place, np.ndarray]  # of each score, (resamples,) float64


def unit_of(results: Sequence[FieldResult]) -> str:
    """Return what is resampled: fields, or the cells of a single field."""
    return BY_FIELD if len(results) > 1 else BY_CELL


def resamples(results: Sequence[FieldResult], seed: int, size: int = RESAMPLES) -> Samples:
    """Return the scores of a model on resamples of its fields, or of the cells of its one field.

    Returns
    -------
    by score (size,) float64, NaN where it is undefined on a resample; empty if the only field has
    no true cell to resample
    """
    if unit_of(results) == BY_FIELD:
        return _of_fields(table_of_scores(results), len(results), seed, size)
    units, rest = results[0].units()
    if not len(units):
        return {}
    return scores_of(_draw(seed, len(units), size) @ units + rest)


def paired_resamples(
    first: Sequence[FieldResult], second: Sequence[FieldResult], seed: int, size: int = RESAMPLES
) -> Samples:
    """Return the second model's scores minus the first's, both on the same resamples.

    With several fields, the difference is the mean over those in which both models have the score.

    Parameters
    ----------
    first, second : the results of each on the same fields, in the same order
    """
    if [item.field for item in first] != [item.field for item in second]:
        raise ValueError("two models can be compared on the same fields only")
    if unit_of(first) == BY_FIELD:
        return _of_fields(_differences(first, second), len(first), seed, size)
    # Both have the same true cells, so the same seed draws the same cells for both.
    before, after = (resamples(results, seed, size) for results in (first, second))
    return {place: after[place] - before[place] for place in before.keys() & after.keys()}


def _differences(
    first: Sequence[FieldResult], second: Sequence[FieldResult]
) -> dict[Place, np.ndarray]:
    """Return by score the second model's minus the first's, in each field: (fields,) float64."""
    before, after = table_of_scores(first), table_of_scores(second)
    return {place: after[place] - before[place] for place in before}


def _of_fields(scores: dict[Place, np.ndarray], count: int, seed: int, size: int) -> Samples:
    times = _draw(seed, count, size)
    return {place: _weighted_mean(times, values) for place, values in scores.items()}


def _draw(seed: int, count: int, size: int) -> np.ndarray:
    """Return how often each of `count` units is in each resample: (size, count) float64."""
    random = np.random.default_rng(seed)
    return random.multinomial(count, np.full(count, 1 / count), size=size).astype(float)


def _weighted_mean(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    defined = ~np.isnan(values)
    weight = times @ defined
    total = times @ np.where(defined, values, 0.0)
    return np.divide(total, weight, out=np.full(len(times), np.nan), where=weight > 0)


def interval(samples: np.ndarray) -> tuple[float, float] | None:
    """Return the ends of the 95 % interval, or None if the score is undefined on all resamples."""
    defined = samples[~np.isnan(samples)]
    if not defined.size:
        return None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(defined, (tail, 1 - tail))
    return float(low), float(high)
