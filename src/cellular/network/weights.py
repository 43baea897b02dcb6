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
# The formats in which weights are stored; all are computed with in 32 bits.
ACCEPTED = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
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
        If the content is not a weights file, is cut short, is compressed, or holds anything but
        named tensors.
    """
    remedy = "use a file that Cellpose saved"
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as entries:
                size = sum(entry.file_size for entry in entries.infolist())
            if size > len(
                content
            ):  # PyTorch does not compress, but would unpack gigabytes of zeros
                raise ValueError(f"{size:,} bytes are packed into {len(content):,}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickles not written by PyTorch
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{name}: not weights: something in it is no tensor, and is not run; {remedy}"
        ) from None
    except Exception as error:  # of many kinds: of a file that is cut, PyTorch reads any bytes
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
    """Return `state` with the number formats of CPnet, if it is a whole state dict of CPnet.

    Raises
    ------
    InputError
        It names the first tensors that are missing, unknown, of another shape or kind of number, or
        not finite.
    """
    expected = new_network().state_dict()
    faults = [f"{key} is missing" for key in expected if key not in state]
    faults += [f"{key} is unknown" for key in state if key not in expected]
    faults += [
        f"{key} {fault}"
        for key, tensor in expected.items()
        if key in state and (fault := _fault(state[key], tensor))
    ]
    if not faults:
        # Not before: what the tensors of a damaged file claim to be may take any time and memory.
        state = {key: value.detach().to(expected[key].dtype) for key, value in state.items()}
        faults = [f"{key} is not finite" for key in state if not torch.isfinite(state[key]).all()]
    if faults:
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(
            f"{name}: not the weights of Cellpose's network: {'; '.join(faults[:3])}{more}; use "
            "weights of Cellpose 1 to 3 with two channels"
        )
    return state


def _fault(found: torch.Tensor, expected: torch.Tensor) -> str | None:
    """Return what keeps a tensor from being used as the expected one; nothing is computed of it."""
    if found.layout != torch.strided or found.is_nested or found.is_meta:
        return "is sparse, nested or without values, expected a plain tensor"
    if found.shape != expected.shape:
        return f"has shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    if found.dtype not in (ACCEPTED if expected.is_floating_point() else {expected.dtype}):
        return f"has numbers of type {found.dtype}, expected {expected.dtype}"
    return None


def with_diameters(state: State, diameter: float) -> State:
    """Return `state` with the diameters, in pixels, that older files lack."""
    return {key: torch.tensor([diameter]) for key in DIAMETERS} | state


def load(path: Path, diameter: float = NETWORK_DIAMETER) -> State:
    """Read and check a weights file; one without diameters gets `diameter`, in pixels."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    return check(with_diameters(unpickle(path.read_bytes(), path), diameter), path)


def to_bytes(state: State) -> bytes:
    """Return a state dict as Cellpose writes it. The same tensors always give the same bytes."""
    # In memory: given a path, PyTorch writes the name of the file into the file, and its error for
    # a full disk is unclear.
    content = io.BytesIO()
    # Contiguous, since the layout of a tensor in memory would be saved too.
    torch.save({key: value.detach().cpu().contiguous() for key, value in state.items()}, content)
    return content.getvalue()


def save(state: State, path: Path) -> None:
    """Write a state dict to a file that Cellpose can open."""
    with whole(path) as staging:
        staging.write_bytes(to_bytes(state))


def network(state: State) -> CPnet:
    """Return a CPnet with these weights."""
    net = new_network()
    net.load_state_dict(state)
    return net
