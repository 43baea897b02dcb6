"""Pretrained weights: fetched if necessary, and returned as a complete CPnet state dict."""

from functools import partial
from pathlib import Path

from cellular.base.errors import InputError
from cellular.base.files import check_apart, check_new
from cellular.fetching.archives import read_member
from cellular.fetching.downloads import fetch
from cellular.fetching.remotes import user_path
from cellular.fetching.sources import WeightsSource, catalogue
from cellular.network import weights

SCRATCH = "scratch"


def pretrained_state(model_type: str, seed: int = 0) -> weights.State:
    """Return weights as a complete CPnet state dict.

    Parameters
    ----------
    model_type : a name in the catalogue, `scratch` for random weights, or the path of a weights
        file; a relative path starts at the repository's root
    seed : decides the random weights

    Raises
    ------
    InputError
        If there are no such weights, or they cannot be fetched or read; no others replace them.
    """
    if model_type == SCRATCH:
        return weights.random_state(seed)
    source = catalogue().weights.get(model_type)
    if source is None:
        path = user_path(model_type)
        if not path.is_file():
            known = ", ".join([*sorted(catalogue().weights), SCRATCH])
            raise InputError(
                f"model type {model_type!r} is neither a file nor a known name; there is no file "
                f"{path.resolve()}; names that are known: {known}"
            )
        return weights.load(path)
    opens = partial(_open, source)
    return opens(fetch(source.file, catalogue().files[source.file], opens))


def _open(source: WeightsSource, path: Path) -> weights.State:
    if source.member is None:
        return weights.load(path, source.diameter)
    name = f"{path.name}: {source.member}"
    state = weights.unpickle(read_member(path, source.member, source.sha256), name)
    if source.layout == "scellseg":
        state = weights.from_scellseg(state)
    return weights.check(weights.with_diameters(state, source.diameter), name)


def fetch_weights(model_type: str, output: Path, *, seed: int = 0, force: bool = False) -> float:
    """Write weights (see `pretrained_state`) to `output`, as a file that Cellpose can open.

    Returns
    -------
    float
        The cell diameter stored in them, in pixels.
    """
    known = model_type == SCRATCH or model_type in catalogue().weights
    check_apart([output], [] if known else [user_path(model_type)])
    check_new(Path(output), force=force)
    state = pretrained_state(model_type, seed)
    weights.save(state, Path(output))
    return float(state["diam_labels"])
