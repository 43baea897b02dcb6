"""src/train.py for several processes on CPUs. PyTorch itself synchronises them on GPUs only.

The folders src and tests have to be in PYTHONPATH.
"""

import torch

import train
from cellular.base import cli
from cellular.training import accelerators
from helpers.batchnorm import synchronised

if __name__ == "__main__":
    accelerators.SYNCHRONISED.append("cpu")
    torch.nn.SyncBatchNorm.convert_sync_batchnorm = synchronised
    cli.run(train.main)
