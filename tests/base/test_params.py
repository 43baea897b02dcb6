"""params.yaml is validated as a whole; the scripts' flags are the same parameters."""

import argparse

import pytest
import yaml
from helpers.annotations import ROOT

from cellular.base import cli
from cellular.base.errors import InputError
from cellular.base.params import (
    Params,
    PrepareParams,
    SegmentParams,
    TrainParams,
    load_params,
    validate,
)


@pytest.fixture
def changed(tmp_path):
    """Write the real params.yaml with one value changed, and load it."""

    def change(dotted, value):
        content = yaml.safe_load((ROOT / "params.yaml").read_text())
        *sections, name = dotted.split(".")
        place = content
        for section in sections:
            place = place[section]
        place[name] = value
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(content))
        return load_params(path)

    return change


def test_the_committed_parameters_are_valid_and_complete():
    params = load_params(ROOT / "params.yaml")
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section in ("prepare", "train", "eval"):
        assert content[section].keys() == set(type(getattr(params, section)).model_fields)
    assert content.keys() == set(Params.model_fields)


def test_numbers_that_yaml_reads_as_words_are_numbers(changed):
    # `dvc exp run -S train.weight_decay=1e-5` writes 1e-05, which YAML 1.1 takes for a word.
    assert yaml.safe_load("1e-05") == "1e-05"
    assert changed("train.weight_decay", "1e-05").train.weight_decay == 1e-5


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("train.learning_rte", 1, r"train\.learning_rte: no such parameter; known here: .*rate"),
        ("datset", "x", "datset: no such parameter"),
        ("train.n_epochs", "many", r"train\.n_epochs: .*integer.*found 'many'"),
        ("train.n_epochs", 0, "greater than or equal to 1"),
        ("train.n_epochs", True, "true is no number"),
        ("train.use_sgd", "maybe", "valid boolean"),
        ("train.learning_rate", float("inf"), "finite"),
        ("train.learning_rate", 0.2, "AdamW with learning_rate 0.2 diverges"),
        ("train.crop_size", 100, "multiple of 16"),
        ("train.channels", [0, 4], "less than or equal to 3"),
        ("train.channels", [0], "at least 2 items"),
        ("prepare.formats", ["jpg"], "'png' or 'tif'"),
        ("eval.diameter", {"pretrained": -1, "finetuned": None}, "greater than 0"),
        ("seed", -1, "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_error(changed, name, value, told):
    with pytest.raises(InputError, match=told):
        changed(name, value)


def test_all_faults_are_told_at_once():
    with pytest.raises(InputError, match="2 faults") as error:
        validate(TrainParams, {"n_epochs": 0, "epochs": 1}, "x.yaml")
    assert "n_epochs" in str(error.value) and "epochs: no such" in str(error.value)


@pytest.mark.parametrize("text", ["train: [", "- 1", "''"])
def test_a_file_that_is_no_yaml_of_ours_is_told(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=r"params\.yaml"):
        load_params(tmp_path / "params.yaml")


def parse(model, *arguments):
    parser = argparse.ArgumentParser()
    cli.add_parameters(parser, model)
    return cli.parameters(model, parser.parse_args(arguments))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), True),
        (("--use_sgd",), True),
        (("--use_sgd", "true"), True),
        (("--use_sgd", "false"), False),
        (("--use_sgd", "False"), False),
        (("--no-use_sgd",), False),
    ],
)
def test_use_sgd_false_is_false(arguments, expected):
    rate = ("--learning_rate", "1e-3")
    assert parse(TrainParams, *rate, *arguments).use_sgd is expected


def test_flags_of_lists_and_of_none():
    assert parse(PrepareParams, "--formats", "png", "tif").formats == ["png", "tif"]
    assert parse(SegmentParams, "--diameter", "None").diameter is None
    assert parse(SegmentParams, "--diameter", "12.5").diameter == 12.5


def test_defaults_are_those_of_the_paper():
    recipe = parse(TrainParams)
    assert (recipe.n_epochs, recipe.learning_rate, recipe.weight_decay) == (500, 0.2, 1e-5)
    assert (recipe.batch_size, recipe.use_sgd, recipe.rescale) == (8, True, True)
    assert (recipe.channels, recipe.crop_size, recipe.schedule) == ([0, 0], 224, "cellpose")
    splits = parse(PrepareParams)
    assert (splits.val_pattern, splits.test_pattern, splits.formats) == (
        "ST_I06",
        "ST_C03",
        ["png"],
    )


@pytest.mark.parametrize("script", ["fetch_data", "fetch_weights", "prepare_data", "train", "eval"])
def test_help_tells_every_flag(run_script, script):
    code, out, _ = run_script(script, "--help")
    assert not code and out.startswith("usage:")
    assert "--force" in out


def test_misspelt_parameters_stop_a_stage_that_dvc_runs(run_script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("dataset: sample\nsede: 1\n")
    monkeypatch.setenv("DVC_STAGE", "fetch_weights")
    code, _, err = run_script("fetch_weights", "--model_type", "scratch", "--output", "x")
    assert code == 2 and "sede: no such parameter" in err and not (tmp_path / "x").exists()
