"""What a search varies: drawn values are valid and the same again; wrong settings are refused."""

from pathlib import Path

import pytest
import yaml
from helpers.annotations import ROOT
from hypothesis import given
from hypothesis import strategies as st

from cellular.base.errors import InputError
from cellular.base.params import flat, read_params, validate
from parameters import Params

optuna = pytest.importorskip("optuna", reason="an optional extra")
from cellular.experiments.search import Place  # noqa: E402
from cellular.experiments.space import Search, Varied  # noqa: E402

optuna.logging.set_verbosity(optuna.logging.WARNING)
SPACE = {
    "train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "train.batch_size": {"low": 2, "high": 8, "step": 2},
    "train.channels": {"choices": [[0, 0], [2, 3]]},
    "train.use_sgd": {"choices": [True, False]},
    "train.momentum": {"low": 0.5, "high": 0.99, "when": {"train.use_sgd": True}},
}


def search(**values):
    return validate(Search, {"space": SPACE} | values, "search.yaml")


def test_the_committed_search_is_valid_and_has_the_default_recipe_in_it():
    settings = validate(Search, read_params(ROOT / "search.yaml"), "search.yaml")
    Place(ROOT, settings, ROOT / "experiments/search").check(Params, Path("search.yaml"))
    assert settings.default(dict(flat(read_params(ROOT / "params.yaml"))))


@given(seed=st.integers(0, 1000))
def test_what_is_drawn_is_allowed_and_the_same_when_it_is_drawn_again(seed):
    settings = search()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    values = settings.draw(trial)
    assert all(settings.space[name].allows(value) for name, value in values.items())
    assert ("train.momentum" in values) == values["train.use_sgd"]
    assert values["train.batch_size"] in (2, 4, 6, 8)
    again = optuna.Trial(study, trial._trial_id)  # as another process has it after a kill
    assert settings.draw(again) == values
    study.tell(trial, 1.0)
    assert settings.draw(study.trials[0]) == values


def test_the_default_is_drawn_as_it_is_or_not_at_all():
    settings = search()
    params = {
        "train.learning_rate": 1e-3,
        "train.batch_size": 4,
        "train.channels": [2, 3],
        "train.use_sgd": False,
        "train.momentum": 0.9,
    }
    study = optuna.create_study()
    study.enqueue_trial(settings.default(params))
    drawn = settings.draw(study.ask())
    assert drawn == {name: value for name, value in params.items() if name != "train.momentum"}
    for name, value in (
        ("train.use_sgd", 0),  # as good as False, and no choice
        ("train.batch_size", 4.0),
        ("train.batch_size", 5),  # not on a step
        ("train.learning_rate", 1.0),
        ("train.channels", [1, 1]),
        ("train.batch_size", None),
    ):
        assert settings.default(params | {name: value}) is None


@pytest.mark.parametrize(
    ("values", "allowed", "refused"),
    [
        ({"low": 0, "high": 4}, [0, 3, 4], [-1, 5, None, True, "2", 0.7]),
        ({"low": 0.1, "high": 0.7, "step": 0.2}, [0.1, 0.3, 0.5, 0.7], [0.2, 0.9]),
        ({"choices": ["a", None, [1, 2]]}, ["a", None, [1, 2]], ["b", [2, 1]]),
        ({"choices": [0, 0.5, 1]}, [0, 0.5, 1], [True, False, 1.0]),  # else it could not be drawn
    ],
)
def test_which_values_are_allowed(values, allowed, refused):
    varied = validate(Varied, values, "x")
    assert all(map(varied.allows, allowed)) and not any(map(varied.allows, refused))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("space: {}", "space"),
        ("space: {train.seed: {low: 3, high: 1}}", "low below high"),
        ("space: {train.seed: {low: 0, high: 1, log: true}}", "low above 0"),
        ("space: {train.seed: {low: 0, high: 1, choices: [1]}}", "either low and high, or choices"),
        ("space: {train.seed: {choices: [1], log: true}}", "not of choices"),
        ("space: {train.seed: {low: 0, high: 9, step: 0.5}}", "step: expected a number above 0"),
        ("space: {train.seed: {low: 0.0, high: 9.0, step: -1}}", "step: expected a number above 0"),
        ("folds: {by: well, test: [A], valid: [B, B]}", "B is named twice"),
        ("folds: {by: well, test: [5], valid: [4, 5]}", "5 is named twice"),
        ("space: {a.b: {low: 0, high: 1, when: {a.c: 1}}}", "a.c does not stand before it"),
        ("space: {a.b: {choices: [1, 2]}, a.c: {low: 0, high: 1, when: {a.b: 3}}}", "never 3"),
        ("objectives: [{score: test.ap50}]", "must not see the test"),
        ("objectives: [{score: valid.ap5}]", "no score valid.ap5; there are valid.ap50, "),
        ("objectives: [{score: best_valid_loss}]", "no score best_valid_loss"),
        ("objectives: [{score: valid.count_error}]", "no score valid.count_error"),
        ("objectives: [{score: seconds, direction: minimize}]", "a score beside seconds"),
        ("objectives: [{score: valid.ap50}, {score: seconds}]", "expected direction: minimize"),
        (
            "{objectives: [{score: valid.ap50}, {score: valid.ap75}], pruning: {pruner: median}}",
            "say none",
        ),
        ("pruning: {pruner: wilcoxon}", "expected 5 folds or more .*, found 1 and 5"),
        (
            "{pruning: {pruner: median}, space: {train.crop_size: {choices: [64, 96]}}}",
            "train.crop_size changes valid_loss by itself",
        ),
        (
            "{pruning: {pruner: hyperband, column: train_loss}, "
            "space: {train.flip: {choices: [true]}}}",
            "train.flip changes train_loss by itself",
        ),
        (
            "{pruning: {pruner: wilcoxon}, folds: {by: well, test: [A], valid: [B, C, D, E, F]}}",
            "a lower startup, found 5 and 5",
        ),
        ("moon: 1", "no such parameter"),
        ("folds: {by: moon, test: [1], valid: [2]}", "'plate', 'well', 'site' or 'timepoint'"),
    ],
)
def test_settings_that_cannot_be_used_are_named(text, message):
    values = {"space": SPACE} | yaml.safe_load(text)
    with pytest.raises(InputError, match=message):
        validate(Search, values, "search.yaml")


def test_pruning_by_ap50_needs_a_training_that_computes_it():
    ap50 = {"pruning": {"pruner": "median", "column": "valid_ap50"}}
    folder = ROOT / "experiments/search"
    with pytest.raises(InputError, match=r"valid_ap50 is in train.csv with train.keep: ap50 only"):
        Place(ROOT, search(**ap50), folder).check(Params, Path("search.yaml"))
    settings = search(**ap50, overrides={"train": {"keep": "ap50"}})
    Place(ROOT, settings, folder).check(Params, Path("search.yaml"))


def test_a_conditional_parameter_is_tried_with_its_condition():
    # With AdamW, the default, such a rate is refused.
    rate = {"low": 0.02, "high": 0.5, "log": True}
    sgd = {"train.use_sgd": {"choices": [True, False]}}
    conditional = rate | {"when": {"train.use_sgd": True}}
    momentum = {"choices": [0.9], "when": {"train.learning_rate": 0.3}}
    folder = ROOT / "experiments/search"
    for space in (
        sgd | {"train.learning_rate": conditional},
        sgd | {"train.learning_rate": conditional, "train.momentum": momentum},
    ):
        Place(ROOT, search(space=space), folder).check(Params, Path("search.yaml"))
    with pytest.raises(InputError, match=r"learning_rate 0\.02 diverges"):
        settings = search(space=sgd | {"train.learning_rate": rate})
        Place(ROOT, settings, folder).check(Params, Path("search.yaml"))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"train.moon": {"low": 0, "high": 1}}, "moon: no such parameter"),
        ({"train.batch_size": {"low": 0, "high": 4}}, "batch_size: 0"),
        ({"train.schedule": {"choices": ["cosine", "moon"]}}, "moon"),
        ({"train.paste_cells": {"low": 0, "high": 1}}, "write low: 0.0 and high: 1.0"),
        ({"train.all_fields": {"choices": [True, False]}}, "by which cells a trial is judged"),
        ({"prepare.test_groups": {"choices": [["5"]]}}, "by which cells a trial is judged"),
        ({"data.version": {"choices": [1]}}, "by which cells a trial is judged"),
    ],
)
def test_a_search_with_values_that_no_experiment_may_have_does_not_start(space, message):
    settings = validate(Search, {"space": space}, "search.yaml")
    with pytest.raises(InputError, match=message):
        Place(ROOT, settings, ROOT / "experiments/search").check(Params, Path("search.yaml"))
