"""Weights: state dicts of Cellpose's network (CPnet), checked before anything uses them.

Cellpose itself loads with `strict=False` and turns a path that does not exist into a download of
cyto3. Here a file either is a whole CPnet state dict or it is refused by name.
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

LAYERS = [2, 32, 64, 128, 256]  # channels in, then the four levels of the U-Net
OUTPUTS = 3  # flow in y, flow in x, cell probability
DIAMETERS = ("diam_mean", "diam_labels")

State = dict[str, torch.Tensor]


def new_network(diameter: float = NETWORK_DIAMETER) -> CPnet:
    """Return a CPnet with random weights, for cells of `diameter` pixels.

    MKL-DNN's own tensor layout is off: it has no gradients.
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
        If the content is no such file, is cut short, or holds anything but named tensors.
    """
    remedy = "give a file that Cellpose saved"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickles that PyTorch did not write
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{name}: no weights: something else than tensors is in it, which is not run; {remedy}"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise InputError(f"{name}: no weights, or cut short ({reason}); {remedy}") from None
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise InputError(
            f"{name}: no state dict (named tensors), but {type(state).__name__}; {remedy}"
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
        Naming the first tensors that are missing, unknown, of another shape, or not finite.
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
            f"{name}: not the weights of Cellpose's network: {'; '.join(faults[:3])}{more}; "
            "weights of Cellpose 1 to 3 with two channels fit"
        )
    return state


def with_diameters(state: State, diameter: float) -> State:
    """Return `state` with the diameters that older files do not have."""
    return {key: torch.tensor([diameter]) for key in DIAMETERS} | state


def load(path: Path, diameter: float = NETWORK_DIAMETER) -> State:
    """Read and check a weights file; one without diameters gets `diameter`, in pixels."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    return check(with_diameters(unpickle(path.read_bytes(), path), diameter), path)


def save(state: State, path: Path) -> None:
    """Write a state dict as Cellpose does. The same tensors are the same bytes."""
    # Through memory: given a path, PyTorch writes the file's name into the file, and of a full disk
    # it says nothing that a user could understand.
    content = io.BytesIO()
    # Contiguous: how a tensor lay in memory would be saved with it.
    torch.save({key: value.detach().cpu().contiguous() for key, value in state.items()}, content)
    with whole(path) as staging:
        staging.write_bytes(content.getbuffer())


def network(state: State) -> CPnet:
    """Return Cellpose's network with these weights."""
    net = new_network()
    net.load_state_dict(state)
    return net
