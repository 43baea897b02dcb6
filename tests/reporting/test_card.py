"""card.py: the settings and the card of a model, and that they are enough to use it."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from helpers.annotations import ROOT, write_png

from cellular.base.files import digest
from cellular.imaging.fields import load_pairs, read_field
from cellular.imaging.matching import count_overlaps, match
from cellular.models.folders import open_model
from cellular.models.params import ModelParams
from cellular.network.segmentation import load_model, segment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def evaluated(pieces, pretrained, tmp_path_factory):
    """Real weights that were scored on real pieces, as if they had been trained on them."""
    from cellular.base import devices
    from cellular.evaluating.evaluation import evaluate
    from cellular.evaluating.params import Scoring, SegmentParams

    folder = tmp_path_factory.mktemp("model")
    (folder / "model").mkdir()
    weights = folder / "model" / "mine"
    shutil.copyfile(pretrained, weights)
    params = SegmentParams(diameter=40, flow_threshold=0.6, precision="32", channels=[2, 1])
    tested = [pieces / "valid", pieces / "train"]
    device = devices.choose("cpu")
    evaluate(tested, weights, folder / "metrics" / "mine", params, Scoring(), device=device)
    training = {
        "run": {"weights": digest(weights), "seed": 0},
        "trained_on": ["train"],
        "cells": {"train": 30},
        "fields": {"train": 3},
    }
    (folder / "metrics/train.json").write_text(json.dumps(training))
    return folder


def arguments(folder, pieces):
    return (
        *("card", "--weights", folder / "model/mine", "--metrics_dir", folder / "metrics"),
        *("--model", "mine", "--splits", "valid", "train", "--images", pieces / "train"),
        *("--params", ROOT / "params.yaml"),
    )


@pytest.fixture
def carded(evaluated, pieces, run_script, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(evaluated, folder)
    code, out, errors = run_script(*arguments(folder, pieces))
    assert code == 0, errors
    assert "a model for cells of 40 pixels" in out
    return folder / "model"


def test_the_settings_are_those_with_which_the_model_was_scored(carded):
    model = open_model(carded)
    assert model.record.diameter == 40 and model.record.network_diameter == 30
    assert model.defaults["channels"] == [2, 1] and model.defaults["flow_threshold"] == 0.6
    assert model.record.seen.channels == [3]
    assert model.record.seen.pixel_size == 0.1733  # of the data set in params.yaml
    low, high = model.record.seen.brightness
    assert 0.1 < low <= high < 0.3
    assert model.record.run["training"]["seed"] == 0


def test_the_card_says_what_the_model_is_for_and_what_not(carded):
    card = (carded / "README.md").read_text(encoding="utf-8")
    for said in (
        "# mine",
        "cells of about 40 pixels (6.93 µm",
        "Not for** Cellpose 4",
        "| score | valid | train, trained on |",
        "CC BY 4.0",
        "Before you publish it",
        "ask the authors of Scellseg",
        "10.1038/s41592-020-01018-x",
        "10.1038/s41597-023-02687-x",
    ):
        assert said in card, said
    assert re.search(r"AP@0.5 \| 0\.\d{3} \(0\.\d{3} to 0\.\d{3}\)", card)


def test_the_cards_settings_in_plain_cellpose_find_the_same_cells(carded, pieces, monkeypatch):
    card = (carded / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall("```python\n(.*?)```", card, re.DOTALL)
    image = read_field(load_pairs(pieces / "valid")[0].image)
    monkeypatch.chdir(carded)
    write_png(carded / "my_image.png", image)
    names: dict = {}
    exec(code, names)
    model = open_model(carded)
    params = ModelParams(**model.defaults, precision="32")
    ours = segment(load_model(model.weights, torch.device("cpu")), image, params.settings())
    same = np.sum(match(count_overlaps(names["masks"].astype(np.uint16), ours)).iou > 0.95)
    assert same == ours.max() == names["masks"].max() > 3


def test_weights_that_were_not_scored_get_no_card(evaluated, pieces, run_script, tmp_path):
    shutil.copytree(evaluated, tmp_path / "copy")
    with (tmp_path / "copy/model/mine").open("ab") as weights:
        weights.write(b"x")
    code, _, errors = run_script(*arguments(tmp_path / "copy", pieces))
    assert code == 2 and "not the weights that were scored" in errors
    assert not (tmp_path / "copy/model/settings.json").exists()


def test_weights_that_were_not_trained_here_do_not_claim_it(
    evaluated, pieces, run_script, tmp_path
):
    shutil.copytree(evaluated, tmp_path / "copy")
    (tmp_path / "copy/metrics/train.json").unlink()
    assert run_script(*arguments(tmp_path / "copy", pieces))[0] == 0
    model = open_model(tmp_path / "copy/model")
    assert model.record.seen is None and "training" not in model.record.run
    card = (tmp_path / "copy/model/README.md").read_text(encoding="utf-8")
    assert "They were not trained here" in card and "trained on |" not in card


def test_scores_are_found_by_the_model(evaluated, run_script):
    for first in ("mine", evaluated / "model/mine"):
        code, out, errors = run_script(
            *("compare", "--metrics_dir", evaluated / "metrics", "--splits", "valid"),
            *("--models", "mine", first),
        )
        assert code == 0 and "| AP@0.5 " in out, errors
    code, _, errors = run_script(
        *("compare", "--metrics_dir", evaluated / "metrics", "--splits", "valid"),
        *("--models", "mine", ROOT / "LICENSE"),
    )
    assert code == 2 and "no scores of these weights" in errors
