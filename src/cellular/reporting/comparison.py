"""Comparison: two models on the same fields, and how certain their difference is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from cellular.base.errors import InputError
from cellular.scoring.bootstrap import BY_FIELD, interval, paired_resamples, resamples, unit_of
from cellular.scoring.results import REPORTED, read_results
from cellular.scoring.scores import AT, FieldResult, Place, counts_of, nested, table_of_scores

# Of two equally good models, one is better in all of n fields with a chance of 2 / 2 ** n. Six
# fields are the fewest for which this is below 5 %.
FEWEST_FIELDS = 6
DECIDES: Place = ("objects", "average_precision", "0.5")  # which of two models is better
COUNTED = {
    "found": "cells found (IoU 0.5)",
    "merged": "cells merged",
    "split": "cells split",
    "missed": "cells missed",
    "false_positive": "false positives",
}


@dataclass(frozen=True)
class Value:
    """A score with its 95 % interval, if it has one, or a count."""

    number: float
    interval: tuple[float, float] | None = None
    style: str = ".3f"

    @property
    def text(self) -> str:
        """The number as it is shown."""
        return format(self.number, self.style)

    @property
    def ends(self) -> str:
        """The interval as it is shown, empty if there is none."""
        ends = [format(end, self.style) for end in self.interval or ()]
        return f"({' to '.join(ends)})" if ends else ""


@dataclass(frozen=True)
class Row:
    """A score or a count of two models, and the second minus the first.

    Scores are means over the fields in which both models have the score.
    """

    name: str
    first: Value
    second: Value
    difference: Value

    @property
    def sure(self) -> bool:
        """Whether the interval of the difference excludes 0."""
        low, high = self.difference.interval or (0, 0)
        return low > 0 or high < 0

    def as_json(self, models: tuple[str, str]) -> dict[str, float]:
        """Return the row as it is in comparison.json."""
        numbers = [value.number for value in (self.first, self.second, self.difference)]
        low_and_high = zip(("low", "high"), self.difference.interval or (), strict=False)
        return dict(zip((*models, "difference"), numbers, strict=True)) | dict(low_and_high)


@dataclass(frozen=True)
class SplitComparison:
    """Two models on the fields of one split."""

    split: str
    models: tuple[str, str]
    fields: int
    cells: int
    resampled: str  # cellular.scoring.bootstrap.BY_FIELD or BY_CELL
    counts: dict[str, Row]  # predictions, and COUNTED
    scores: dict[Place, Row]

    @property
    def rows(self) -> list[Row]:
        """The rows of a table: counts of cells, then scores."""
        return [*(self.counts[name] for name in COUNTED), *self.scores.values()]

    @property
    def sentence(self) -> str:
        """Say whether the second model is better."""
        if DECIDES not in self.scores:
            return f"{self.split}: no cell is annotated or predicted: nothing can be said."
        first, second = self.models
        score = self.scores[DECIDES]
        better = "better" if score.difference.number > 0 else "worse"
        verdict = f"{second} finds cells {better} than {first}"
        if self.resampled == BY_FIELD and self.fields < FEWEST_FIELDS:
            verdict = f"{self.fields} fields are too few to say whether {second} finds cells better"
            verdict += f" than {first}"
        elif not score.sure:
            verdict = f"no difference between {second} and {first} could be shown"
        units = "fields" if self.resampled == BY_FIELD else "cells of the one field"
        ends = score.difference.ends.strip("()")
        sure = f"95 % interval {ends}, {units} resampled" if ends else "no interval"
        return (
            f"{self.split}: {verdict}: AP@0.5 {score.second.text} against {score.first.text}, "
            f"difference {score.difference.text} ({sure})."
        )

    def as_json(self) -> dict:
        """Return the content of comparison.json for this split."""
        counts = {name: row.as_json(self.models) for name, row in self.counts.items()}
        scores = {place: row.as_json(self.models) for place, row in self.scores.items()}
        return {"fields": self.fields, "cells": self.cells, "counts": counts} | {
            f"difference_{self.resampled}": nested(scores)
        }


def compare(
    metrics_dir: Path, models: tuple[str, str], splits: Sequence[str], seed: int = 0
) -> list[SplitComparison]:
    """Compare two models on every split; both are scored on the same resamples.

    Reads the files that `cellular.scoring.results` wrote to `<metrics_dir>/<model>/`.

    Raises
    ------
    InputError
        If a file is missing, or the models were not scored on the same cells.
    """
    return [_compare(Path(metrics_dir), models, split, seed) for split in splits]


def _compare(metrics_dir: Path, models: tuple[str, str], split: str, seed: int) -> SplitComparison:
    first, second = (read_results(metrics_dir / model, split) for model in models)
    if _truth(first) != _truth(second):
        raise InputError(
            f"{metrics_dir}: {models[0]} and {models[1]} were scored on different cells of "
            f"{split}; evaluate both on the same data, with the same eval.excluded"
        )
    before, after = counts_of(first), counts_of(second)
    counts = {
        name: Row(
            COUNTED.get(name, name),
            Value(before[name], style="d"),
            Value(after[name], style="d"),
            Value(after[name] - before[name], style="+d"),
        )
        for name in ("predictions", *COUNTED)
    }
    scores = _scores(first, second, seed)
    fields, unit = len(first), unit_of(first)
    return SplitComparison(split, models, fields, before["cells"], unit, counts, scores)


def _scores(
    first: Sequence[FieldResult], second: Sequence[FieldResult], seed: int
) -> dict[Place, Row]:
    """Return those of `REPORTED` that both models have in some field."""
    before, after = table_of_scores(first), table_of_scores(second)
    samples = [resamples(first, seed), resamples(second, seed)]
    samples.append(paired_resamples(first, second, seed))
    scores = {}
    for place, name in REPORTED.items():
        both = ~np.isnan(before[place]) & ~np.isnan(after[place])
        if both.any():
            one, two = before[place][both], after[place][both]
            ends = [interval(of[place]) if of else None for of in samples]
            scores[place] = Row(
                name,
                Value(float(one.mean()), ends[0]),
                Value(float(two.mean()), ends[1]),
                Value(float((two - one).mean()), ends[2], "+.3f"),
            )
    return scores


def _truth(results: Sequence[FieldResult]) -> list[tuple]:
    """Return what is the same for two models that were scored on the same cells."""
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


def _table(item: SplitComparison) -> str:
    fields = f"{item.fields} field{'s' if item.fields > 1 else ''}"
    title = f"{item.split} ({fields}, {item.cells} cells)"
    rows = [
        (row.name, row.first.text, row.second.text, f"{row.difference.text} {row.difference.ends}")
        for row in item.rows
    ]
    return tabulate(
        rows,
        headers=[title, *item.models, "difference (95 % interval)"],
        tablefmt="github",
        colalign=("left", "right", "right", "right"),
        disable_numparse=True,
    )
