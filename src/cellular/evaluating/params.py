"""Parameters of evaluation: the diameter of the cells, and what is scored and drawn."""

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, ValidationError, WrapValidator
from pydantic import ValidatorFunctionWrapHandler as Handler

from cellular.base.params import UNIT_HELP, Int, NoneOr, Section, Unit
from cellular.models.params import Diameter, Inference, ModelParams
from cellular.network.settings import Settings

ANNOTATED: Final = "annotated"
Split = Literal["test", "valid", "train"]


def _or_annotated(value: Any, diameter: Handler) -> Any:
    try:
        return diameter(value)
    except ValidationError:
        raise ValueError(f"expected 1 to 10,000 pixels, {ANNOTATED}, or none") from None


ModelDiameter = Annotated[
    NoneOr[Diameter | Literal["annotated"]],
    WrapValidator(_or_annotated),
]


class SegmentParams(ModelParams):
    """How a model that is scored segments images; its diameter may be that of annotated cells."""

    diameter: ModelDiameter = None  # type: ignore[assignment]
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
    skip: list[Split] = Field([])
    """splits, the folders of that name in --test_dir, that are not scored: a search must not see
    scores of test fields"""
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
