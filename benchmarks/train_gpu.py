"""Steps of training on an NVIDIA GPU, 8 crops of 224 px, against `cellpose.train.train_seg`."""

import torch

from benchmarks import Result
from benchmarks._training import against_train_seg


def run() -> Result | None:
    """Train on the same 800 crops in turns; None where there is no GPU."""
    if not torch.cuda.is_available():
        return None
    return against_train_seg(torch.device("cuda"), crops=800, rounds=5)
