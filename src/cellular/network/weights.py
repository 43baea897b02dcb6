"""Weights: state dicts of Cellpose's network (CPnet), checked before anything uses them.

Cellpose itself loads with `strict=False`, and downloads cyto3 if the file does not exist. Here a
file is a whole CPnet state dict, or an error names it and what is wrong with it.
"""

import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from cellpose.resnet_torch import CPnet

from cellular.base.errors import InputError
from cellular.base.files import whole
from cellular.base.params import NETWORK_DIAMETER

LAYERS = [2, 32, 64, 128, 256]  # channels of the input, then of the four levels of the U-Net
OUTPUTS = 3  # flow in y, flow in x, cell probability
DIAMETERS = ("diam_mean", "diam_labels")

State = dict[str, torch.Tensor]


def new_network(diameter: float = NETWORK_DIAMETER) -> CPnet:
    """Return a CPnet with random weights, for cells of `diameter` pixels.

    The tensor layout of MKL-DNN is off, since it has no gradients.
    """
    return CPnet(LAYERS.copy(), OUTPUTS, sz=3, mkldnn=False, max_pool=True, diam_mean=diameter)


def random_state(seed: int) -> State:
    """Return the state dict of a network with random weights that depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return new_network().state_dict()


def unpickle(content: bytes, name: object) -> State:
    """Return the tensors of a weights file. Only tensors are unpickled: no code in it is run.

    Raises
    ------
    InputError
        If the content is not a weights file, is cut short, or holds anything but named tensors.
    """
    remedy = "use a file that Cellpose saved"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickles not written by PyTorch
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{name}: not weights: something in it is no tensor, and is not run; {remedy}"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise InputError(f"{name}: not weights, or cut short ({reason}); {remedy}") from None
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise InputError(
            f"{name}: expected a state dict (named tensors), found {type(state).__name__}; {remedy}"
        )
    return dict(state)


def from_scellseg(state: State) -> State:
    """Return Scellseg's weights under CPnet's names; the tensors are the same."""
    renamed = {}
    for key, value in state.items():
        for theirs, ours in (
            ("extractor.", ""),
            ("tasker.base_bn.", "output.0."),
            ("tasker.base_conv.", "output.2."),
        ):
            if key.startswith(theirs):
                key = ours + key.removeprefix(theirs)
                break
        renamed[key] = value
    return renamed


def check(state: State, name: object) -> State:
    """Return `state` if it is a whole CPnet state dict, with every tensor of the right shape.

    Raises
    ------
    InputError
        It names the first tensors that are missing, unknown, of another shape, or not finite.
    """
    expected = {key: tuple(value.shape) for key, value in new_network().state_dict().items()}
    faults = [f"{key} is missing" for key in expected if key not in state]
    faults += [f"{key} is unknown" for key in state if key not in expected]
    faults += [
        f"{key} has shape {tuple(state[key].shape)}, expected {shape}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    faults += [f"{key} is not finite" for key in state if not torch.isfinite(state[key]).all()]
    if faults:
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(
            f"{name}: not the weights of Cellpose's network: {'; '.join(faults[:3])}{more}; use "
            "weights of Cellpose 1 to 3 with two channels"
        )
    return state


def with_diameters(state: State, diameter: float) -> State:
    """Return `state` with the diameters, in pixels, that older files lack."""
    return {key: torch.tensor([diameter]) for key in DIAMETERS} | state


def load(path: Path, diameter: float = NETWORK_DIAMETER) -> State:
    """Read and check a weights file; one without diameters gets `diameter`, in pixels."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    return check(with_diameters(unpickle(path.read_bytes(), path), diameter), path)


def save(state: State, path: Path) -> None:
    """Write a state dict as Cellpose does. The same tensors always give the same bytes."""
    # In memory first: given a path, PyTorch writes the name of the file into the file, and its
    # error for a full disk is unclear.
    content = io.BytesIO()
    # Contiguous, since the layout of a tensor in memory would be saved too.
    torch.save({key: value.detach().cpu().contiguous() for key, value in state.items()}, content)
    with whole(path) as staging:
        staging.write_bytes(content.getbuffer())


def network(state: State) -> CPnet:
    """Return a CPnet with these weights."""
    net = new_network()
    net.load_state_dict(state)
    return net
