"""Accelerators: device, precision and processes of a training run, through Lightning Fabric."""

import logging
import os

import torch
from lightning_fabric import Fabric

from cellular.errors import InputError

FABRIC_PRECISION = {"32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


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
    """Tell whether bf16 is faster on the device: not where it is only emulated."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        return bool(has.get("amx_bf16") or has.get("avx512_bf16"))
    return False


def launch(device: torch.device, precision: str = "auto") -> Fabric:
    """Return Fabric for this process, and for its fellows if there are any.

    Started by `fabric run` or `torchrun`, this process is one of several on one or more machines.
    """
    chosen = choose_precision(device, precision)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True  # the same run twice, the same bytes
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.matmul.allow_tf32 = chosen == "tf32"
        torch.backends.cudnn.allow_tf32 = chosen == "tf32"
    world = int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    devices = local
    if world == 1 and device.type == "cuda":
        devices = [device.index or 0]
    fabric = Fabric(
        accelerator=device.type,
        devices=devices,
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        precision=FABRIC_PRECISION[chosen],
    )
    if "LT_CLI_USED" not in os.environ:  # `fabric run` has launched the processes already
        fabric.launch()
    if not fabric.is_global_zero:
        logging.getLogger(__package__).setLevel(logging.WARNING)  # one process tells for all
    return fabric
