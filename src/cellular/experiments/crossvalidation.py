"""Cross-validation: a recipe tested on one group of fields after the other, each in experiments.

A fold leaves out a group (a well, a site, a time point, a plate): its fields are tested, those of
the next group validate, all others train. Each fold and seed is a DVC experiment.
"""

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
from natsort import natsorted

from cellular.base.errors import InputError
from cellular.base.files import together, write_json
from cellular.base.params import Section, validate
from cellular.experiments.folds import KEYS, SCORES, common, paired, summary
from cellular.experiments.foldtables import as_text, draw
from cellular.experiments.profiles import flags, overridden
from cellular.experiments.runner import Experiment, files_of, identified, read_json, run_all
from cellular.imaging.fields import groups_of, origin
from cellular.measuring.channels import PREDICTED
from cellular.scoring.summary import NUMBERS

FEWEST = 3  # groups: one to test, one to validate, one to train
TARGET = "evaluate@finetuned"
RESULTS, PREDICTIONS = "metrics/finetuned", "data/predictions/finetuned"
# What each fold decides. Training fields are not scored, since they tell nothing here.
DECIDED = (
    *("prepare.split_by", "prepare.test_groups", "prepare.valid_groups"),
    *("train.all_fields", "eval.skip", "seed"),
)
WHERE = Path("params.yaml with --profile and -S")  # for messages about a wrong parameter
FILES = ("folds.csv", "folds.json", "folds.md", "folds.png", "fields.csv", "predictions")


@dataclass(frozen=True)
class Fold:
    """A group that is left out, and the experiment that does so with one seed."""

    group: str
    seed: int
    experiment: Experiment


def cross_validate(
    root: Path,
    output: Path,
    model: type[Section],
    overrides: dict[str, Any],
    *,
    by: str,
    seeds: Sequence[int],
    against: Path | None = None,
    workers: int = 1,
    force: bool = False,
) -> str:
    """Run every fold that is not finished yet, and write `FILES`.

    folds.csv and .json have a row for each fold and seed, and fields.csv one for each field of
    them; folds.md and .png show the scores of folds with their means and intervals; predictions/
    holds the label map of each field by the model of the first seed that had not seen its group.
    They appear together. What DVC prints is in logs/.

    Parameters
    ----------
    root : the repository
    output : folder for the files
    model : validates the whole of params.yaml
    overrides : what the recipe changes in params.yaml, by dotted name; split and seed are each
        fold's own
    by : what a group is: well, site, timepoint or plate
    seeds : of the training, each for every fold
    against : folds.json of another cross-validation, to which this one is compared
    workers : experiments that run at once
    force : replace the results of another cross-validation in `output`

    Returns
    -------
    str
        The content of folds.md.

    Raises
    ------
    InputError
        If a parameter is wrong, if there are fewer than three groups, if `against` has no fold in
        common, or if an experiment fails; finished experiments are kept.
    """
    for seed in seeds:  # before data are fetched, which may take hours
        values = overridden(root / "params.yaml", overrides | {"seed": seed}, WHERE)
        validate(model, values, str(WHERE))
    other = _read(against) if against else None
    fields = annotated_fields(root, overrides, model, output / "logs")
    folds = folds_of(root, fields, overrides, model, by, seeds)
    planned = pd.DataFrame([(fold.group, fold.seed) for fold in folds], columns=KEYS)
    if other is not None:
        common(planned, other)  # it would be late to learn after hours that there is none
    _check_same(output / "folds.json", folds, force)
    with together(*(output / name for name in FILES)) as (table, content, text, figure, *by_field):
        experiments = [fold.experiment for fold in folds]
        commits = run_all(root, experiments, workers=workers, logs=output / "logs")
        rows = _collect(root, folds, commits, *by_field)
        difference = None if other is None else paired(rows, other)
        names = (output.name, against.parent.name if against else "")
        shown = as_text(rows, by, difference, names, sites_are_shared(fields, by))
        rows.to_csv(table, index=False, lineterminator="\n")
        records = [row.dropna().to_dict() for _, row in rows.astype(object).iterrows()]
        recipe = {name: value for name, value in overrides.items() if name not in DECIDED}
        found = {"by": by, "recipe": flags(recipe), "folds": records, "scores": summary(rows)}
        if difference:
            found["against"] = {"name": names[1]} | difference
        write_json(content, found)
        text.write_text(shown + "\n", encoding="utf-8")
        draw(rows, by).savefig(figure, format="png", dpi=150)
    return shown


def check_free(overrides: Iterable[str]) -> None:
    """Raise `InputError` if one of these names of parameters is what each fold decides."""
    for name in overrides:
        if name in DECIDED:
            raise InputError(
                f"-S {name}: each fold has its own; leave it out, and give --by and --seeds"
            )


def annotated_fields(
    root: Path, overrides: dict[str, Any], model: type[Section], logs: Path
) -> list[str]:
    """Return the names of the annotated fields of a recipe's data set, which is fetched if need be.

    That is an experiment of its own, so that the folds find the data in DVC's cache.
    """
    data = {name: v for name, v in overrides.items() if name.split(".")[0] in ("dataset", "data")}
    experiment = Experiment(identified(root, "data", data, model, WHERE), data, ("fetch_data",))
    commit = run_all(root, [experiment], logs=logs)[experiment.name]
    with files_of(root, commit) as files:
        entries = files.ls("data/raw/masks", detail=True)
    paths = [(PurePosixPath(entry["name"]), entry["type"] == "directory") for entry in entries]
    return sorted(path.name if folder else path.stem for path, folder in paths)


def folds_of(
    root: Path,
    fields: Sequence[str],
    overrides: dict[str, Any],
    model: type[Section],
    by: str,
    seeds: Sequence[int],
) -> list[Fold]:
    """Return a fold for each group, in natural order, and seed; `InputError` if groups are few."""
    groups = natsorted(set(groups_of(fields, by).values()))
    if len(groups) < FEWEST:
        raise InputError(
            f"--by {by}: the annotated fields are of {len(groups)} ({', '.join(groups)}), expected "
            f"at least {FEWEST}: one to test, one to validate, one to train; choose another --by, "
            "or a data set with more of them"
        )
    folds = []
    for group in groups:
        for seed in dict.fromkeys(seeds):
            values: tuple = (by, [group], [], False, ["train"], seed)
            changed = overrides | dict(zip(DECIDED, values, strict=True))
            prefix = f"cv-{by}-{group}-s{seed}"
            name = identified(root, prefix, changed, model, WHERE)
            folds.append(Fold(group, seed, Experiment(name, changed, (TARGET,))))
    return folds


def sites_are_shared(fields: Sequence[str], by: str) -> bool:
    """Tell whether fields of one site are in several groups, as with time points."""
    pairs = {(origin(field)["site"], group) for field, group in groups_of(fields, by).items()}
    return len(pairs) > len({site for site, _ in pairs})


def _read(path: Path) -> pd.DataFrame:
    """Return the rows of the folds.json of a cross-validation, as `_collect` returns them."""
    if not path.is_file():
        there = sorted(found.parent.name for found in path.parents[1].glob(f"*/{path.name}"))
        raise InputError(
            f"{path}: no cross-validation of that name; there are: {', '.join(there) or 'none'}"
        )
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["folds"]
        types = dict.fromkeys(SCORES, float) | {"seed": int, "fields": int, "cells": int}
        kept = [*KEYS, "fields", "cells", *SCORES, "experiment"]
        return pd.DataFrame(rows).reindex(columns=kept).astype(types)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not the folds that src/cross_validate.py wrote ({error}); run it again"
        ) from None


def _check_same(path: Path, folds: Sequence[Fold], force: bool) -> None:
    """Raise `InputError` if another cross-validation than these folds, or a part, is there."""
    if path.exists() and not force:
        others = set(_read(path)["experiment"]) - {fold.experiment.name for fold in folds}
        if others:
            raise InputError(
                f"{path}: results of other folds, such as {min(others)}; give this recipe another "
                "--name, or --force to replace them"
            )


def _collect(
    root: Path, folds: Sequence[Fold], commits: dict[str, str], by_field: Path, predictions: Path
) -> pd.DataFrame:
    """Return a row a fold and seed; write the table of fields and the label maps of the first seed.

    Returns
    -------
    group (str), seed, fields, cells (int64), `SCORES` (float64, NaN if undefined), experiment (str)
    """
    rows, tables = [], []
    predictions.mkdir()
    for fold in folds:
        commit = commits[fold.experiment.name]
        result = read_json(root, commit, f"{RESULTS}/test_eval.json")
        rows.append(
            {"group": fold.group, "seed": fold.seed}
            | {"fields": result["fields"], "cells": result["counts"]["cells"]}
            | {name: _at(result, NUMBERS[name]) for name in SCORES}
            | {"experiment": fold.experiment.name}
        )
        with files_of(root, commit) as files:
            text = io.StringIO(files.read_text(f"{RESULTS}/test_fields.csv"))
            # As text, so that the numbers stay as they were written.
            table = pd.read_csv(text, dtype=str, keep_default_na=False)
            tables.append(table.assign(group=fold.group, seed=fold.seed))
            if fold.seed == folds[0].seed:
                for name in (f"{PREDICTED}{field}.png" for field in table["field"]):
                    files.get_file(f"{PREDICTIONS}/{name}", str(predictions / name))
    every = pd.concat(tables)
    order = [*KEYS, *every.columns.drop(KEYS)]
    every[order].to_csv(by_field, index=False, lineterminator="\n")
    return pd.DataFrame(rows).astype(dict.fromkeys(SCORES, float))


def _at(result: dict[str, Any], place: Sequence[str]) -> float | None:
    """Return the score at a place of <split>_eval.json; None if it is undefined, and left out."""
    found: Any = result
    for key in place:
        found = found.get(key, {})
    return found if isinstance(found, int | float) else None
