"""A model's folder: opened with its settings, refused if something in it is not right."""

import json

import pytest

from cellular.base.errors import InputError
from cellular.base.files import digest
from cellular.models.folders import open_model

RECORD = {
    "channels": [2, 1],
    "normalisation": {"percentiles": [1, 99]},
    "diameter": 60.0,
    "network_diameter": 40.0,
    "flow_threshold": 0.5,
    "cellprob_threshold": -1.0,
    "resample": False,
    "augment": True,
    "cellpose": "3.1.1.3",
    "run": {"dataset": "sample"},
}


@pytest.fixture
def folder(tmp_path):
    """A model's folder; what its weights hold is not looked at."""
    (tmp_path / "some_weights").write_bytes(b"weights")
    write(tmp_path)
    return tmp_path


def write(folder, **changes):
    weights = {"file": "some_weights", "sha256": digest(folder / "some_weights")}
    content = {"weights": weights} | RECORD | changes
    (folder / "settings.json").write_text(json.dumps(content))


def test_a_folder_says_how_its_weights_are_used(folder, caplog):
    model = open_model(folder)
    assert model.weights == folder / "some_weights"
    assert model.defaults == {
        "channels": [2, 1],
        "diameter": 60.0,
        "flow_threshold": 0.5,
        "cellprob_threshold": -1.0,
        "resample": False,
        "augment": True,
    }
    assert not caplog.records


def test_weights_alone_get_a_warning_unless_their_channels_are_given(folder, caplog):
    model = open_model(folder / "some_weights", given=["channels", "images"])
    assert model.record is None and model.defaults == {} and not caplog.records
    open_model(folder / "some_weights", given=["images"])
    assert "without settings.json, so they are used in grey" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "settings.json").unlink(), "expected a folder with settings"),
        (lambda folder: (folder / "some_weights").unlink(), "some_weights: missing"),
        (lambda folder: (folder / "some_weights").write_bytes(b"x"), "not the weights that"),
        (lambda folder: (folder / "settings.json").write_text('{"a": '), "not valid YAML"),
        (lambda folder: write(folder, chanels=[0, 0]), "chanels: no such parameter; known here"),
        (lambda folder: write(folder, diameter="wide"), "diameter: .*valid number"),
        (lambda folder: write(folder, weights={"file": "../x", "sha256": "0" * 64}), "file"),
    ],
)
def test_a_folder_in_which_something_is_wrong_is_an_error(folder, change, message):
    change(folder)
    with pytest.raises(InputError, match=message):
        open_model(folder)


def test_what_does_not_exist_is_an_error_and_never_another_model(tmp_path):
    with pytest.raises(InputError, match=r"no model there.*make repro"):
        open_model(tmp_path / "cyto3")
