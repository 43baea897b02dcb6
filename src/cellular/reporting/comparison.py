"""Comparison: two models on the same fields, and how certain their difference is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from cellular.base.errors import InputError
from cellular.scoring.groups import groups
from cellular.scoring.results import REPORTED, read_json, read_results
from cellular.scoring.scores import AT, FieldResult, Place, counts_of, nested
from cellular.scoring.summary import NUMBERS
from cellular.scoring.uncertainty import (
    CELL,
    FIELD,
    LEVEL,
    SIGNED,
    SITE,
    count_units,
    kind_of,
    p_value,
    paired_intervals,
    paired_scores,
    units_of,
)

# Of two equally good models, one is better in all of n units with a chance of 2 / 2 ** n. Six units
# are the fewest for which this is below 5 %.
FEWEST_UNITS = 6
DECIDES: Place = ("objects", "average_precision", "0.5")  # which of two models is better
SMALLEST: Place = ("groups", "size", "smallest", "recall")
SEEN = (
    " These fields were trained on: their scores show how well the network fits them, not how well "
    "it finds the cells of other fields."
)
MAIN = (*NUMBERS.values(), SMALLEST)  # the scores that tables show first
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
    p: float | None = None  # of the difference, from `cellular.scoring.uncertainty.p_value`
    smaller_is_better: bool = False  # as for errors, where it is the one that is nearer to 0

    @property
    def sure(self) -> bool:
        """Whether the test tells the models apart; never for the cells of a single field."""
        return self.p is not None and self.p <= 1 - LEVEL

    @property
    def good(self) -> bool | None:
        """Whether the second model is better, None if both are the same."""
        first, second = self.first.number, self.second.number
        gain = abs(first) - abs(second) if self.smaller_is_better else second - first
        return gain > 0 if gain else None

    def as_json(self, models: tuple[str, str]) -> dict[str, float]:
        """Return the row as it is in comparison.json."""
        numbers = [value.number for value in (self.first, self.second, self.difference)]
        low_and_high = zip(("low", "high"), self.difference.interval or (), strict=False)
        found = dict(zip((*models, "difference"), numbers, strict=True)) | dict(low_and_high)
        return found if self.p is None else found | {"p": self.p}


@dataclass(frozen=True)
class SplitComparison:
    """Two models on the fields of one split."""

    split: str
    models: tuple[str, str]
    fields: int
    cells: int
    kind: str  # what was drawn at random: site, well, field or cell
    units: int  # number of those sites, wells or fields in which both models have AP@0.5
    counts: dict[str, Row]  # predictions, and COUNTED
    scores: dict[Place, Row]
    trained_on: bool  # whether the training of these metrics saw the fields

    @property
    def main_rows(self) -> list[Row]:
        """The rows of a table that come first: the scores in `MAIN`."""
        return [self.scores[place] for place in MAIN if place in self.scores]

    @property
    def other_rows(self) -> list[Row]:
        """The rows below: counts of cells, then all other scores."""
        counts = [self.counts[name] for name in COUNTED]
        return counts + [row for place, row in self.scores.items() if place not in MAIN]

    @property
    def rows(self) -> list[Row]:
        """All rows of a table."""
        return self.main_rows + self.other_rows

    @property
    def note(self) -> str:
        """Say what the intervals and the test were made from, and whether fields were seen."""
        return f"{self._certainty}{self._seen}"

    @property
    def _certainty(self) -> str:
        if self.kind == CELL:
            return (
                "Intervals come from resampling the cells of the one field, which says nothing "
                "about other fields."
            )
        if self.units < 2:
            return f"There are no intervals: they need two {self.kind}s or more."
        few = f"; fewer than {FEWEST_UNITS} cannot tell which model is better"
        return f"Intervals come from {self._drawn}{'' if self.decidable else few}."

    @property
    def sentence(self) -> str:
        """Say whether the second model is better, how sure that is, and what became worse."""
        if DECIDES not in self.scores:
            return f"{self.split}: no cell is annotated or predicted: nothing can be said."
        score = self.scores[DECIDES]
        ends = score.difference.ends.strip("()")
        drawn = "cells of the one field resampled" if self.kind == CELL else self._drawn
        sure = f"95 % interval {ends}, {drawn}" if ends else "no interval"
        if self.decidable:
            sure += f", p = {score.p:.2g}"
        return (
            f"{self.split}: {self._verdict(score)}: AP@0.5 {score.second.text} against "
            f"{score.first.text}, difference {score.difference.text} ({sure})."
            f"{self._warning(score)}{self._seen}"
        )

    @property
    def _seen(self) -> str:
        return SEEN if self.trained_on else ""

    @property
    def decidable(self) -> bool:
        """Whether there are enough units to tell which model is better."""
        return self.units >= FEWEST_UNITS

    @property
    def _drawn(self) -> str:
        return _number(self.units, FIELD if self.kind == CELL else self.kind)

    def _verdict(self, score: Row) -> str:
        first, second = self.models
        if not self.decidable:
            few = self._drawn
            if self.units == 1 and self.fields > 1 and self.kind != FIELD:
                few = f"{_number(self.fields, 'field')} of {few}"
            return f"{few} cannot tell whether {second} finds cells better than {first}"
        if score.sure:
            return f"{second} finds cells {'better' if score.good else 'worse'} than {first}"
        return f"no difference between {second} and {first} could be shown"

    def _warning(self, score: Row) -> str:
        """Say that small cells are found less often, if AP@0.5 rose nevertheless."""
        small = self.scores.get(SMALLEST)
        if not (score.good and small and small.good is False):
            return ""
        return (
            f" But {self.models[1]} finds fewer of the smallest quarter of the cells: "
            f"recall {small.second.text} against {small.first.text}."
        )

    def as_json(self) -> dict:
        """Return the content of comparison.json for this split."""
        counts = {name: row.as_json(self.models) for name, row in self.counts.items()}
        scores = {place: row.as_json(self.models) for place, row in self.scores.items()}
        return {
            "fields": self.fields,
            "cells": self.cells,
            "units": self.units,
            "trained_on": self.trained_on,
            "counts": counts,
            f"difference_by_{self.kind}": nested(scores),
        }


def _number(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


def compare(
    metrics_dir: Path,
    models: tuple[str, str],
    splits: Sequence[str],
    seed: int = 0,
    unit: str = SITE,
) -> list[SplitComparison]:
    """Compare two models on every split, on the same fields.

    Reads the files that `cellular.scoring.results` wrote to `<metrics_dir>/<model>/`, and, if it is
    there, the train.json of a training, which tells what fields it saw. What `seed` and `unit`
    (site or well) do, `cellular.scoring.uncertainty` tells.

    Raises
    ------
    InputError
        If a file is missing, or the models were not scored on the same cells.
    """
    seen = splits_trained_on(Path(metrics_dir) / "train.json")
    found = []
    for split in splits:
        first, second = (read_results(Path(metrics_dir) / model, split) for model in models)
        found.append(compare_results(models, split, first, second, seed, unit, split in seen))
    return found


def splits_trained_on(path: Path) -> list[str]:
    """Return the splits that a training recorded as trained on; [] if it left no record."""
    if not path.exists():
        return []
    found = read_json(path).get("trained_on", ["train"])  # earlier versions trained on no other
    if not isinstance(found, list):
        raise InputError(f"{path}: trained_on is {found!r}, expected a list of splits; train again")
    return found


def compare_results(
    models: tuple[str, str],
    split: str,
    first: Sequence[FieldResult],
    second: Sequence[FieldResult],
    seed: int = 0,
    unit: str = SITE,
    trained_on: bool = False,
) -> SplitComparison:
    """Compare two models on one split by their results on the same fields.

    Parameters
    ----------
    models : the names of the two
    first, second : the results of each, in the same order
    seed, unit : as for `compare`
    trained_on : whether the training of a model saw these fields

    Raises
    ------
    InputError
        If the models were not scored on the same cells.
    """
    if _truth(first) != _truth(second):
        raise InputError(
            f"{models[0]} and {models[1]} were scored on different cells of {split}; evaluate both "
            "on the same data, with the same eval.excluded"
        )
    before, after = counts_of(first), counts_of(second)
    counts = {
        name: Row(
            COUNTED.get(name, name),
            Value(before[name], style="d"),
            Value(after[name], style="d"),
            Value(after[name] - before[name], style="+d"),
            smaller_is_better=name != "found",
        )
        for name in ("predictions", *COUNTED)
    }
    scores = _scores(first, second, seed, unit) | _of_smallest(first, second)
    units = count_units(paired_scores(first, second)[2][DECIDES], units_of(first, unit))
    return SplitComparison(
        split,
        models,
        len(first),
        before["cells"],
        kind_of(first, unit),
        units,
        counts,
        scores,
        trained_on,
    )


def _scores(
    first: Sequence[FieldResult], second: Sequence[FieldResult], seed: int, unit: str
) -> dict[Place, Row]:
    """Return those of `REPORTED` that both models have in some field."""
    tables = paired_scores(first, second)
    ends = paired_intervals(first, second, seed, unit)
    units = units_of(first, unit)
    scores = {}
    for place, name in REPORTED.items():
        differences = tables[2][place]
        if not np.isnan(differences).all():
            one, two, apart = (
                Value(float(np.nanmean(table[place])), of.get(place), style)
                for table, of, style in zip(tables, ends, (".3f", ".3f", "+.3f"), strict=True)
            )
            p = p_value(differences, units, seed) if count_units(differences, units) > 1 else None
            scores[place] = Row(name, one, two, apart, p, place[0] in SIGNED)
    return scores


def _of_smallest(first: Sequence[FieldResult], second: Sequence[FieldResult]) -> dict[Place, Row]:
    """Return the recall of the smallest quarter of the cells, over all fields together."""
    sizes = [groups(results).get("size", {}) for results in (first, second)]
    if not all(sizes):
        return {}
    before, after = (of["smallest"]["recall"] for of in sizes)
    values = Value(before), Value(after), Value(after - before, style="+.3f")
    return {SMALLEST: Row("recall of the smallest quarter of cells", *values)}


def _truth(results: Sequence[FieldResult]) -> list[tuple]:
    """Return what is the same for two models that were scored on the same cells."""
    return [
        (result.field, result.pixels, *result.totals[[AT["cells"], AT["area"]]])
        for result in results
    ]


def as_json(comparisons: Sequence[SplitComparison]) -> dict:
    """Return the content of comparison.json, by split."""
    return {item.split: item.as_json() for item in comparisons}


def markdown(comparisons: Sequence[SplitComparison]) -> str:
    """Return for each split a sentence and a Markdown table: both models, and the difference."""
    return "\n\n".join(f"{item.sentence}\n\n{_table(item)}" for item in comparisons)


def _table(item: SplitComparison) -> str:
    title = f"{item.split} ({_number(item.fields, 'field')}, {item.cells} cells)"
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
