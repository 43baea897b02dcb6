"""Parameters of segmentation: how the network is run, and how its output becomes cells."""

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from cellular.base.params import Channels, Float, Int, NoneOr, Precision, Section
from cellular.network.settings import Settings

Diameter = Annotated[Float, Field(ge=1, le=10_000)]


class Inference(Section):
    """How the network is run, and how its output becomes cells."""

    section: ClassVar[str | None] = "eval"

    resample: bool = Settings.resample
    """true: trace cells at full resolution with Cellpose's own eval, in 32 bits, which is about
    twenty times slower; on the sample AP@0.5 and AP@0.75 differ by 0.005. false: trace cells at the
    network's scale, and enlarge the label map"""
    flow_threshold: Float = Field(Settings.flow_threshold, ge=0)
    """largest flow error of a cell that is kept; 0 keeps all cells"""
    cellprob_threshold: Float = Field(Settings.cellprob_threshold, ge=-6, le=6)
    """pixels above this value belong to cells; a lower value finds more and larger cells"""
    augment: bool = Settings.augment
    """average over tiles that overlap by half and are mirrored in turn, as Cellpose's augment does;
    this takes more than twice as long, and gives other scores, by 0.01 or so"""
    batch_size: NoneOr[Annotated[Int, Field(ge=1)]] = Settings.batch_size
    """number of tiles of an image in a batch; none: 2 on a CPU (more do not fit into its cache), 16
    on a GPU"""
    precision: Precision = Settings.precision
    """number format in which the network computes. 32: as Cellpose; tf32, fp16: on a GPU only;
    auto: bf16 where the device has instructions for it, otherwise 32"""

    @model_validator(mode="after")
    def _cellpose_is_32_bits(self) -> "Inference":
        if self.resample and self.precision not in ("auto", "32"):
            raise ValueError(
                "resample: true is Cellpose's own eval, in 32 bits; precision "
                f"{self.precision} needs resample: false"
            )
        return self


class ModelParams(Inference):
    """How one model segments images."""

    channels: Channels = Field(list(Settings.channels))
    """channels that the model was trained on, as Cellpose numbers them: the one to segment and the
    nuclear one; 0 grey (nuclear: none), 1 red, 2 green, 3 blue. A model's own settings come before
    the default, here and below"""
    diameter: NoneOr[Diameter] = Settings.diameter
    """cell diameter in pixels; none: the diameter stored in the weights"""

    def settings(self) -> Settings:
        """Return the settings with which `cellular.network` finds cells."""
        return Settings(**self.model_dump())
