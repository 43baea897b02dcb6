"""Parameters of evaluating: their defaults, and combinations that are refused."""

import pytest

from cellular.base.errors import InputError
from cellular.base.params import validate
from cellular.evaluating.params import EvalParams, Scoring, SegmentParams
from cellular.network.settings import Settings


def test_defaults_are_those_of_the_settings():
    settings = SegmentParams().settings()
    assert {**vars(settings), "channels": tuple(settings.channels)} == vars(Settings())


def test_the_section_has_every_parameter_but_those_that_depend_on_the_model():
    by_model = {"channels", "diameter"}
    stages = SegmentParams.model_fields.keys() | Scoring.model_fields.keys()
    assert EvalParams.model_fields.keys() - {"seed"} == stages - by_model


@pytest.mark.parametrize("model", [SegmentParams, EvalParams])
def test_cellposes_own_eval_is_in_32_bits(model):
    with pytest.raises(InputError, match="precision bf16 needs resample: false"):
        validate(model, {"resample": True, "precision": "bf16"}, "params.yaml")
    assert validate(model, {"resample": True, "precision": 32}, "x").precision == "32"
