"""The committed numbers are those that the committed parameters give: the recipe, run for real."""

import json

import pytest
from cellpose.metrics import average_precision
from cellpose.models import CellposeModel
from helpers.annotations import ROOT
from helpers.repository import Repository

from cellular.base.params import flat
from cellular.imaging.fields import check_pairs, read_pair
from check_reproduction import compare

# Minutes where the processor computes in bf16, a quarter of an hour else.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A clone of the last commit, in which the default recipe was run."""
    repository = Repository(tmp_path_factory.mktemp("clone") / "repository")
    repository.git("clone", "-q", str(ROOT), str(repository.folder), cwd=ROOT)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)  # as a user would run it
        ran = repository.repro("compare")
    assert {"fetch_data", "prepare", "train", "evaluate@finetuned", "measure"} <= ran
    return repository


def test_the_default_recipe_gives_the_committed_numbers(repository):
    """`dvc commit` would record any numbers as the result of any parameters; this tells."""
    committed = json.loads(repository.git("show", "HEAD:metrics/summary.json"))
    here = repository.json("metrics/summary.json")
    tolerances = json.loads((repository.folder / "metrics/tolerances.json").read_text())
    numbers = compare(committed, here, tolerances["tolerances"])
    assert set(numbers.index) == set(dict(flat(committed)))
    assert not numbers["fault"].any(), numbers.to_string()


def test_its_weights_have_the_same_ap50_in_plain_cellpose_with_its_defaults(repository):
    (pair,) = check_pairs(repository.folder / "data/prepared/all/test")
    image, truth = read_pair(pair)
    weights = repository.folder / "models/finetuned/cellular_finetuned"
    plain = CellposeModel(pretrained_model=str(weights), gpu=False)
    masks = plain.eval(image, diameter=None, channels=[0, 0])[0]
    theirs = average_precision(truth, masks, threshold=[0.5])[0][0]
    ours = repository.json("metrics/finetuned/test_eval.json")["objects"]["average_precision"]
    assert ours["0.5"] > 0.3 and theirs == pytest.approx(ours["0.5"], abs=0.01)
