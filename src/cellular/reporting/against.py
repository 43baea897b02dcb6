"""Against: two experiments on the same fields, as text, tables and a page with pictures."""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate
from tqdm import tqdm

from cellular.base.errors import InputError
from cellular.base.files import check_apart, check_new, together, write_json
from cellular.base.params import flat
from cellular.imaging.fields import load_pairs, read_pair
from cellular.imaging.images import read_labels
from cellular.imaging.masks import check_size
from cellular.imaging.matching import FALSE_POSITIVE
from cellular.reporting.comparison import (
    SplitComparison,
    compare_results,
    markdown,
    splits_trained_on,
)
from cellular.reporting.embedding import Picture, embedded_image
from cellular.reporting.experiments import (
    SCORES,
    SECONDS,
    TRAINING,
    Experiment,
    changed_code,
    changed_params,
    open_experiments,
)
from cellular.reporting.gains import BOTH, COLUMNS, NEITHER, Gains, differing, draw, gains
from cellular.reporting.parts import Table
from cellular.reporting.report import diameter_warnings, environment
from cellular.reporting.templates import template
from cellular.scoring.results import read_scores
from cellular.scoring.scores import FieldResult
from cellular.scoring.uncertainty import SITE

PAGE, TEXT, NUMBERS, CELLS = "comparison.html", "comparison.md", "comparison.json", "cells.csv"
DRAWN = 3  # fields of a split that are drawn, those with most differences first
LISTED = 4  # names of fields or files that a sentence shows


@dataclass(frozen=True)
class Split:
    """Two experiments on the fields of a split that both have scored."""

    comparison: SplitComparison
    gains: Gains
    left_out: tuple[int, int]  # fields that only the first, and only the second, has scored
    results: tuple[list[FieldResult], list[FieldResult]]

    @property
    def left_out_sentence(self) -> str:
        """Say how many fields are left out; empty if none is."""
        parts = [
            f"{count} of {model}"
            for count, model in zip(self.left_out, self.comparison.models, strict=True)
            if count
        ]
        if not parts:
            return ""
        split = self.comparison.split
        return f"Left out are fields of {split} that only one has scored: {' and '.join(parts)}."

    @property
    def markdown(self) -> str:
        """What is printed of the split."""
        parts = [markdown([self.comparison]), self.left_out_sentence, self.gains.sentence]
        return "\n\n".join(filter(None, [*parts, _markdown(self.gains.table)]))

    def as_json(self) -> dict[str, Any]:
        """Return the content of comparison.json for the split."""
        by_model = dict(zip(self.comparison.models, self.left_out, strict=True))
        return self.comparison.as_json() | {
            "fields_left_out": by_model,
            "cells_found_by": self.gains.counts,
        }


@dataclass(frozen=True)
class Changes:
    """What differs in parameters and code between two experiments."""

    params: Mapping[str, tuple[Any, Any]]  # both values by name
    code: Sequence[str]  # files
    models: tuple[str, str]

    @property
    def sentence(self) -> str:
        """Say how many parameters differ, and whether the code does."""
        count = len(self.params)
        text = (
            "No parameter differs."
            if not count
            else (f"{count} parameter{' differs' if count == 1 else 's differ'}.")
        )
        if self.code:
            text += f" The code differs, too: {_listed(self.code)}."
        return text

    @property
    def table(self) -> Table:
        """Both values of each parameter that differs."""
        rows = [
            [name, *(value if isinstance(value, str) else json.dumps(value) for value in values)]
            for name, values in self.params.items()
        ]
        return Table("Parameters that differ", ["parameter", *self.models], {"": rows})

    @property
    def markdown(self) -> str:
        """What is printed."""
        return f"{self.sentence}\n\n{_markdown(self.table)}" if self.params else self.sentence

    def as_json(self) -> dict[str, dict[str, Any]]:
        """Return both values by name, as in comparison.json."""
        return {
            name: dict(zip(self.models, values, strict=True))
            for name, values in self.params.items()
        }


def compare_experiments(
    names: tuple[str, str],
    splits: Sequence[str],
    output_dir: Path | None = None,
    *,
    seed: int = 0,
    unit: str | None = None,
    force: bool = False,
) -> tuple[str, Path]:
    """Compare the fine-tuned models of two experiments on the fields that both have scored.

    Writes comparison.html, comparison.md, comparison.json and cells.csv to `output_dir` (default:
    `experiments/<first>-against-<second>`). All of them appear, or none.

    Parameters
    ----------
    names : of two of DVC's experiments, commits, branches or tags; workspace: the working folder
    seed : as for `cellular.reporting.comparison.compare`
    unit : in the same way; default: eval.unit of the first experiment
    force : replace files that exist

    Returns
    -------
    the text of comparison.md, and the path of the page

    Raises
    ------
    InputError
        If an experiment is unknown or has no scores here, both are one, or they share no field.
    """
    for name in {BOTH, NEITHER} & {*names}:
        raise InputError(f"{name}: the tables use this word; name the experiment by its commit")
    if output_dir is None:
        output_dir = Path("experiments") / "-against-".join(
            re.sub(r"[^\w.-]", "-", name) for name in names
        )
    outputs = [Path(output_dir) / name for name in (PAGE, TEXT, NUMBERS, CELLS)]
    check_apart(outputs, [Path("metrics"), Path("data")])  # what a workspace is read from
    check_new(*outputs, force=force)
    with together(*outputs) as stagings, tempfile.TemporaryDirectory() as folder:
        experiments = open_experiments(names, Path(folder))
        first, second = experiments
        unit = unit or str(dict(flat(first.params)).get("eval.unit", SITE))
        changes = Changes(changed_params(first, second), changed_code(first, second), names)
        found = [_split(first, second, split, seed, unit) for split in splits]
        text = "\n\n".join([changes.markdown, *(item.markdown for item in found)])
        content = {
            "experiments": {item.name: item.commit for item in experiments},
            "parameters": changes.as_json(),
            "splits": {item.gains.split: item.as_json() for item in found},
        }
        page, markdown_file, numbers, table = stagings
        page.write_text(_page(first, second, changes, found), encoding="utf-8")
        markdown_file.write_text(f"{text}\n", encoding="utf-8")
        write_json(numbers, content)
        cells = pd.concat([item.gains.cells.assign(split=item.gains.split) for item in found])
        columns = ["split", *COLUMNS]
        cells[columns].to_csv(table, index=False, float_format="%.8g", lineterminator="\n")
    return text, outputs[0]


def _split(first: Experiment, second: Experiment, split: str, seed: int, unit: str) -> Split:
    """Compare two experiments on the fields of a split that both have scored."""
    experiments = first, second
    models = first.name, second.name
    every = [{result.field: result for result in item.results(split)} for item in experiments]
    common = sorted(every[0].keys() & every[1].keys())
    if not common:
        has = [
            f"{name} has {_listed(sorted(fields))}"
            for name, fields in zip(models, every, strict=True)
        ]
        raise InputError(
            f"{split}: no field was scored by both; {'; '.join(has)}. They split the data in "
            "different ways; name two of one split, or --splits in which they share fields"
        )
    one, two = ([fields[name] for name in common] for fields in every)
    seen = any(split in splits_trained_on(item.take([TRAINING])[0]) for item in experiments)
    comparison = compare_results(models, split, one, two, seed, unit, seen)
    left_out = len(every[0]) - len(common), len(every[1]) - len(common)
    return Split(comparison, gains(split, models, one, two), left_out, (one, two))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:LISTED])
    return f"{shown} and {len(names) - LISTED} more" if len(names) > LISTED else shown


def _page(first: Experiment, second: Experiment, changes: Changes, found: Sequence[Split]) -> str:
    names = [item.gains.split for item in found]
    runs = {
        f"{item.name}, {split}": dict(flat(scores["run"]))
        for item in (first, second)
        for split, scores in read_scores(item.folder / SCORES, names).items()
    }
    fields = [(item, field) for item in found for field in differing(item.gains, DRAWN)]
    pictures: dict[str, list[Picture]] = {name: [] for name in names}
    for item, field in tqdm(fields, "draw", unit="field", leave=False, delay=SECONDS):
        pictures[item.gains.split].append(_picture(first, second, item, field))
    return template("comparison.html").render(
        models=(first.name, second.name),
        head={
            item.name: f"commit {item.commit}" if item.commit else "as it is now"
            for item in (first, second)
        },
        changes=changes,
        splits=found,
        pictures=pictures,
        warnings=[text for name, run in runs.items() for text in diameter_warnings(name, run)],
        runs=list(runs),
        environment=_environment(runs),
    )


def _picture(first: Experiment, second: Experiment, split: Split, field: str) -> Picture:
    """Draw a field with the cells that only one of the experiments finds."""
    name, models = split.gains.split, split.gains.models
    (pair,) = (pair for pair in load_pairs(first.field_folder(name, field)) if pair.field == field)
    image, truth = read_pair(pair)
    predicted, wrong = [], []
    for item, results in zip((first, second), split.results, strict=True):
        path = item.prediction(field)
        labels = read_labels(path)
        check_size(path, labels.shape, pair.labels, truth.shape)
        predicted.append(labels.astype(np.uint16))
        (cells,) = (result.cells for result in results if result.field == field)
        wrong.append(cells.loc[cells["outcome"] == FALSE_POSITIVE, "predicted_label"].tolist())
    cells = split.gains.cells[split.gains.cells["field"] == field]
    found_by = cells["found_by"].tolist()
    only = [f"only {model} finds {found_by.count(model)}" for model in models]
    title = (
        f"{field}: {' and '.join(only)} of its {len(cells)} cells; false positives: "
        f"{len(wrong[0])} of {models[0]} (left), {len(wrong[1])} of {models[1]} (right)"
    )
    return embedded_image(draw(image, truth, predicted, found_by, wrong, models), title)


def _markdown(table: Table) -> str:
    """Return a table of texts in Markdown, with the name of each group in a row of its own."""
    rows = [
        row
        for name, of in table.groups.items()
        for row in ([[f"**{name}**"]] if name else []) + [list(row) for row in of]
    ]
    if not rows:
        return ""
    return tabulate(
        rows,
        headers=table.columns,
        tablefmt="github",
        colalign=("left", *["right"] * (len(table.columns) - 1)),
        disable_numparse=True,
    )


def _environment(runs: Mapping[str, dict[str, Any]]) -> Table:
    """Return what the evaluations recorded."""
    rows = [
        [name, *(values if len(values) == len(runs) else values * len(runs))]
        for name, values in environment(list(runs.values()))
    ]
    title = "As the runs recorded it. Of weights and data: the first digits of their sha256"
    return Table(title, ["property", *runs], {"": rows})
