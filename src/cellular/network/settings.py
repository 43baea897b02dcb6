"""Settings: how a model finds cells in images."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How a model finds cells; `cellular.evaluating.params` says what each setting does."""

    channels: Sequence[int] = (0, 0)
    gamma: float = 1.0
    diameter: float | None = None
    resample: bool = False
    flow_threshold: float = 0.4
    cellprob_threshold: float = 0.0
    augment: bool = False
    batch_size: int | None = None
    precision: str = "auto"
