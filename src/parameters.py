"""The whole of params.yaml, put together from the parameters of the stages."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from cellular.base.params import Diameter, Int, Section, Text, read_params, validate
from cellular.evaluating.params import EvalParams
from cellular.fetching.params import DataParams
from cellular.preparing.params import PrepareParams
from cellular.training.params import SavingParams, TrainParams

# These names stand in the commands of dvc.yaml, where the shell would take some signs as its own.
Word = Annotated[Text, Field(pattern=r"^[^\"'`$\\/\s-][^\"'`$\\/\n]*$")]


class Diameters(Section):
    """The cell diameter with which each model is scored, in pixels; None: that of the weights."""

    pretrained: Diameter = 121.0
    finetuned: Diameter = None


class Params(SavingParams):
    """The whole of params.yaml."""

    dataset: Word
    class_name: Word = "all"
    seed: Int = Field(0, ge=0, lt=2**31)
    data: DataParams = DataParams()
    prepare: PrepareParams
    train: TrainParams
    diameter: Diameters = Diameters()
    eval: EvalParams


def load_params(path: Path) -> Params:
    """Read and check a whole params.yaml; `InputError` names every fault in it."""
    return validate(Params, read_params(path), str(path))
