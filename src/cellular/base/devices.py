"""Devices: where the network runs, and in which arithmetic."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cellular.base.errors import InputError
from cellular.base.queues import cores

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of glibc's malloc.h


def available() -> list[str]:
    """Return the kinds of device that PyTorch can use here, the fastest first."""
    kinds = ["cuda"] if torch.cuda.is_available() else []
    kinds += ["mps"] if torch.backends.mps.is_available() else []
    return [*kinds, "cpu"]


def choose(name: str = "auto") -> torch.device:
    """Return the device of that name, or raise `InputError` if this machine does not have it.

    From then on, PyTorch computes in no more threads than there are cores for this process. By
    itself it minds the affinity, but not the quota of a container.
    """
    torch.set_num_threads(min(torch.get_num_threads(), cores()))
    usable = available()
    if name == "auto":
        return torch.device(usable[0])
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(
            f"device {name!r} is unknown; expected auto, cpu, cuda, cuda:<n> or mps"
        ) from None
    if device.type not in usable or (
        device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    ):
        raise InputError(
            f"device {name!r} is not available here; available are: {', '.join(usable)}"
        )
    return device


def choose_precision(device: torch.device, precision: str = "auto") -> str:
    """Return the arithmetic to compute in: 32, tf32, bf16 or fp16.

    Raises
    ------
    InputError
        If the device does not have it.
    """
    if precision == "auto":
        return "bf16" if _computes_in_bf16(device) else "32"
    if precision in ("tf32", "fp16") and device.type == "cpu":
        raise InputError(f"precision {precision} needs a GPU; on the CPU choose 32 or bf16")
    if precision == "tf32" and device.type == "mps":
        raise InputError("precision tf32 needs an NVIDIA GPU; choose 32, bf16 or fp16")
    return precision


def _computes_in_bf16(device: torch.device) -> bool:
    """Return whether the device has instructions for bf16; where it is emulated, it is slow."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        return bool(has.get("amx_bf16") or has.get("avx512_bf16"))
    return False


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep the memory of freed tensors for the next ones, until the block ends.

    Linux's C library gives blocks above 32 MiB back to the system, which clears their pages before
    it hands them out again: on two cores that is a sixth of a training step. Elsewhere this does
    nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        yield
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:  # the values that the library would have come to by itself
        mallopt(M_MMAP_MAX, 65536)
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 64 << 20)


@contextmanager
def tensor_float_32(on: bool) -> Iterator[None]:
    """Allow NVIDIA GPUs to round to 19 bits in products, or forbid it, until the block ends."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = on
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before
