"""Weights are whole, finite tensors of Cellpose's network, or refused; no code in them is run."""

import os
import pickle

import pytest
import torch
from cellpose.models import CellposeModel

from cellular.base.errors import InputError
from cellular.fetching.pretrained import fetch_weights, pretrained_state
from cellular.fetching.sources import catalogue
from cellular.network import weights


@pytest.fixture(scope="module")
def state():
    return weights.random_state(0)


def test_the_real_weights_open_in_cellpose(pretrained):
    model = CellposeModel(pretrained_model=str(pretrained), device=torch.device("cpu"))
    loaded = weights.load(pretrained)
    assert len(loaded) == 313
    for key, value in model.net.state_dict().items():
        assert torch.equal(value, loaded[key])
    assert float(model.diam_labels) == 30


def test_the_same_tensors_are_the_same_bytes_under_any_name(state, tmp_path):
    weights.save(state, tmp_path / "a")
    weights.save(state, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_random_weights_depend_on_the_seed_alone(state):
    torch.rand(3)
    again, other = weights.random_state(0), weights.random_state(1)
    key = "output.2.weight"
    assert torch.equal(state[key], again[key]) and not torch.equal(state[key], other[key])


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def no_weights(path, state):
    path.write_text("<html>")
    return "not weights"


def empty(path, state):
    path.write_bytes(b"")
    return "not weights, or cut short"


def cut_short(path, state):
    weights.save(state, path)
    path.write_bytes(path.read_bytes()[:-1000])
    return "cut short"


def other_objects(path, state):
    torch.save([1, 2], path)
    return r"expected a state dict \(named tensors\), found list"


def missing(path, state):
    torch.save({key: value for key, value in state.items() if "output.2" not in key}, path)
    return r"output\.2\.weight is missing; output\.2\.bias is missing"


def unknown(path, state):
    torch.save(state | {"W2": torch.zeros(1)}, path)
    return "W2 is unknown"


def another_shape(path, state):
    torch.save(state | {"output.2.bias": torch.zeros(7)}, path)
    return r"output\.2\.bias has shape \(7,\), expected \(3,\)"


def not_a_number(path, state):
    torch.save(state | {"output.2.bias": torch.full((3,), torch.nan)}, path)
    return r"output\.2\.bias is not finite"


@pytest.mark.parametrize(
    "spoil",
    [no_weights, empty, cut_short, other_objects, missing, unknown, another_shape, not_a_number],
)
def test_a_file_that_is_not_weights_is_refused_with_the_reason(state, tmp_path, spoil):
    message = spoil(tmp_path / "spoilt", state)
    with pytest.raises(InputError, match=rf"spoilt: .*{message}"):
        weights.load(tmp_path / "spoilt")


def test_code_in_a_pickle_is_not_run(tmp_path):
    mark = tmp_path / "was_run"
    (tmp_path / "plain").write_bytes(pickle.dumps(Evil(mark)))
    torch.save({"x": Evil(mark)}, tmp_path / "zipped")
    for name in ("plain", "zipped"):
        with pytest.raises(InputError, match=f"{name}: .*not run"):
            weights.load(tmp_path / name)
    assert not mark.exists()


def test_a_model_type_that_does_not_exist_is_an_error_never_another_model(run_script, tmp_path):
    code, _, err = run_script(
        "fetch_weights", "--model_type", "cyto9", "--output", tmp_path / "weights"
    )
    assert code == 2 and "'cyto9' is neither a file nor a known name" in err
    assert "known: cyto, cyto2, cyto3, fine-tuned-cyto, " in err
    assert not list(tmp_path.iterdir())


def test_weights_at_a_path_are_copied(state, tmp_path):
    weights.save(state, tmp_path / "mine")
    fetch_weights(str(tmp_path / "mine"), tmp_path / "copy")
    assert (tmp_path / "mine").read_bytes() == (tmp_path / "copy").read_bytes()


def test_diameters_are_added_to_older_files_without_them(state, tmp_path):
    older = {key: value for key, value in state.items() if key not in weights.DIAMETERS}
    torch.save(older, tmp_path / "older", _use_new_zipfile_serialization=False)
    assert float(weights.load(tmp_path / "older", 17.0)["diam_labels"]) == 17


def test_the_catalogue_has_all_models_with_licence_and_citation():
    known = catalogue()
    published = {"cyto", "cyto2", "cyto3", "nuclei", "fine-tuned-cyto", "fine-tuned-cyto2"}
    assert set(known.weights) == {"scellseg"} | published
    for source in known.files.values():
        assert source.licence and source.citation and source.what


def test_scratch_is_a_whole_network():
    assert weights.check(pretrained_state("scratch", 3), "scratch")
