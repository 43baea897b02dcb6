"""Steps of training on the CPU, 8 crops of 224 px, against `cellpose.train.train_seg`."""

import torch

from benchmarks import Result
from benchmarks._training import against_train_seg


def run(small: bool = False) -> Result:
    """Train on the same 32 crops in turns."""
    crops, rounds = (2, 1) if small else (32, 3)
    return against_train_seg(torch.device("cpu"), crops, rounds, small)
