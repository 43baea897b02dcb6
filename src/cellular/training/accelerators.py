"""Accelerators: device, precision and processes of a training run, through Lightning Fabric."""

import logging
import os
from typing import Literal

import torch
from lightning_fabric import Fabric

from cellular.base.devices import choose_precision
from cellular.base.errors import InputError

SYNCHRONISED = ["cuda"]  # devices on which PyTorch can synchronise batch normalisation
FABRIC_PRECISION: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "32": "32-true",
    "tf32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


def launch(device: torch.device, precision: str = "auto") -> Fabric:
    """Return Fabric for this process, which under `fabric run` and `torchrun` is one of several.

    Raises
    ------
    InputError
        If the device does not have the precision, or cannot be used by several processes.
    """
    chosen = choose_precision(device, precision)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True  # the same run twice, the same bytes
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.matmul.allow_tf32 = chosen == "tf32"
        torch.backends.cudnn.allow_tf32 = chosen == "tf32"
    world = int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if world > 1 and device.type not in SYNCHRONISED:
        raise InputError(
            f"{world} processes on {device.type}: several processes need a GPU each, because "
            "PyTorch synchronises batch normalisation on GPUs only; start one process"
        )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # our log says the same
    fabric = Fabric(
        accelerator=device.type,
        devices=[device.index or 0] if world == 1 and device.type == "cuda" else local,
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        precision=FABRIC_PRECISION[chosen],
    )
    if "LT_CLI_USED" not in os.environ:  # `fabric run` has launched the processes already
        fabric.launch()
    if not fabric.is_global_zero:
        logging.getLogger("cellular").setLevel(logging.WARNING)  # one process logs for all
    return fabric
