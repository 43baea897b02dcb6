"""Profiles are overrides of params.yaml, validated with it, and flags that DVC understands."""

import shlex

import pytest
import yaml
from helpers.annotations import ROOT

from cellular.base.errors import InputError
from cellular.experiments.profiles import flags, load_profile, overridden
from cellular.training.loop import REFERENCE

PROFILES = sorted(path.stem for path in (ROOT / "conf").glob("*.yaml"))


@pytest.mark.parametrize("name", PROFILES)
def test_the_committed_profiles_are_valid(name):
    path = ROOT / "conf" / f"{name}.yaml"
    assert overridden(ROOT / "params.yaml", load_profile(path), name)


def test_the_papers_profile_is_the_papers_recipe():
    params = overridden(ROOT / "params.yaml", load_profile(ROOT / "conf" / "paper.yaml"), "paper")
    recipe = params.train
    assert (recipe.n_epochs, recipe.learning_rate, recipe.weight_decay) == (500, 0.2, 1e-5)
    assert (recipe.batch_size, recipe.use_sgd, recipe.rescale) == (8, True, True)
    assert recipe.channels == [0, 0] and params.eval.diameter.pretrained == 121
    assert (params.prepare.val_pattern, params.prepare.test_pattern) == ("ST_I06", "ST_C03")
    assert params.prepare.cell_diameter is None and params.prepare.gamma == 1
    assert {name: getattr(recipe, name) for name in REFERENCE} == REFERENCE  # Cellpose's loop
    assert not params.eval.augment and params.eval.resample
    assert params.class_name == "all" and params.prepare.exclude == ["Unidentified"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"train": {"n_epoch": 3}}, "n_epoch: no such parameter"),
        ({"train": {"n_epochs": -3}}, "greater than or equal to 1"),
        ({"dataset": {"name": "x"}}, "dataset is no section"),
        ("text", "expected names"),
    ],
)
def test_what_is_no_profile_is_told(tmp_path, content, told):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=told):
        overridden(ROOT / "params.yaml", load_profile(path), str(path))


def test_a_profile_that_is_not_there_is_told():
    with pytest.raises(InputError, match=r"no such profile; there are: paper, quick, sample"):
        load_profile(ROOT / "conf" / "moon.yaml")


def test_flags_are_for_the_shell_and_for_dvc(run_script, monkeypatch):
    monkeypatch.chdir(ROOT)
    code, out, _ = run_script("overrides", "conf/quick.yaml")
    assert code == 0
    words = shlex.split(out)
    assert words[:2] == ["-S", "dataset=sample"] and "train.n_epochs=2" in words


def test_values_are_written_as_hydra_reads_them():
    from hydra.core.override_parser.overrides_parser import OverridesParser

    values = {"a": None, "b": True, "c": 1e-5, "d": [0, 0], "e": "/my folder/x=y,z", "f": ["png"]}
    values |= {"g": "2023", "h": "true", "i": "/home/José", "j": "ST_C03", "k": "-x", "l": "null"}
    parsed = OverridesParser.create().parse_overrides(flags(values)[1::2])
    assert {item.key_or_group: item.value() for item in parsed} == values
