"""Experiments: `dvc exp run`, sweeps, comparisons, and what colleagues share."""

import json
import shutil
import time

import pytest
from helpers.repository import DEFAULT, stages_run

pytestmark = pytest.mark.slow
FIELD = "Timepoint_005_220518-ST_C03_s3"
AFTER_TRAINING = {
    *("check_params", "train", "evaluate@finetuned", "measure", "compare", "report"),
    *("card@finetuned", "card@pretrained"),
}


def test_an_experiment_with_another_seed_leaves_the_pretrained_network_alone(repository):
    output = repository.dvc(
        *("exp", "run", "-n", "slow-rate", "-S", "seed=1", "-S", "train.learning_rate=1e-5")
    )
    assert stages_run(output) == AFTER_TRAINING | {"fetch_weights"}
    params = json.loads(repository.dvc("params", "diff", "--json"))["params.yaml"]
    assert params["train.learning_rate"]["old"] == DEFAULT["train"]["learning_rate"]
    assert float(params["train.learning_rate"]["new"]) == 1e-5

    shown = repository.dvc("metrics", "diff").splitlines()
    assert 2 < len(shown) <= 20
    metrics = json.loads(repository.dvc("metrics", "diff", "--json"))
    assert metrics.keys() == {"metrics/summary.json"}
    assert "pretrained.ap50" not in metrics["metrics/summary.json"]
    full = "metrics/finetuned/test_eval.json"
    metrics = json.loads(repository.dvc("metrics", "diff", "--json", "--all", "--targets", full))
    for name in ("objects.panoptic_quality", "groups.size.smallest.recall", "count_error.cells"):
        assert name in metrics[full]
    assert "objects.panoptic_quality" in repository.dvc("metrics", "show", full)
    assert "slow-rate" in repository.dvc("exp", "show", "-A", "--only-changed")
    assert "test.ap50" in repository.dvc(
        *("exp", "show", "--only-changed", "--sort-by", "test.ap50")
    )


def test_two_experiments_are_compared_cell_by_cell(repository):
    out = repository.run("python", "src/compare.py", "--experiments", "HEAD", "slow-rate")
    assert "2 parameters differ.\n" in out
    for shown in ("| train.learning_rate |", "only slow-rate finds", "| AP@0.5 ", "| smallest "):
        assert shown in out, shown
    page = repository.folder / "experiments/HEAD-against-slow-rate/comparison.html"
    assert out.splitlines()[-1] == str(page.relative_to(repository.folder))
    assert page.read_text(encoding="utf-8").count('class="enlarge"') == 2  # a field of each split
    shutil.rmtree(repository.folder / "experiments")


def test_curves_and_pictures_of_two_experiments_stand_side_by_side(repository):
    page = repository.dvc("plots", "diff", "HEAD", "workspace", "-o", "plots")
    assert "index.html" in page
    content = (repository.folder / "plots" / "index.html").read_text()
    for shown in ("train_loss", "valid_loss", "average_precision"):
        assert shown in content
    pictures = [path.name for path in (repository.folder / "plots" / "static").iterdir()]
    for name in (f"test_{FIELD}.png", "test_worst_cells.png"):  # DVC joins folders so
        both = [path for path in pictures if path.endswith(f"finetuned_images_{name}")]
        assert len(both) == 2, name
    assert "index.html" in repository.dvc("plots", "show", "-o", "plots")
    shutil.rmtree(repository.folder / "plots")
    repository.restore()


def test_a_sweep_trains_and_scores_only_what_differs(repository):
    repository.dvc("exp", "run", "--queue", "-S", "train.seed=1", code=255)  # not in this section
    repository.dvc("exp", "run", "--queue", "-S", "train.learning_rate=0.0001,0.002")
    repository.dvc("queue", "start", "-j", "1")
    for _ in range(300):
        if not {"Queued", "Running"} & set(repository.dvc("queue", "status").split()):
            break
        time.sleep(1)
    status = repository.dvc("queue", "status")
    assert status.count("Success") == 2, status
    for line in status.splitlines():
        if "Success" in line:
            output = repository.dvc("queue", "logs", line.split()[0])
            assert stages_run(output) == AFTER_TRAINING
    shown = json.loads(repository.dvc("exp", "show", "--json"))
    experiments = [run for row in shown for run in row.get("experiments") or []]
    assert len(experiments) == 3
    rates = {
        float(run["revs"][0]["data"]["params"]["params.yaml"]["data"]["train"]["learning_rate"])
        for run in experiments
    }
    assert rates == {1e-5, 1e-4, 2e-3}


def test_weights_that_are_only_scored_leave_no_numbers_of_another_model(repository):
    run = ("exp", "run", "-S", "train.model_type=scratch", "evaluate@pretrained")
    # The second time DVC has the results in its run cache already.
    for options in ([], ["--temp"]):
        output = repository.dvc(*run, *options, "-n", f"scored{len(options)}")
        assert "evaluate@pretrained" in stages_run(output)
        shown = json.loads(repository.dvc("exp", "show", "--json"))
        (row,) = [
            run["revs"][0]["data"]["metrics"]["metrics/summary.json"]["data"]
            for commit in shown
            for run in commit.get("experiments") or []
            if run["name"] == f"scored{len(options)}"
        ]
        assert row == {"pretrained": {"ap50": 0.0}}
        repository.restore()
    assert {"test", "valid", "pretrained"} < repository.json("metrics/summary.json").keys()


def test_an_experiment_is_applied_with_its_weights(repository):
    before = (repository.folder / "models/finetuned/cellular_finetuned").read_bytes()
    repository.dvc("exp", "apply", "slow-rate")
    assert (repository.folder / "models/finetuned/cellular_finetuned").read_bytes() != before
    assert "up to date" in repository.dvc("status")
    repository.restore()


def test_a_remote_of_ones_own_serves_colleagues(repository, tmp_path):
    repository.dvc("remote", "add", "--local", "-d", "team", str(tmp_path / "team"))
    repository.dvc("push")
    colleague = tmp_path / "colleague"
    repository.git("clone", "-q", str(repository.folder), str(colleague))
    repository.run(
        "dvc", "remote", "add", "--local", "-d", "team", str(tmp_path / "team"), cwd=colleague
    )
    repository.run("dvc", "pull", cwd=colleague)
    assert "up to date" in repository.run("dvc", "status", cwd=colleague)
    for name in ("cellular_finetuned", "settings.json", "README.md"):
        ours, theirs = (
            folder / "models/finetuned" / name for folder in (repository.folder, colleague)
        )
        assert ours.read_bytes() == theirs.read_bytes()
