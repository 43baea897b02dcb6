"""Provenance: on what a result was computed, as train.json and every eval.json record it."""

import platform
from importlib.metadata import version

import torch

# Those that decide the numbers of a result.
LIBRARIES = ("cellpose", "numpy", "opencv-python-headless", "torch")


def computed_on(device: torch.device, precision: str) -> dict:
    """Return the device and its name, the number format, the threads, and versions of libraries.

    Parameters
    ----------
    precision : the number format that was used: 32, tf32, bf16 or fp16, never auto
    """
    return {
        "device": device.type,
        "device_name": _name(device),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the libraries that decide the numbers of a result."""
    return {library: version(library) for library in LIBRARIES}


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = torch.cpu.get_capabilities().get("cpu_name") if device.type == "cpu" else None
    return str(name or platform.processor() or platform.machine())
