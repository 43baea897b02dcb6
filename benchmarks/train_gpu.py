"""Steps of training on an NVIDIA GPU, 8 crops of 224 px, against `cellpose.train.train_seg`."""

import torch

from benchmarks import Result
from benchmarks._training import against_train_seg


def run(small: bool = False) -> Result | None:
    """Train on the same 800 crops in turns; None where there is no GPU."""
    if not torch.cuda.is_available():
        return None
    crops, rounds = (8, 1) if small else (800, 5)
    return against_train_seg(torch.device("cuda"), crops, rounds, small)
