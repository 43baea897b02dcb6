"""What a search varies and how it judges: the content of search.yaml."""

import json
import math
from typing import Annotated, Any, Literal

import optuna
from pydantic import AfterValidator, Field, model_validator

from cellular.base.params import Float, Int, NoneOr, Section, Text, flat
from cellular.imaging.fields import Group
from cellular.scoring.summary import NUMBERS

SECONDS = "seconds"  # an objective: of the wall clock, for all folds of a trial
BY_LOSSES = ("median", "hyperband")  # pruners that look at a column of train.csv
# What changes a loss by itself, so that a lower one does not tell which trial is better.
VALID_LOSS_OF = (
    *("train.background_weight", "train.crop_size", "train.rescale", "train.valid_images"),
    "prepare.cell_diameter",
)
TRAIN_LOSS_OF = (*VALID_LOSS_OF, "train.scale_range", "train.paste_cells", "train.flip")
WILCOXON = 5  # folds, the fewest with which its test can end a trial before the last
Value = int | float | bool | str | list | None


def _by_dotted_name(overrides: dict) -> dict:
    return dict(flat(overrides))


class Varied(Section):
    """How one parameter varies: between two numbers, or among choices."""

    low: Int | Float | None = None
    high: Int | Float | None = None
    log: bool = False  # drawn evenly on a logarithmic scale
    step: Int | Float | None = None
    choices: list[Value] = Field([])
    when: dict[str, Any] = Field(
        {}
    )  # values of earlier parameters, with which alone this one is used

    @model_validator(mode="after")
    def _one_kind(self) -> "Varied":
        if bool(self.choices) == (self.low is not None or self.high is not None):
            raise ValueError("expected either low and high, or choices")
        if not self.choices:
            if self.low is None or self.high is None or self.low >= self.high:
                raise ValueError("expected two numbers, low below high")
            if self.log and (self.low <= 0 or self.step):
                raise ValueError("log: expected low above 0, and no step")
            if self.step is not None and (
                self.step <= 0 or (self.whole and not isinstance(self.step, int))
            ):
                raise ValueError("step: expected a number above 0, whole if low and high are")
        elif self.log or self.step:
            raise ValueError("log and step are of numbers, not of choices")
        return self

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def used(self, values: dict[str, Any]) -> bool:
        """Tell whether the parameter is used together with the `values` of others."""
        return all(values.get(name) == value for name, value in self.when.items())

    def draw(self, name: str, trial: optuna.trial.BaseTrial) -> Any:
        """Return the value of this parameter in a trial."""
        if self.choices:  # as JSON, since lists may be choices
            return json.loads(trial.suggest_categorical(name, list(map(json.dumps, self.choices))))
        assert self.low is not None and self.high is not None
        if self.whole:
            return trial.suggest_int(
                name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log
            )
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def allows(self, value: Any) -> bool:
        """Tell whether the value could be drawn."""
        if self.choices:
            return json.dumps(value) in map(json.dumps, self.choices)  # since 1 == 1.0 == True
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        assert self.low is not None and self.high is not None
        on_step = not self.step or abs(math.remainder(value - self.low, self.step)) < 1e-9
        return self.low <= value <= self.high and on_step


class Objective(Section):
    """A number to make large or small: a score of valid in metrics/summary.json, or `seconds`."""

    score: Text
    direction: Literal["maximize", "minimize"] = "maximize"


class Folds(Section):
    """The groups of fields of a search: those of the test are scored once, at its end."""

    by: Group
    test: list[Text] = Field(min_length=1)
    valid: list[Text] = Field(min_length=1)  # each is the validation group of one fold

    @model_validator(mode="after")
    def _once(self) -> "Folds":
        groups = [*self.test, *self.valid]
        if twice := [group for group in groups if groups.count(group) > 1]:
            raise ValueError(f"{twice[0]} is named twice; a group is tested or validates once")
        return self


class Pruning(Section):
    """Which trials are ended early."""

    # median, hyperband: by their losses in the first fold; wilcoxon: by their scores fold by fold.
    pruner: Literal["none", "median", "hyperband", "wilcoxon"] = "none"
    column: Literal["valid_loss", "train_loss", "valid_ap50"] = "valid_loss"  # of train.csv
    startup: Int = Field(5, ge=1)  # trials (wilcoxon: folds) before any is ended; not hyperband's
    warmup: Int = Field(0, ge=0)  # epochs of a trial before it may be ended


def _objectives(objectives: list[Objective]) -> list[Objective]:
    # Not count_error: best at 0, while its least value is of a model that finds no cell.
    known = [*(f"valid.{name}" for name in NUMBERS if name != "count_error"), SECONDS]
    for objective in objectives:
        if objective.score.startswith("test."):
            raise ValueError("a search must not see the test; take a score of valid")
        if objective.score not in known:
            raise ValueError(f"no score {objective.score}; there are {', '.join(known)}")
        if objective.score == SECONDS and objective.direction == "maximize":
            raise ValueError("seconds: expected direction: minimize")
    if {objective.score for objective in objectives} == {SECONDS}:
        raise ValueError("expected a score beside seconds")
    return objectives


class Search(Section):
    """The whole of search.yaml."""

    profile: NoneOr[Text] = None
    overrides: Annotated[dict[str, Any], AfterValidator(_by_dotted_name)] = Field({})
    folds: NoneOr[Folds] = None  # None: the split of params.yaml
    objectives: Annotated[list[Objective], AfterValidator(_objectives)] = Field(
        [Objective(score="valid.ap50")], min_length=1, max_length=3
    )
    trials: Int = Field(20, ge=1)
    sampler: Literal["tpe", "random"] = "tpe"
    pruning: Pruning = Pruning()
    seed: Int = Field(0, ge=0, lt=2**31)
    space: dict[str, Varied] = Field(min_length=1)

    @model_validator(mode="after")
    def _together(self) -> "Search":
        known: set[str] = set()
        for name, varied in self.space.items():
            if unknown := set(varied.when) - known:
                raise ValueError(f"space.{name}.when: {min(unknown)} does not stand before it")
            for parent, value in varied.when.items():
                if not self.space[parent].allows(value):
                    raise ValueError(
                        f"space.{name}.when: {parent} is never {value!r}; write one of its "
                        "choices as it stands there, or a value in its range"
                    )
            known.add(name)
        if self.pruning.pruner != "none" and len(self.objectives) > 1:
            raise ValueError("pruning: with several objectives Optuna ends no trial; say none")
        if self.pruning.pruner in BY_LOSSES:
            column = self.pruning.column
            of = {"valid_loss": VALID_LOSS_OF, "train_loss": TRAIN_LOSS_OF}.get(column, ())
            if changing := [name for name in self.space if name in of]:
                raise ValueError(
                    f"pruning: {changing[0]} changes {column} by itself, so that it does not tell "
                    "which trial is better; say pruner: none, or column: valid_ap50, with "
                    "train.keep: ap50 under overrides"
                )
        if self.pruning.pruner == "wilcoxon":
            folds = len(self.folds.valid) if self.folds else 1
            # Optuna ends a trial at p < 0.1. With three folds p is at least 1 / 2^3.
            if folds < WILCOXON or self.pruning.startup >= folds:
                raise ValueError(
                    f"pruning: wilcoxon compares trials fold by fold, and ends none before "
                    f"{WILCOXON - 1} folds or pruning.startup; expected {WILCOXON} folds or more "
                    f"and a lower startup, found {folds} and {self.pruning.startup}"
                )
        return self

    def default(self, params: dict[str, Any]) -> dict[str, Any] | None:
        """Return what to draw so that a trial is params.yaml as it is; None if that is impossible.

        `params` has the values by dotted names, with the profile and the overrides in them.
        """
        values: dict[str, Any] = {}
        for name, varied in self.space.items():
            if varied.used(values):
                values[name] = params.get(name)
                if not varied.allows(values[name]):
                    return None
        return {
            name: json.dumps(value) if self.space[name].choices else value
            for name, value in values.items()
        }

    def draw(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        """Return the values of the parameters for a trial; the same again for the same trial."""
        values: dict[str, Any] = {}
        for name, varied in self.space.items():
            if varied.used(values):
                values[name] = varied.draw(name, trial)
        return values
