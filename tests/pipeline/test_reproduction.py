"""The committed numbers are those that the committed parameters give: the recipe, run for real."""

import json

import pytest
from helpers.annotations import ROOT
from helpers.repository import Repository

from cellular.base.params import flat
from check_reproduction import compare

pytestmark = pytest.mark.slow


@pytest.mark.timeout(
    3600
)  # minutes where the processor computes in bf16, a quarter of an hour else
def test_the_default_recipe_gives_the_committed_numbers(tmp_path, monkeypatch):
    """`dvc commit` would record any numbers as the result of any parameters; this tells."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # as a user would run it
    repository = Repository(tmp_path / "repository")
    repository.git("clone", "-q", str(ROOT), str(repository.folder), cwd=ROOT)
    committed = repository.json("metrics/summary.json")
    del committed["pretrained"]  # of another stage, which trains nothing
    ran = repository.repro("evaluate@finetuned")
    assert {"fetch_data", "prepare", "train", "evaluate@finetuned"} <= ran
    here = repository.json("metrics/summary.json")
    here["best_valid_loss"] = repository.json("metrics/train.json")["best_valid_loss"]
    tolerances = json.loads((repository.folder / "metrics/tolerances.json").read_text())
    numbers = compare(committed, here, tolerances["tolerances"])
    assert set(numbers.index) == set(dict(flat(committed)))
    assert not numbers["fault"].any(), numbers.to_string()
