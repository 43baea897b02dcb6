"""Comparison: two models on the same fields, and how sure one can be of the difference."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from cellular.base.errors import InputError
from cellular.scoring.bootstrap import BY_FIELD, interval, paired_resamples, resamples, unit_of
from cellular.scoring.results import REPORTED, read_results
from cellular.scoring.scores import AT, FieldResult, Place, counts_of, nested, table_of_scores

Interval = tuple[float, float] | None

# Two equal models differ in one direction in all of n fields with a chance of 2 / 2 ** n; six are
# the fewest with which that is below 5 %.
FEWEST_FIELDS = 6
DECIDES: Place = ("objects", "average_precision", "0.5")  # which of two models is better
COUNTED = {"found": "cells found (IoU 0.5)", "merged": "cells merged", "split": "cells split",
           "missed": "cells missed", "false_positive": "false positives"}  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """A score of two models, and the second minus the first, with 95 % intervals.

    All three are means over the fields in which both models have the score.
    """

    first: float
    second: float
    difference: float
    intervals: tuple[Interval, Interval]  # of the two scores
    interval: Interval  # of the difference

    @property
    def sure(self) -> bool:
        """Tell whether the interval leaves out 0."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


@dataclass(frozen=True)
class SplitComparison:
    """Two models on the fields of one split."""

    split: str
    models: tuple[str, str]
    fields: int
    resampled: str  # cellular.scoring.bootstrap.BY_FIELD or BY_CELL
    counts: tuple[dict[str, int], dict[str, int]]
    scores: dict[Place, Difference]

    @property
    def sentence(self) -> str:
        """Say whether the second model is better."""
        first, second = self.models
        if DECIDES not in self.scores:
            return f"{self.split}: no cells, annotated or predicted, so that nothing can be said."
        score = self.scores[DECIDES]
        verdict = (
            f"{second} finds cells {'better' if score.difference > 0 else 'worse'} than {first}"
        )
        if self.resampled == BY_FIELD and self.fields < FEWEST_FIELDS:
            verdict = f"{self.fields} fields are too few to say whether {second} finds cells better"
            verdict += f" than {first}"
        elif not score.sure:
            verdict = f"no difference between {second} and {first} could be shown"
        what = "fields" if self.resampled == BY_FIELD else "cells of the one field"
        sure = "no interval"
        if score.interval is not None:
            low, high = score.interval
            sure = f"95 % interval {low:+.3f} to {high:+.3f}, {what} resampled"
        return (
            f"{self.split}: {verdict}: AP@0.5 {score.second:.3f} against {score.first:.3f}, "
            f"difference {score.difference:+.3f} ({sure})."
        )

    def as_json(self) -> dict:
        """Return the comparison as it stands in comparison.json."""
        first, second = self.models
        scores = {}
        for place, score in self.scores.items():
            told = {first: score.first, second: score.second, "difference": score.difference}
            if score.interval is not None:
                told |= dict(zip(("low", "high"), score.interval, strict=True))
            scores[place] = told
        counts = {
            name: {first: self.counts[0][name], second: self.counts[1][name],
                   "difference": self.counts[1][name] - self.counts[0][name]}
            for name in ("predictions", *COUNTED)
        }  # fmt: skip
        return {"fields": self.fields, "cells": self.counts[0]["cells"], "counts": counts} | {
            f"difference_{self.resampled}": nested(scores)
        }


def compare(
    metrics_dir: Path, models: tuple[str, str], splits: Sequence[str], seed: int = 0
) -> list[SplitComparison]:
    """Compare two models on every split; both are scored on the same resamples.

    Reads what `cellular.scoring.results` wrote to `<metrics_dir>/<model>/`.

    Raises
    ------
    InputError
        If a file is missing, or the models were not scored on the same cells.
    """
    return [_compare(Path(metrics_dir), models, split, seed) for split in splits]


def _compare(metrics_dir: Path, models: tuple[str, str], split: str, seed: int) -> SplitComparison:
    results = [read_results(metrics_dir / model, split) for model in models]
    if _truth(results[0]) != _truth(results[1]):
        raise InputError(
            f"{metrics_dir}: {models[0]} and {models[1]} were scored on different cells of "
            f"{split}; evaluate both on the same data, with the same eval.excluded"
        )
    tables = [table_of_scores(result) for result in results]
    of_models = [resamples(result, seed) for result in results]
    of_difference = paired_resamples(*results, seed=seed)
    scores = {}
    for place in REPORTED:
        first, second = (table[place] for table in tables)
        both = ~np.isnan(first) & ~np.isnan(second)
        if both.any():
            ends = [interval(of[place]) if of else None for of in (*of_models, of_difference)]
            means = [float(values[both].mean()) for values in (first, second, second - first)]
            scores[place] = Difference(*means, (ends[0], ends[1]), ends[2])
    counts = [
        {name: sum(of[name] for of in map(counts_of, (r.cells for r in result)))
         for name in ("cells", "predictions", *COUNTED)}
        for result in results
    ]  # fmt: skip
    return SplitComparison(
        split, models, len(results[0]), unit_of(results[0]), tuple(counts), scores
    )


def _truth(results: Sequence[FieldResult]) -> list[tuple]:
    """Return what tells whether two models were scored on the same cells."""
    return [
        (result.field, result.pixels, *result.totals()[[AT["cells"], AT["area"]]])
        for result in results
    ]


def as_json(comparisons: Sequence[SplitComparison]) -> dict:
    """Return the content of comparison.json, by split."""
    return {item.split: item.as_json() for item in comparisons}


def markdown(comparisons: Sequence[SplitComparison]) -> str:
    """Return for each split a sentence and a Markdown table: both models, and the difference."""
    return "\n\n".join(f"{item.sentence}\n\n{_table(item)}" for item in comparisons)


def rows(item: SplitComparison) -> list[tuple[str, str, str, str]]:
    """Return what to show of a split: score, both models, difference with interval, as text."""
    lines = []
    for name, told in COUNTED.items():
        first, second = (counts[name] for counts in item.counts)
        lines.append((told, str(first), str(second), f"{second - first:+d}"))
    for place, score in item.scores.items():
        ends = ""
        if score.interval is not None:
            ends = f" ({score.interval[0]:+.3f} to {score.interval[1]:+.3f})"
        lines.append(
            (REPORTED[place], f"{score.first:.3f}", f"{score.second:.3f}",
             f"{score.difference:+.3f}{ends}")
        )  # fmt: skip
    return lines


def _table(item: SplitComparison) -> str:
    title = (
        f"{item.split} ({item.fields} field{'s' if item.fields > 1 else ''}, "
        f"{item.counts[0]['cells']} cells)"
    )
    return tabulate(
        rows(item),
        headers=[title, *item.models, "difference (95 % interval)"],
        tablefmt="github",
        colalign=("left", "right", "right", "right"),
        disable_numparse=True,
    )
