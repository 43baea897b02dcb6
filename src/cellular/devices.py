"""Devices: where the network runs."""

import torch

from cellular.errors import InputError

HELP = "auto (a GPU if there is one), cpu, cuda, cuda:<n> or mps"


def available() -> list[str]:
    """Return the kinds of device that PyTorch can use here, the fastest first."""
    kinds = ["cuda"] if torch.cuda.is_available() else []
    kinds += ["mps"] if torch.backends.mps.is_available() else []
    return [*kinds, "cpu"]


def choose(name: str = "auto") -> torch.device:
    """Return the device of that name, or raise `InputError` if it is not here."""
    usable = available()
    if name == "auto":
        return torch.device(usable[0])
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r} is unknown; expected {HELP}") from None
    if device.type not in usable or (
        device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    ):
        raise InputError(f"device {name!r} is not available here; there is: {', '.join(usable)}")
    return device
