"""The pipeline through DVC's own commands, in a copy of the repository."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from cellpose.models import CellposeModel
from helpers.annotations import ROOT
from helpers.repository import Repository, environment

from cellular.base.params import load_params
from cellular.imaging.fields import check_pairs, read_pair
from cellular.imaging.images import read_labels
from cellular.imaging.masks import relabel
from cellular.imaging.matching import count_overlaps, match
from cellular.imaging.tones import correct

SRC = ROOT / "src"
SCRIPTS = {
    "fetch_data": "fetch_data",
    "fetch_weights": "fetch_weights",
    "prepare": "prepare_data",
    "train": "train",
    "evaluate": "eval",
    "compare": "compare",
    "report": "report",
}
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# Small enough for minutes; the paths through the pipeline are the same.
COARSE = 240  # px, twice the cells' diameter: a quarter of the tiles to look at
FIELD = "Timepoint_005_220518-ST_C03_s3"
QUICK = {"n_epochs": 2, "images_per_epoch": 4, "valid_images": 2, "batch_size": 4}


# Imported only where the pipeline never gets: it hands over weights and flows as files.
NOT_IN_THE_PIPELINE = {"train": {"flows", "pretrained"}}


def imports(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cellular"):
            names = {alias.name for alias in node.names}
            found |= names if node.module == "cellular" else {node.module.split(".")[1]}
    return found


@pytest.mark.parametrize("stage", SCRIPTS)
def test_a_stage_depends_on_the_modules_that_it_uses_and_on_no_other(stage):
    found: set[str] = set()
    left_out = NOT_IN_THE_PIPELINE.get(stage, set())
    waiting = imports(SRC / f"{SCRIPTS[stage]}.py") - left_out
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= imports(SRC / "cellular" / f"{module}.py") - found - left_out
    expected = {f"src/{SCRIPTS[stage]}.py"} | {f"src/cellular/{name}.py" for name in found}
    if "sources" in found:
        expected.add("src/cellular/sources.yaml")
    if "report" in found:
        expected.add("src/cellular/report.html")
    described = STAGES[stage].get("do", STAGES[stage])
    assert {path for path in described["deps"] if path.startswith("src/")} == expected


def test_imports_in_the_package_go_in_one_direction():
    graph = {path.stem: imports(path) for path in (SRC / "cellular").glob("*.py")}
    done: set[str] = set()
    while len(done) < len(graph):
        free = {name for name in graph if name not in done and graph[name] <= done}
        assert free, f"circle among {sorted(graph.keys() - done)}"
        done |= free


def test_the_committed_lock_and_metrics_belong_to_code_and_parameters(tmp_path):
    status = json.loads(Repository(tmp_path).dvc("status", "--json"))
    states = [
        (stage, path, state)
        for stage, changes in status.items()
        for change in changes
        for paths in change.values()
        for path, state in (paths.items() if isinstance(paths, dict) else [(paths, "changed")])
    ]
    # A clean clone has no data: that is all that may be missing.
    missing = [path for _, path, state in states if state in ("deleted", "not in cache")]
    stale = [entry for entry in states if entry[1] not in missing]
    assert not stale, "run `dvc repro` and commit dvc.lock, metrics and plots"
    # Of the metrics, what is large is kept by DVC only.
    large = {f"metrics/{model}/images" for model in ("pretrained", "finetuned")}
    large.add("metrics/report.html")
    assert missing and {path for path in missing if path.startswith("metrics/")} == large


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Repository:
    """The pipeline, run from nothing with quick parameters."""
    made = Repository(tmp_path_factory.mktemp("repository"))
    made.change("train", **QUICK)
    diameters = {"pretrained": 121, "finetuned": COARSE}
    made.change("eval", diameter=diameters, augment=False, precision="32")
    made.dvc("repro")
    made.commit("quick")
    return made


@pytest.mark.slow
def test_the_pipeline_makes_what_it_promises(repository):
    report = repository.json("metrics/prepare.json")["splits"]["all"]
    assert {split: n["cells"] for split, n in report.items()} == {
        "train": 599,
        "valid": 199,
        "test": 237,
    }
    for model in ("pretrained", "finetuned"):
        for split in ("test", "valid", "train"):
            result = repository.json(f"metrics/{model}/{split}_eval.json")
            interval = "by_field" if split == "train" else "by_cell"
            assert result.keys() == {
                "background", "cell", "average", "objects", "count_error", "diameter_error",
                "counts", "fields", "groups", f"interval_{interval}",
            }  # fmt: skip
            assert result["groups"].keys() == {"well", "timepoint", "size", "crowding", "border"}
        assert len(list((repository.folder / "metrics" / model / "images").rglob("*.png"))) == 6
    found = repository.json("metrics/pretrained/test_eval.json")["objects"]["average_precision"]
    assert found["0.5"] == pytest.approx(0.36, abs=0.01)
    assert len((repository.folder / "metrics/train.csv").read_text().splitlines()) == 3
    compared = repository.json("metrics/comparison.json")["valid"]["difference_by_cell"]
    precision = compared["objects"]["average_precision"]["0.5"]
    assert precision.keys() == {"pretrained", "finetuned", "difference", "low", "high"}
    assert "than pretrained" in (repository.folder / "metrics/comparison.md").read_text()
    page = repository.folder / "metrics/report.html"
    assert 1e6 < page.stat().st_size < 5e6


@pytest.mark.slow
def test_fine_tuned_weights_give_a_plain_cellpose_model_the_same_masks(repository):
    folder = repository.folder
    plain = CellposeModel(
        pretrained_model=str(folder / "models/finetuned"), device=torch.device("cpu")
    )
    pair = check_pairs(folder / "data/prepared/all/test")[0]
    image = read_pair(pair)[0]
    params = load_params(folder / "params.yaml")
    shown = correct(image, params.prepare.gamma)
    masks = plain.eval(shown, channels=params.train.channels, diameter=COARSE, resample=False)[0]
    ours = read_labels(folder / f"data/predictions/finetuned/pred_{pair.field}.png")
    ious = match(count_overlaps(relabel(masks), relabel(ours))).iou
    assert len(ious) > 10 and np.sum(ious > 0.95) > 0.95 * max(ours.max(), masks.max())


@pytest.mark.slow
def test_a_second_run_does_nothing_and_a_forced_one_the_same_bytes(repository):
    assert "Data and pipelines are up to date" in repository.dvc("repro")
    lock = (repository.folder / "dvc.lock").read_bytes()
    repository.dvc("repro", "-f")
    assert (repository.folder / "dvc.lock").read_bytes() == lock
    assert not repository.git("status", "--porcelain")


@pytest.mark.slow
def test_with_the_data_in_place_nothing_is_connected_to(repository):
    isolated = ("unshare", "-rn")
    if subprocess.run([*isolated, "true"], capture_output=True).returncode:
        pytest.skip("a machine without network needs Linux's user namespaces")
    assert "up to date" in repository.run(*isolated, "dvc", "status")
    assert "up to date" in repository.run(*isolated, "dvc", "repro")
    # Even a stage that is run again takes what was downloaded before.
    assert "fetch_weights" in repository.run(*isolated, "dvc", "repro", "-f", "-s", "fetch_weights")


@pytest.mark.slow
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
    ours, theirs = (folder / "models/finetuned" for folder in (repository.folder, colleague))
    assert ours.read_bytes() == theirs.read_bytes()


def stages_run(told: str) -> set[str]:
    """Return the stages that DVC ran, by what it told."""
    return set(re.findall(r"Running stage '([^']+)'", told))


AFTER_TRAINING = {"train", "evaluate@finetuned", "compare", "report"}


@pytest.mark.slow
def test_experiments_sweeps_and_comparisons(repository):
    told = repository.dvc("exp", "run", "-S", "train.learning_rate=1e-5", "-n", "slow-rate")
    assert stages_run(told) == AFTER_TRAINING
    metrics = json.loads(repository.dvc("metrics", "diff", "--json"))
    assert "metrics/finetuned/test_eval.json" in metrics
    assert "metrics/pretrained/test_eval.json" not in metrics
    names = metrics["metrics/finetuned/test_eval.json"].keys()
    for name in ("objects.panoptic_quality", "groups.size.smallest.recall", "count_error.cells"):
        assert name in names
    assert "metrics/comparison.json" in metrics
    params = json.loads(repository.dvc("params", "diff", "--json"))
    assert params["params.yaml"]["train.learning_rate"]["old"] == 0.0005
    assert float(params["params.yaml"]["train.learning_rate"]["new"]) == 1e-5
    page = repository.dvc("plots", "diff", "HEAD", "workspace", "-o", "plots")
    assert "index.html" in page
    content = (repository.folder / "plots" / "index.html").read_text()
    for shown in ("train_loss", "valid_loss", "average_precision", "predicted_diameter", "f1"):
        assert shown in content
    pictures = [path.name for path in (repository.folder / "plots" / "static").iterdir()]
    for name in (f"test_{FIELD}.png", "test_worst_cells.png"):  # DVC joins folders so
        both = [path for path in pictures if path.endswith(f"finetuned_images_{name}")]
        assert len(both) == 2, name
    shutil.rmtree(repository.folder / "plots")

    repository.git("checkout", "-q", ".")
    repository.dvc("exp", "run", "--queue", "-S", "train.seed=1", code=255)  # not its section
    repository.dvc("exp", "run", "--queue", "-S", "train.learning_rate=0.0001,0.001")
    repository.dvc("queue", "start", "-j", "1")
    for _ in range(300):
        if not {"Queued", "Running"} & set(repository.dvc("queue", "status").split()):
            break
        time.sleep(1)
    status = repository.dvc("queue", "status")
    assert status.count("Success") == 2, status
    for line in status.splitlines():
        if "Success" in line:
            told = repository.dvc("queue", "logs", line.split()[0])
            assert stages_run(told) == AFTER_TRAINING
    shown = json.loads(repository.dvc("exp", "show", "--json"))
    experiments = [run for row in shown for run in row.get("experiments") or []]
    assert len(experiments) == 3
    rates = {
        float(run["revs"][0]["data"]["params"]["params.yaml"]["data"]["train"]["learning_rate"])
        for run in experiments
    }
    assert rates == {1e-5, 1e-4, 1e-3}


@pytest.mark.slow
def test_a_killed_repro_goes_on(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("CELLULAR_CACHE", str(tmp_path))
    repository.git("checkout", "-q", ".")
    repository.change("train", n_epochs=4, save_every=1, images_per_epoch=8)
    process = subprocess.Popen(
        ["dvc", "repro", "train"], cwd=repository.folder, env=environment(), start_new_session=True
    )
    while not list(tmp_path.glob("training/*.state")) and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    repository.dvc("repro", "train")
    assert "going on after epoch" in repository.errors
    assert not list(tmp_path.glob("training/*.state"))
    assert len((repository.folder / "metrics/train.csv").read_text().splitlines()) == 5
    repository.git("checkout", "-q", ".")
    repository.dvc("checkout")


@pytest.mark.slow
def test_a_stage_that_fails_says_why_and_spoils_nothing(repository):
    repository.git("checkout", "-q", ".")
    repository.change("train", learning_rate=0.2)
    repository.dvc("repro", code=255)
    assert "AdamW with learning_rate 0.2 diverges" in repository.errors
    repository.git("checkout", "-q", ".")
    repository.dvc("checkout")
    assert "up to date" in repository.dvc("status")
