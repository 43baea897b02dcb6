"""Parameters of evaluation: how cells are found, and what is scored and drawn."""

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, ValidationError, WrapValidator, model_validator
from pydantic import ValidatorFunctionWrapHandler as Handler

from cellular.base.params import (
    UNIT_HELP,
    Channels,
    Float,
    Int,
    NoneOr,
    Precision,
    Section,
    Unit,
)
from cellular.network.settings import Settings

ANNOTATED: Final = "annotated"


def _or_annotated(value: Any, diameter: Handler) -> Any:
    try:
        return diameter(value)
    except ValidationError:
        raise ValueError(f"expected 1 to 10,000 pixels, {ANNOTATED}, or none") from None


ModelDiameter = Annotated[
    NoneOr[Annotated[Float, Field(ge=1, le=10_000)] | Literal["annotated"]],
    WrapValidator(_or_annotated),
]


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
    """number of tiles in a batch, from one field or several; none: 2 on a CPU (more do not fit into
    its cache), 16 on a GPU"""
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


class SegmentParams(Inference):
    """How one model segments images."""

    channels: Channels = Field(list(Settings.channels))
    """channels that the model was trained on, as Cellpose numbers them: the one to segment and the
    nuclear one; 0 grey (nuclear: none), 1 red, 2 green, 3 blue"""
    diameter: ModelDiameter = Settings.diameter
    """cell diameter in pixels; annotated: that of the annotated cells, the mean over fields of the
    median; none: the diameter stored in the weights"""

    def settings(self, annotated: float | None = None) -> Settings:
        """Return the settings with which `cellular.network` finds cells.

        `annotated` is the diameter of the annotated cells in pixels.
        """
        diameter = annotated if self.diameter == ANNOTATED else self.diameter
        return Settings(**self.model_dump(exclude={"diameter"}), diameter=diameter)


class Scoring(Section):
    """What is scored, and what is drawn."""

    section: ClassVar[str | None] = "eval"

    excluded: Literal["background", "ignore"] = "background"
    """how cells of excluded classes (Unidentified) count. background: a prediction there is a false
    positive, as in the paper; ignore: their pixels do not count"""
    unit: Unit = Field("site", description=UNIT_HELP)
    overlays: Int = Field(2, ge=1)
    """number of fields of each split that are drawn besides a typical one (of median AP@0.5), the
    worst first"""
    worst_cells: Int = Field(20, ge=0)
    """number of cells of each split on one sheet of crops, the worst first"""


class EvalParams(Inference, Scoring):
    """The whole section `eval` of params.yaml."""

    seed: Int = Field(0, ge=0, lt=2**31)
    """decides the resamples of a single field's cells, and the signs of the test with more than 13
    sites or wells"""
