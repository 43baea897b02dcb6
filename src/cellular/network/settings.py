"""Settings of segmentation, apart from PyTorch, which takes seconds to import."""

from collections.abc import Sequence
from dataclasses import dataclass

from cellular.base.params import Precision


@dataclass(frozen=True)
class Settings:
    """How a model finds cells; `cellular.evaluating.params` describes each setting."""

    channels: Sequence[int] = (0, 0)
    diameter: float | None = None
    resample: bool = False
    flow_threshold: float = 0.4
    cellprob_threshold: float = 0.0
    augment: bool = False
    batch_size: int | None = None
    precision: Precision = "auto"
