"""The whole of params.yaml, put together from the parameters of the stages."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from cellular.base.params import Channels, Int, Section, Text, read_params, validate
from cellular.evaluating.params import ANNOTATED, EvalParams, ModelDiameter
from cellular.fetching.params import DataParams
from cellular.fetching.sources import catalogue
from cellular.measuring.params import MeasureParams
from cellular.preparing.params import PrepareParams
from cellular.training.params import SavingParams, TrainParams


def _plain(name: str) -> str:
    # The name is part of commands in dvc.yaml, where the shell gives these signs a meaning.
    if not re.fullmatch(r"""(?![\s-])[^"'`$/\\\n]+""", name):
        raise ValueError(
            "a name is expected that does not begin with a dash or a space, and has no quotes, "
            "backticks, $, slashes or line breaks"
        )
    return name


def _with_masks(dataset: str) -> str:
    source = catalogue().datasets.get(dataset)
    if source and source.how == "boxes":
        raise ValueError(
            f"{dataset} has boxes and no masks, so nothing can be trained on it; fetch it with "
            f"src/fetch_data.py --dataset {dataset}, and score models on it with src/eval.py"
        )
    return dataset


Name = Annotated[Text, AfterValidator(_plain)]


class Diameters(Section):
    """The cell diameter in pixels with which each model is scored.

    annotated: that of the cells of the training fields; None: that of the model's weights.
    """

    pretrained: ModelDiameter = ANNOTATED
    finetuned: ModelDiameter = None


class PretrainedChannels(Section):
    """The channels that the pretrained model is given, by Cellpose's numbers."""

    pretrained: Channels = Field([0, 0])


class Params(SavingParams):
    """The whole of params.yaml."""

    dataset: Annotated[Name, AfterValidator(_with_masks)]
    class_name: Name = "all"
    seed: Int = Field(0, ge=0, lt=2**31)
    data: DataParams = DataParams()
    prepare: PrepareParams
    train: TrainParams
    diameter: Diameters = Diameters()
    channels: PretrainedChannels = PretrainedChannels()
    eval: EvalParams
    measure: MeasureParams = MeasureParams()


def load_params(path: Path) -> Params:
    """Read and check a whole params.yaml; `InputError` names every fault in it."""
    return validate(Params, read_params(path), str(path))
