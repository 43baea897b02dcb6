"""`dvc repro` on real cells: what it makes, that it is repeatable, and how it fails."""

import os
import signal
import subprocess
import time

import numpy as np
import pytest
from cellpose.models import CellposeModel
from helpers.repository import QUICK, Repository, environment

from cellular.imaging.fields import check_pairs, read_pair
from cellular.imaging.images import read_labels
from cellular.imaging.masks import relabel
from cellular.imaging.matching import count_overlaps, match

pytestmark = pytest.mark.slow


def test_the_pipeline_makes_what_it_promises(repository):
    for model in ("pretrained", "finetuned"):
        for split in ("test", "valid", "train"):
            result = repository.json(f"metrics/{model}/{split}_eval.json")
            interval = "by_site" if split == "train" else "by_cell"
            assert result.keys() == {
                "background",
                "cell",
                "average",
                "objects",
                "count_error",
                "diameter_error",
                "counts",
                "fields",
                "groups",
                "run",
                "files",
                f"interval_{interval}",
            }
            assert result["groups"].keys() == {"well", "timepoint", "size", "crowding", "border"}
        # a typical and the worst field, which are one in test and valid, and a sheet of cells
        assert len(list((repository.folder / "metrics" / model / "images").rglob("*.png"))) == 7
    assert len((repository.folder / "metrics/train.csv").read_text().splitlines()) == 3
    compared = repository.json("metrics/comparison.json")["valid"]["difference_by_cell"]
    precision = compared["objects"]["average_precision"]["0.5"]
    assert precision.keys() == {"pretrained", "finetuned", "difference", "low", "high"}
    assert "than pretrained" in (repository.folder / "metrics/comparison.md").read_text()
    page = repository.folder / "metrics/report.html"
    assert 5e5 < page.stat().st_size < 5e6


def test_the_summary_holds_the_numbers_of_the_full_results(repository):
    summary = repository.json("metrics/summary.json")
    assert 12 <= sum(len(part) if isinstance(part, dict) else 1 for part in summary.values()) <= 18
    for split in ("test", "valid"):
        objects = repository.json(f"metrics/finetuned/{split}_eval.json")["objects"]
        assert summary[split]["ap50"] == round(objects["average_precision"]["0.5"], 4)
        assert summary[split]["recall"] == round(objects["recall"], 4)
    pretrained = repository.json("metrics/pretrained/test_eval.json")["objects"]
    assert summary["pretrained"] == {"ap50": round(pretrained["average_precision"]["0.5"], 4)}
    best = repository.json("metrics/train.json")["best_valid_loss"]
    assert summary["best_valid_loss"] == round(best, 4)


def test_plain_cellpose_with_its_defaults_finds_the_cells_of_the_pipeline(repository):
    folder = repository.folder
    weights = folder / "models/finetuned/cellular_finetuned"
    plain = CellposeModel(pretrained_model=str(weights), gpu=False)
    pair = check_pairs(folder / "data/prepared/all/test")[0]
    masks = plain.eval(read_pair(pair)[0], diameter=None, channels=[0, 0])[0]
    ours = read_labels(folder / f"data/predictions/finetuned/pred_{pair.field}.png")
    ious = match(count_overlaps(relabel(masks), relabel(ours))).iou
    assert len(ious) > 10 and np.sum(ious > 0.8) > 0.95 * max(ours.max(), masks.max())


def test_a_second_run_does_nothing_and_a_forced_one_gives_the_same_bytes(repository):
    assert "Data and pipelines are up to date" in repository.dvc("repro")
    lock = (repository.folder / "dvc.lock").read_bytes()
    repository.dvc("repro", "-f")
    assert (repository.folder / "dvc.lock").read_bytes() == lock
    assert not repository.git("status", "--porcelain")


def test_with_the_data_in_place_nothing_is_connected_to(repository):
    isolated = ("unshare", "-rn")
    if subprocess.run([*isolated, "true"], capture_output=True).returncode:
        pytest.skip("a machine without network needs Linux's user namespaces")
    assert "up to date" in repository.run(*isolated, "dvc", "status")
    # Even a stage that is run again takes what was downloaded before.
    assert "fetch_weights" in repository.run(*isolated, "dvc", "repro", "-f", "-s", "fetch_weights")


def test_a_wrong_value_stops_the_pipeline_before_anything_is_removed(repository):
    weights = repository.folder / "models/finetuned/cellular_finetuned"
    before = weights.read_bytes()
    repository.change("train", learning_rate=0.2)
    repository.dvc("repro", code=255)
    assert "AdamW with learning_rate 0.2 diverges" in repository.errors
    assert weights.read_bytes() == before
    repository.restore()
    assert "up to date" in repository.dvc("status")


def test_what_decides_no_result_trains_nothing_anew(repository):
    repository.change(None, save_every=2)
    assert repository.repro() == {"check_params"}
    texts = repository.folder / "src/cellular/evaluating/params.py"
    texts.write_text(texts.read_text().replace("number of fields", "Number of fields"))
    assert "up to date" in repository.dvc("status", "train")
    assert "src/cellular/evaluating" in repository.dvc("status", "evaluate@finetuned")
    repository.restore()


def test_names_with_a_space_and_patterns_with_a_dash_work(repository, annotations):
    for number, field in enumerate(("a-train", "b-valid", "c-test")):
        annotations.image(field)
        for cell in range(6):
            mask = np.zeros((96, 96), bool)
            mask[10:22, 4 + 15 * cell : 14 + 15 * cell + number] = True
            annotations.object(field, "dead cells", f"cell_{cell}", mask)
            annotations.object(field, "live", f"cell_{cell}", np.roll(mask, 40, axis=0))
    repository.change("data", path=str(annotations.folder))
    repository.change("prepare", val_pattern="-valid", test_pattern="-test", cell_diameter=None)
    repository.change(None, class_name="dead cells")
    assert "train" in repository.repro("train")
    assert repository.json("metrics/train.json")["cells"] == {"train": 6, "valid": 6}
    repository.change(None, class_name="Basal")
    repository.dvc("repro", "train", code=255)
    assert "'Basal'" in repository.errors and "all, dead cells, live" in repository.errors
    repository.change(None, class_name="$(touch here)")
    repository.dvc("repro", "train", code=255)
    assert not (repository.folder / "here").exists()
    repository.restore()


def test_a_killed_repro_resumes(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("CELLULAR_CACHE", str(tmp_path))
    repository.change("train", **QUICK | {"n_epochs": 4, "images_per_epoch": 8})
    repository.change(None, save_every=1)
    process = subprocess.Popen(
        ["dvc", "repro", "train"], cwd=repository.folder, env=environment(), start_new_session=True
    )
    while not list(tmp_path.glob("training/*.state")) and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    repository.dvc("repro", "train")
    assert "resuming after epoch" in repository.errors
    assert not list(tmp_path.glob("training/*.state"))
    assert len((repository.folder / "metrics/train.csv").read_text().splitlines()) == 5
    repository.restore()


def test_the_sample_is_fetched_and_prepared(repository: Repository):
    repository.change(None, dataset="sample")
    repository.change("prepare", cell_diameter=10)  # flows of few pixels
    assert {"fetch_data", "prepare"} <= repository.repro("prepare")
    splits = repository.json("metrics/prepare.json")["splits"]["all"]
    assert {name: split["cells"] for name, split in splits.items()} == {
        "train": 599,
        "valid": 199,
        "test": 237,
    }
    repository.restore()
