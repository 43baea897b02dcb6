"""Weights are whole, finite tensors of Cellpose's network, or refused; no code in them is run."""

import os
import pickle
import zipfile

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


def compressed(path, state):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data/0", bytes(1_000_000))
    return "1,000,000 bytes are packed into"


def of_cellpose_4(path, state):
    blocks = (f"encoder.blocks.{number}.attn.qkv.weight" for number in range(24))
    torch.save({name: torch.zeros(4, 4) for name in blocks}, path)
    return "not the weights of Cellpose's network: .*use weights of Cellpose 1 to 3"


@pytest.mark.parametrize(
    "spoil",
    [
        no_weights,
        empty,
        cut_short,
        compressed,
        other_objects,
        missing,
        unknown,
        another_shape,
        not_a_number,
        of_cellpose_4,
    ],
)
def test_a_file_that_is_not_weights_is_refused_with_the_reason(state, tmp_path, spoil):
    message = spoil(tmp_path / "spoilt", state)
    with pytest.raises(InputError, match=rf"spoilt: .*{message}"):
        weights.load(tmp_path / "spoilt")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(3, dtype=torch.complex64), "numbers of type torch.complex64, expected"),
        (torch.zeros(3, dtype=torch.float8_e4m3fn), "numbers of type torch.float8_e4m3fn"),
        (torch.zeros(3, dtype=torch.int64), "numbers of type torch.int64"),
        (torch.zeros(3).to_sparse(), "is sparse, nested or without values"),
        (torch.empty(3, device="meta"), "is sparse, nested or without values"),
        (torch.zeros(1).expand(10**13), r"has shape \(10000000000000,\), expected \(3,\)"),
        (torch.full((3,), 1e300, dtype=torch.float64), "is not finite"),
    ],
)
def test_a_tensor_of_another_kind_is_refused_before_it_is_used(state, tmp_path, tensor, message):
    torch.save(state | {"output.2.bias": tensor}, tmp_path / "spoilt")
    with pytest.raises(InputError, match=rf"spoilt: .*output\.2\.bias .*{message}"):
        weights.load(tmp_path / "spoilt")


@pytest.mark.parametrize(
    "stored",
    [
        lambda value: value.half(),
        lambda value: value.bfloat16(),
        lambda value: value.double(),
        torch.nn.Parameter,
        lambda value: value.clone().requires_grad_(),
    ],
)
def test_weights_in_other_formats_of_numbers_become_32_bits(state, tmp_path, stored):
    numbers = {key: stored(value) for key, value in state.items() if value.is_floating_point()}
    torch.save(state | numbers, tmp_path / "other")
    loaded = weights.load(tmp_path / "other")
    for key, value in loaded.items():
        assert value.dtype == state[key].dtype and not value.requires_grad
        assert torch.allclose(value, state[key], rtol=0.01, atol=1e-5)
    assert weights.to_bytes(weights.network(loaded).state_dict())


def test_a_file_in_pytorchs_old_format_that_is_cut_anywhere_is_refused(state, tmp_path):
    torch.save(state, tmp_path / "old", _use_new_zipfile_serialization=False)
    content = (tmp_path / "old").read_bytes()
    for length in (0, 1, 10, 100, 150, 500, 20_000, 34_000, len(content) // 2, len(content) - 1):
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(InputError, match="cut: not weights"):
            weights.load(tmp_path / "cut")


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
