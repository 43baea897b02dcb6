"""params.yaml is checked as a whole, before the pipeline runs anything."""

from datetime import date
from functools import partial

import pytest
import yaml
from dvc.utils.serialize import loads_yaml
from helpers.annotations import ROOT
from helpers.repository import write_params

from cellular.base.errors import InputError
from cellular.base.params import read_params, validate
from cellular.training.params import TrainParams
from parameters import Params, load_params


@pytest.fixture
def write(tmp_path):
    """Write the real params.yaml with some values changed, and return its path."""

    return partial(write_params, tmp_path)


@pytest.fixture
def check(write, run_script, tmp_path):
    """Run check_params.py on params.yaml with some values changed."""

    def check(**changes):
        path = write({name.replace("__", "."): value for name, value in changes.items()})
        output = tmp_path / "checked.txt"
        code, out, err = run_script("check_params", path, "--output", output)
        assert output.exists() == (code == 0) and bool(out) == (code == 0)
        return code, out, err

    return check


def test_the_committed_parameters_are_valid_and_complete():
    params = load_params(ROOT / "params.yaml")
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section in ("data", "prepare", "train", "diameter", "channels", "eval"):
        assert content[section].keys() == set(type(getattr(params, section)).model_fields)
    assert content.keys() == set(Params.model_fields)


def test_numbers_that_yaml_reads_as_text_are_numbers(write):
    # `dvc exp run -S train.weight_decay=1e-5` writes 1e-05, which is text to YAML 1.1.
    assert yaml.safe_load("1e-05") == "1e-05"
    assert load_params(write({"train.weight_decay": "1e-05"})).train.weight_decay == 1e-5


def test_text_that_yaml_reads_as_a_number_is_text(write):
    changes = {"prepare.val_pattern": 4, "prepare.exclude": [7, 1.5], "dataset": 12}
    params = load_params(write(changes | {"data.version": date(2026, 1, 31)}))
    assert (params.prepare.val_pattern, params.prepare.exclude) == ("4", ["7", "1.5"])
    assert (params.dataset, params.data.version) == ("12", "2026-01-31")
    groups = load_params(write({"prepare.split_by": "timepoint", "prepare.test_groups": [5]}))
    assert groups.prepare.test_groups == ["5"]


@pytest.mark.parametrize(
    "text", ["010", "08", "1_000", "0x1F", "1e-5", "1e5", "0o17", "1:30", "off"]
)
def test_a_value_is_the_same_as_to_dvc(tmp_path, text):
    (tmp_path / "params.yaml").write_text(f"value: {text}\n")
    read = read_params(tmp_path / "params.yaml")["value"]
    assert (type(read), read) == (type(loads_yaml(text)), loads_yaml(text))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("train.learning_rte", 1, r"train\.learning_rte: no such parameter; known here: .*rate"),
        ("datset", "x", "datset: no such parameter; known here: .*dataset"),
        ("train.n_epochs", "many", r"train\.n_epochs: .*integer.*found 'many'"),
        ("train.n_epochs", 0, "greater than or equal to 1"),
        ("train.n_epochs", True, "true is not a number"),
        ("train.use_sgd", "maybe", "valid boolean"),
        ("train.learning_rate", float("inf"), "less than or equal to 100"),
        ("train.learning_rate", 0.2, "AdamW with learning_rate 0.2 diverges"),
        ("train.crop_size", 100, "multiple of 16"),
        ("train.channels", [0, 4], r"train\.channels: .*less than or equal to 3 \(found 4\)"),
        ("train.channels", [0], "at least 2 items"),
        ("train.schedule", "constant", "'cellpose', 'cosine' or 'one-cycle'"),
        ("train", 5, r"train: expected a section with names and values \(found 5\)"),
        ("prepare.formats", ["jpg"], r"prepare\.formats: .*'png' or 'tif' \(found 'jpg'\)"),
        ("prepare.split_by", "row", r"split_by: .*'plate', 'well'.* \(found 'row'\)"),
        ("prepare.test_groups", ["C03"], "test_groups are given, but no split_by; set it to plate"),
        ("prepare.valid_groups", [5], "valid_groups are given, but no split_by"),
        ("eval.skip", ["tests"], r"eval\.skip: .*'test', 'valid' or 'train' \(found 'tests'\)"),
        ("diameter.pretrained", -1, "expected 1 to 10,000 pixels"),
        ("diameter.finetuned", 1e9, "expected 1 to 10,000 pixels"),
        ("prepare.cell_diameter", 10**400, "a valid number"),
        ("eval.seed", 10**400, "less than"),
        ("class_name", "", "at least 1 character"),
        ("seed", -1, "greater than or equal to 0"),
        ("save_every", 0, "greater than or equal to 1"),
    ],
)
def test_a_wrong_value_is_one_clear_error(write, name, value, message):
    path = write({name: value})
    with pytest.raises(InputError, match=message) as error:
        load_params(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("choice", [{"keep": "ap50"}, {"keep": "last", "patience": 3}])
def test_validation_fields_that_are_trained_on_choose_no_weights(choice):
    with pytest.raises(InputError, match="give keep: last"):
        validate(TrainParams, {"all_fields": True, **choice}, "x.yaml")


def test_all_faults_are_reported_at_once():
    with pytest.raises(InputError, match="2 faults") as error:
        validate(TrainParams, {"n_epochs": 0, "epochs": 1}, "x.yaml")
    assert "n_epochs" in str(error.value) and "epochs: no such" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", "is not valid YAML in UTF-8: line 1: expected the node content"),
        ("- 1", "holds list, expected names with values"),
        ("''", "holds str, expected names with values"),
        ("a: 1\nseed: 0\nseed: 1\n", r'line 3: found duplicate key "seed" with value "1"'),
        ("train: {a: 1, a: 1}", r'line 1: found duplicate key "a"'),
        ("a: \xe9", "unexpected end of data"),
        ("a: !!python/object:os.system 1", "line 1: could not determine a constructor"),
        ("[" * 9999, "maximum recursion depth"),
        ("a: 2020-13-45", r"month must be in 1\.\.12"),
        (f"a: {'9' * 5000}", "Exceeds the limit"),
    ],
)
def test_a_file_that_is_not_a_params_yaml_is_named(tmp_path, text, message):
    (tmp_path / "params.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=rf"params\.yaml.*{message}") as error:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(error.value)


def test_rate_epochs_batches_channels_and_splits_of_the_scripts_are_the_papers():
    from cellular.preparing.params import PrepareParams

    recipe = TrainParams()
    assert (recipe.n_epochs, recipe.learning_rate, recipe.weight_decay) == (500, 0.2, 1e-5)
    assert (recipe.batch_size, recipe.use_sgd, recipe.rescale) == (8, True, True)
    assert (recipe.channels, recipe.crop_size, recipe.schedule) == ([0, 0], 224, "cellpose")
    splits = PrepareParams()
    assert (splits.val_pattern, splits.test_pattern) == ("ST_I06", "ST_C03")
    assert splits.formats == ["png"]


def test_check_params_accepts_the_committed_parameters(check):
    code, out, err = check()
    assert (code, err) == (0, "") and out.endswith("every parameter has a valid value\n")


def test_check_params_names_a_wrong_value_in_one_line(check):
    code, _, err = check(train__n_epochs="many")
    assert code == 2 and err.count("\n") == 1
    assert err.startswith("error: ") and "train.n_epochs" in err and "found 'many'" in err


def test_check_params_names_every_wrong_value(check):
    code, _, err = check(seed=-1, prepare__formats=["jpg", "bmp"], eval__overlay=3)
    assert code == 2 and "params.yaml: 4 faults\n" in err
    assert "prepare.formats: Input should be 'png' or 'tif' (found 'jpg')" in err
    assert "prepare.formats: Input should be 'png' or 'tif' (found 'bmp')" in err
    assert "seed: " in err and "eval.overlay: no such parameter" in err


@pytest.mark.parametrize("name", ["dead cells", "Unidentified", "fed+unfed", "2", "Zellen, große"])
def test_class_names_with_spaces_and_other_signs_are_accepted(check, name):
    assert check(class_name=name)[0] == 0


@pytest.mark.parametrize("parameter", ["dataset", "class_name"])
@pytest.mark.parametrize(
    "name",
    ['a"b', "it's", "$HOME", "a`ls`", "a/b", "a\\b", "-all", " all", "all\n", "a\nb"],
)
def test_names_that_the_shell_could_misread_are_refused(check, parameter, name):
    code, _, err = check(**{parameter: name})
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert f"{parameter}: a name is expected that does not begin with a dash or a space" in err
    assert "has no quotes, backticks, $, slashes or line breaks" in err
    assert f"(found {name!r})" in err


def test_check_params_says_that_a_file_is_missing(run_script, tmp_path):
    code, out, err = run_script("check_params", tmp_path / "params.yaml")
    assert (code, out) == (2, "") and "params.yaml does not exist" in err
