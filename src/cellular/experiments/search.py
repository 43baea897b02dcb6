"""The search: each trial is a DVC experiment, judged on validation groups.

`work` runs in each worker's process, in a clone of its own; `judged` runs once, at the end.
"""

import csv
import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from dvc.utils.hydra import apply_overrides

from cellular.base.errors import TOO_HIGH, InputError
from cellular.base.files import STATES, write_json
from cellular.base.params import Section, flat, validate
from cellular.experiments.clones import Clone, a_clone, git
from cellular.experiments.profiles import changes, flags, overridden
from cellular.experiments.runner import (
    Experiment,
    Stopped,
    commit_of,
    files_of,
    legal,
    read_json,
    run_all,
    run_one,
    shared,
)
from cellular.experiments.space import BY_LOSSES, SECONDS, Search
from cellular.experiments.studies import Study, winner_of

TARGETS = ("evaluate@finetuned",)  # with what it needs: all that a score depends on
SUMMARY = "metrics/summary.json"
LOSSES = "metrics/train.csv"
TRAINING = b"Running stage 'train'"  # in what DVC prints; the outputs of the stage are gone by then
# What decides by which cells a trial is judged, with all of `data`. It is the same for all trials.
JUDGING = (
    *("dataset", "class_name", "train.all_fields", "eval.skip", "eval.excluded"),
    *(f"prepare.{name}" for name in ("split_by", "test_groups", "valid_groups", "exclude")),
    *("prepare.val_pattern", "prepare.test_pattern"),
)
BETTER_WHEN_LARGE = ("valid_ap50",)  # of the columns of train.csv that pruning may look at


@dataclass(frozen=True)
class Place:
    """A search: where its repository is, its settings, and the folder of its study."""

    root: Path
    settings: Search
    folder: Path  # its name is that of the study

    def study(self) -> Study:
        """Open the study, or make it."""
        return Study(self.folder, self.settings)

    @property
    def logs(self) -> Path:
        """The folder for what DVC prints in each experiment."""
        return self.folder / "logs"

    @property
    def base(self) -> dict[str, Any]:
        """What all experiments of the search change in params.yaml."""
        chosen = changes(self.root, self.settings.profile, []) | self.settings.overrides
        return chosen | {"train.all_fields": False}  # or it would train on what it is judged by

    def folds(self) -> dict[str, dict[str, Any]]:
        """Return what each fold changes in params.yaml, by what it adds to an experiment's name."""
        folds = self.settings.folds
        if folds is None:
            return {"": {}}
        split = {"prepare.split_by": folds.by, "prepare.test_groups": folds.test}
        return {
            legal(f"-{group}") if len(folds.valid) > 1 else "": (
                split | {"prepare.valid_groups": [group]}
            )
            for group in folds.valid
        }

    def check(self, model: type[Section], where: Path) -> None:
        """Raise `InputError` if the parameters of the search are not valid.

        `model` validates the whole of params.yaml, and `where` is the file of the settings. Of what
        varies, each bound and choice is tried.
        """

        conditions: dict[str, dict[str, Any]] = {}  # with which alone each parameter is used

        def check_value(name: str, value: Any, fold: dict[str, Any]) -> None:
            tried = self.base | fold | conditions[name] | {name: value}
            content = overridden(self.root / "params.yaml", tried, where)
            validate(model, content, f"{where}: space.{name}: {value}")

        pruning = self.settings.pruning
        keep = overridden(self.root / "params.yaml", self.base, where)["train"]["keep"]
        by_ap50 = pruning.pruner in BY_LOSSES and pruning.column == "valid_ap50"
        if by_ap50 and keep != "ap50":
            raise InputError(
                f"{where}: pruning.column: valid_ap50 is in train.csv with train.keep: ap50 only; "
                "set it under overrides"
            )
        for name, varied in self.settings.space.items():
            if name in JUDGING or name.startswith("data."):
                raise InputError(
                    f"{where}: space.{name} decides by which cells a trial is judged, so trials "
                    "could not be compared; take it out of space"
                )
            conditions[name] = dict(varied.when)
            for parent in varied.when:
                conditions[name] |= conditions[parent]
            for value in varied.choices or [varied.low, varied.high]:
                for fold in self.folds().values():
                    check_value(name, value, fold)
            if varied.whole:
                low, high = float(varied.low or 0), float(varied.high or 0)
                try:
                    check_value(name, low + 0.5, {})
                except InputError:
                    continue  # only whole numbers are valid
                raise InputError(
                    f"{where}: space.{name}: whole numbers alone would be drawn, but others are "
                    f"valid too; write low: {low} and high: {high}, or choices"
                )


class Hopeless(Exception):
    """A trial is to be ended early; `epoch` is the last that it finished."""

    def __init__(self, epoch: int, reason: str):
        super().__init__(reason)
        self.epoch = epoch


class Trial:
    """One trial on its way through the folds, in a worker's clone."""

    def __init__(
        self,
        place: Place,
        trial: optuna.Trial,
        clone: Clone,
        variables: dict[str, str],
        parent: int,
    ):
        self.place, self.trial, self.clone, self.parent = place, trial, clone, parent
        self.name = f"{place.folder.name}-{trial.number:04d}"
        self.overrides = place.base | place.settings.draw(trial) | {"eval.skip": ["test", "train"]}
        self.states = place.folder / "states" / self.name
        self.variables = variables | {STATES: str(self.states)}

    def run(self) -> list[float]:
        """Run a DVC experiment for each fold; return the values of the objectives.

        Raises
        ------
        optuna.TrialPruned
            If the trial is hopeless; an experiment says so.
        InputError
            If an experiment fails.
        """
        try:
            values = self._run_folds()
        except (InputError, optuna.TrialPruned):
            shutil.rmtree(self.states, ignore_errors=True)  # it does not go on from there
            raise
        shutil.rmtree(self.states, ignore_errors=True)
        return values

    def _run_folds(self) -> list[float]:
        objectives = self.place.settings.objectives
        scores = [objective.score for objective in objectives if objective.score != SECONDS]
        numbers = []
        folds = self.place.folds()
        for index, (suffix, fold) in enumerate(folds.items()):
            experiment = Experiment(self.name + suffix, self.overrides | fold, TARGETS)
            try:
                numbers.append(self._fold(experiment, scores, self._watch(index, experiment)))
            except InputError as error:
                if TOO_HIGH not in str(error):
                    raise
                raise optuna.TrialPruned("the loss exploded") from None
            except Hopeless as reason:
                self._mark(experiment, reason)
                raise optuna.TrialPruned(str(reason)) from None
            if self._by_losses(index):  # what came since, or all if it was not trained anew
                commit = numbers[-1]["commit"]
                with files_of(self.place.root, commit) as files:
                    list(self._report(files.read_text(LOSSES)))
            if self.place.settings.pruning.pruner == "wilcoxon":
                self.trial.report(numbers[-1][scores[0]], index)
                if index + 1 < len(folds) and self.trial.should_prune():
                    raise optuna.TrialPruned(f"after {index + 1} folds, by their scores")
        means = {name: sum(each[name] for each in numbers) / len(numbers) for name in scores}
        means[SECONDS] = sum(each[SECONDS] for each in numbers)
        return [means[objective.score] for objective in objectives]

    def _fold(
        self, experiment: Experiment, scores: list[str], watch: Callable[[], None]
    ) -> dict[str, Any]:
        """Run the experiment of a fold unless it is finished; return its numbers and commit."""
        done = self.trial.user_attrs.get("folds", {})
        if experiment.name in done:
            return done[experiment.name]
        began = time.monotonic()
        commit = commit_of(self.place.root, experiment.name) or run_one(
            self.clone,
            experiment,
            environment=self.variables,
            output=self._log(experiment),
            watch=watch,
        )
        known = dict(flat(read_json(self.place.root, commit, SUMMARY)))
        if missing := [score for score in scores if score not in known]:
            raise InputError(
                f"experiment {experiment.name}: {SUMMARY} has no {missing[0]}; it has "
                f"{', '.join(known)}"
            )
        numbers: dict[str, Any] = {score: known[score] for score in scores}
        numbers |= {SECONDS: round(time.monotonic() - began, 1), "commit": commit}
        # The trial knows its experiments; an experiment's name tells the trial.
        self.trial.set_user_attr("folds", done | {experiment.name: numbers})
        return numbers

    def _by_losses(self, fold: int) -> bool:
        return fold == 0 and self.place.settings.pruning.pruner in BY_LOSSES

    def _watch(self, fold: int, experiment: Experiment) -> Callable[[], None]:
        """Return what is called while an experiment runs, and ends it by what it raises.

        The training knows nothing of pruning: its growing table is read in the clone.
        """
        log = self._log(experiment)
        before = log.stat().st_size if log.exists() else 0  # of an earlier, killed run of it
        begun = False

        def watch() -> None:
            nonlocal begun
            if os.getppid() != self.parent:
                raise Stopped  # the process that started this worker is gone
            if not self._by_losses(fold):
                return
            # Until DVC says so, the table there is that of another training.
            begun = begun or (log.exists() and TRAINING in log.read_bytes()[before:])
            table = self.clone.folder / LOSSES
            if begun and table.exists():  # it is replaced as a whole, never half written
                for epoch, value in self._report(table.read_text(encoding="utf-8")):
                    if self.trial.should_prune():
                        column = self.place.settings.pruning.column
                        raise Hopeless(
                            epoch, f"after epoch {epoch}, with a {column} of {value:.4g}"
                        )

        return watch

    def _report(self, table: str) -> Iterator[tuple[int, float]]:
        """Report the losses of a train.csv that were not reported yet; give each with its epoch."""
        column = self.place.settings.pruning.column
        upwards = column in BETTER_WHEN_LARGE
        sign = 1 if upwards == (self.place.settings.objectives[0].direction == "maximize") else -1
        reported = self.trial.study.get_trials(deepcopy=False)[self.trial.number]
        seen = max(reported.intermediate_values, default=0)
        for row in csv.DictReader(io.StringIO(table)):
            epoch, value = int(row["epoch"]), row.get(column)
            if epoch > seen and value:
                self.trial.report(sign * float(value), epoch)
                yield epoch, float(value)

    def _log(self, experiment: Experiment) -> Path:
        return self.place.logs / f"{experiment.name}.log"

    def _mark(self, experiment: Experiment, reason: Hopeless) -> None:
        """Keep an experiment of the pruned trial: its parameters and no scores."""
        folder = self.clone.folder
        apply_overrides(folder / "params.yaml", flags(experiment.overrides)[1::2])
        write_json(folder / SUMMARY, {"pruned_after_epoch": reason.epoch})
        message = f"{experiment.name}: pruned {reason}"
        options = ("--quiet", "--no-verify", "--no-gpg-sign", "--all")
        git(folder, "commit", *options, "--message", message)
        reference = self.clone.reference(f"{experiment.name}-pruned")
        git(folder, "update-ref", reference, "HEAD")
        self.clone.send_home(reference)
        self.clone.restore()


def work(place: Place, trials: int, number: int, workers: int, parent: int) -> None:
    """Work on trials, as worker `number` of several, until there are enough.

    The worker ends once `parent` is not the process that started it any more.
    """
    variables = shared(number, workers)
    with a_clone(place.root) as clone:
        place.study().work(
            trials, lambda trial: Trial(place, trial, clone, variables, parent).run()
        )


def judged(place: Place, study: Study, recipe: str, workers: int) -> dict[str, dict[str, float]]:
    """Score the default and the winner on the test groups, once; return both's numbers.

    The winner of several objectives is the best by the first of them. What was trained for a trial
    is not trained again.

    Parameters
    ----------
    recipe : see `Study.check_recipe`

    Returns
    -------
    dict
        By recipe (default, winner) the mean over folds of each number of the summary.
    """
    best = study.best()
    folder = place.folder
    compared = {
        "default": (f"{folder.name}-default", {}),
        "winner": (winner_of(folder.name, best.number), place.settings.draw(best)),
    }
    experiments = {
        role: [
            Experiment(name + suffix, overrides | fold, TARGETS)
            for suffix, fold in place.folds().items()
        ]
        for role, (name, values) in compared.items()
        for overrides in [place.base | values | {"eval.skip": ["train"]}]
    }
    every = [experiment for several in experiments.values() for experiment in several]
    if not all(commit_of(place.root, experiment.name) for experiment in every):
        study.check_recipe(recipe)
    commits = run_all(place.root, every, workers=workers, logs=place.logs)
    found = {}
    for role, several in experiments.items():
        numbers = [
            dict(flat(read_json(place.root, commits[each.name], SUMMARY))) for each in several
        ]
        found[role] = {
            score: sum(each[score] for each in numbers) / len(numbers)
            for score in numbers[0]
            if all(score in each for each in numbers)
        }
    return found
