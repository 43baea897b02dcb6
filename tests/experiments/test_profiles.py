"""Profiles override params.yaml, are validated with it, and become flags that DVC understands."""

from datetime import date

import pytest
import yaml
from helpers.annotations import ROOT

from cellular.base.errors import InputError
from cellular.base.params import flat, validate
from cellular.experiments.profiles import changes, flags, load_profile, overridden
from parameters import Params

PROFILES = sorted(path.stem for path in (ROOT / "conf").glob("*.yaml"))


def params_with(path):
    """Return params.yaml with the profile at `path` in it, validated."""
    return validate(Params, overridden(ROOT / "params.yaml", load_profile(path), path), str(path))


@pytest.mark.parametrize("name", PROFILES)
def test_the_committed_profiles_are_valid(name):
    assert params_with(ROOT / "conf" / f"{name}.yaml")


def test_the_papers_profile_is_the_papers_recipe():
    params = params_with(ROOT / "conf" / "paper.yaml")
    recipe = params.train
    assert (recipe.n_epochs, recipe.learning_rate, recipe.weight_decay) == (500, 0.2, 1e-5)
    assert (recipe.batch_size, recipe.use_sgd, recipe.rescale) == (8, True, True)
    assert recipe.channels == [0, 0] and params.diameter.pretrained == 121
    assert (params.prepare.val_pattern, params.prepare.test_pattern) == ("ST_I06", "ST_C03")
    assert params.prepare.cell_diameter is None
    assert params.data.rendering == "merged"
    assert not params.eval.augment and params.eval.resample
    assert params.class_name == "all" and params.prepare.exclude == ["Unidentified"]


def test_the_papers_training_is_the_reference():
    reference = load_profile(ROOT / "conf" / "reference.yaml")
    papers = dict(flat(params_with(ROOT / "conf" / "paper.yaml").model_dump()))
    assert {name: papers[name] for name in reference} == reference


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": {"n_epoch": 3}}, "n_epoch: no such parameter"),
        ({"train": {"n_epochs": -3}}, "greater than or equal to 1"),
        ({"dataset": {"name": "x"}}, "dataset is a value, not a section"),
        ({"train": "fast"}, "train: expected a section"),
        ("text", "expected names"),
    ],
)
def test_a_profile_that_is_not_valid_is_named_in_the_error(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=rf"mine\.yaml.*{message}"):
        params_with(path)


def test_a_profile_that_does_not_exist_gets_a_list_of_those_that_do():
    with pytest.raises(InputError, match=r"there are: paper, quick, reference, sample"):
        load_profile(ROOT / "conf" / "moon.yaml")


def test_settings_come_over_the_profile_and_are_read_as_yaml():
    given = ["train.n_epochs=3", "train.channels=[2,3]", "eval.batch_size=null", "seed=1"]
    given += ["train.learning_rate=1e-3", "prepare.val_pattern=a=b"]
    found = changes(ROOT, "quick", given)
    assert found["dataset"] == "sample" and found["train.n_epochs"] == 3
    assert found["train.channels"] == [2, 3] and found["eval.batch_size"] is None
    assert found["train.learning_rate"] == 1e-3 and found["prepare.val_pattern"] == "a=b"
    assert changes(ROOT, None, ["eval={skip: [test]}"]) == {"eval.skip": ["test"]}
    with pytest.raises(InputError, match="expected name=value"):
        changes(ROOT, None, ["train.n_epochs"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "moon"], "no such profile"),
        (["-S", "train.n_epochs=0"], "train.n_epochs: "),
        (["--profile", "quick", "-S", "train.moon=0"], "moon: no such parameter"),
    ],
)
def test_an_experiment_with_a_wrong_value_does_not_start(run_script, arguments, message):
    code, out, err = run_script("experiment", *arguments)
    assert (code, out) == (2, "") and message in err and "running" not in err


def test_hydra_reads_the_flags_as_the_same_values():
    from hydra.core.override_parser.overrides_parser import OverridesParser

    values = {"a": None, "b": True, "c": 1e-5, "d": [0, 0], "e": "/my folder/x=y,z", "f": ["png"]}
    values |= {"g": "2023", "h": "true", "i": "/home/José", "j": "ST_C03", "k": "-x", "l": "null"}
    values |= {"n": r"(?P<well>[A-H]\d\d)_t(\d+)", "o": ["a\\"], "p": 'a "b" \\"', "q": ""}
    parsed = OverridesParser.create().parse_overrides(
        flags(values | {"m": date(2026, 1, 31)})[1::2]
    )
    assert {item.key_or_group: item.value() for item in parsed} == values | {"m": "2026-01-31"}
