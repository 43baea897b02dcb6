"""The report: one page that shows a run, tested in a real browser."""

import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from helpers.annotations import ROOT, write_png
from helpers.browser import browser
from helpers.label_maps import scored
from helpers.readouts import SIX, write_readout
from helpers.repository import DEFAULT

from cellular.evaluating.evaluation import evaluate
from cellular.evaluating.params import Scoring, SegmentParams
from cellular.imaging.images import read_image, read_labels, write_labels
from cellular.reporting.comparison import SEEN
from cellular.reporting.revision import revision_of
from cellular.scoring.results import files_of, write_results

pytestmark = pytest.mark.slow

FIELD = "Timepoint_005_220518-ST_C03_s3"
MODELS = ("pretrained", "finetuned")
PREPARED = {
    "splits": {
        "all": {
            split: {"fields": fields, "cells": cells}
            for split, fields, cells in (("train", 3, 599), ("valid", 1, 199), ("test", 1, 237))
        }
    },
    "dropped": {
        "cells_excluded": 0,
        "cells_hidden": 0,
        "empty_mask_files": 0,
        "fields_without_cells": 0,
        "overlap_pixels": 0,
    },
    "names": {"hidden": [], "empty": [], "without_cells": [], "blank_channels": []},
}
LOSSES = "epoch,train_loss,valid_loss\n1,1.9,1.8\n2,1.7,\n3,1.6,1.65\n"
TRAINING = {
    "train_loss": 1.6,
    "epochs": 3,
    "stopped": "the last epoch was reached",
    "crops": 96,
    "kept_epoch": 3,
    "best_epoch": 3,
    "best_valid_loss": 1.65,
    "run": {"device": "cuda", "precision": "fp16", "weights": {"start": "ab" * 32}},
}


@pytest.fixture(scope="module")
def metrics(sample, pretrained, tmp_path_factory):
    """Real scores of the pretrained network with two diameters, and the results of a training."""
    folder = tmp_path_factory.mktemp("run")
    image = read_image(sample / "images" / f"{FIELD}.jpg")
    labels = read_labels(sample / "masks" / f"{FIELD}.tif").astype(np.uint16)
    for split, name, y in (("test", "a", 0), ("test", "b", 1024), ("valid", FIELD, 600)):
        piece = np.s_[y : y + 600, 700:1300]
        write_png(folder / split / f"{name}.png", image[piece])
        write_labels(folder / split / f"{name}_masks.png", labels[piece])
    for model, diameter in zip(MODELS, (121, 90), strict=True):
        evaluate(
            [folder / "test", folder / "valid"],
            pretrained,
            folder / "metrics" / model,
            SegmentParams(diameter=diameter),
            Scoring(),
            overlays_dir=folder / "metrics" / model / "images",
            predictions_dir=folder / "predictions" / model,
            device=torch.device("cpu"),
        )
    (folder / "metrics" / "prepare.json").write_text(json.dumps(PREPARED))
    (folder / "metrics" / "train.csv").write_text(LOSSES)
    (folder / "metrics" / "train.json").write_text(json.dumps(TRAINING))
    return write_readout(folder / "metrics", SIX)


@pytest.fixture
def make(metrics, run_script, tmp_path):
    def run(*arguments):
        return run_script(
            *("report", "--metrics_dir", metrics, "--params", ROOT / "params.yaml"),
            *("--splits", "test", "valid", "--output", tmp_path / "report.html", *arguments),
        )

    return run


@pytest.fixture
def page(make, tmp_path):
    code, out, _ = make("--example", tmp_path / "example.png")
    assert code == 0 and "opens in any browser" in out
    return tmp_path / "report.html"


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_loads_nothing_else_and_is_accessible(page, width, scheme):
    with browser() as started:
        tab = started.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        requested, messages = [], []
        tab.on("request", lambda request: requested.append(request.url))
        tab.on("console", lambda message: messages.append(message.text))
        tab.on("pageerror", lambda error: messages.append(str(error)))
        tab.goto(page.as_uri())
        assert [url for url in requested if not url.startswith("data:")] == [page.as_uri()]
        assert not messages
        # only tables may be wider than the screen, and they scroll by themselves
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", ground)[:3])) / 3
        assert (brightness > 127) == (scheme == "light")
        broken = "[...document.images].filter(i => i.src && !i.naturalWidth).length"
        assert tab.evaluate(broken) == 0
        faults = Axe().run(tab).response["violations"]
        assert not [(fault["id"], fault["nodes"][0]["html"][:200]) for fault in faults]


def test_pictures_enlarge_with_the_mouse_and_with_the_keyboard(page):
    with browser() as started:
        tab = started.new_page()
        tab.goto(page.as_uri())
        picture = tab.get_by_role("button", name="Enlarge test: worst cells, finetuned")
        picture.click()
        dialog = tab.get_by_role("dialog")
        assert dialog.is_visible()
        assert "worst cells, finetuned" in dialog.get_by_role("img").get_attribute("alt")
        assert dialog.get_by_role("img").bounding_box()["width"] > 500
        dialog.get_by_role("button", name="Close").click()
        assert not dialog.is_visible()
        picture.focus()
        tab.keyboard.press("Enter")
        assert dialog.is_visible()
        tab.keyboard.press("Escape")
        assert not dialog.is_visible()
        assert picture.evaluate("button => button === document.activeElement")


def test_the_page_shows_the_numbers_and_texts_of_the_files(page, metrics, run_script):
    table = run_script(
        "compare", "--metrics_dir", metrics, "--models", *MODELS, "--splits", "test", "valid"
    )[1]
    with browser() as started:
        tab = started.new_page()
        tab.goto(page.as_uri())
        sentences = tab.locator(".verdict").all_inner_texts()
        folded = tab.get_by_text("train.learning_rate")
        assert not folded.is_visible()
        tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        assert folded.is_visible()
        shown = tab.locator("body").inner_text()
        rows = tab.get_by_role("region", name="Main scores, test").get_by_role("row")
        rows = rows.all_inner_texts()
    lines = table.splitlines()
    assert sentences == [line for line in lines if line.startswith(("test:", "valid:"))]
    (found,) = [row for row in rows if row.startswith("AP@0.5\t")]
    expected = next(line for line in lines if line.startswith("| AP@0.5 "))
    _, first, second, difference = (cell.strip() for cell in expected.split("|")[1:-1])
    values = [text.split()[0] for text in found.split("\t")[1:]]
    assert values == [first, second, difference.split()[0]]
    assert difference in found
    texts = ("CC BY 4.0", "Al Outa et al.", "train.learning_rate", "3.1.1.3")
    texts += (str(DEFAULT["train"]["learning_rate"]),)
    texts += ("make repro", "true", "eval.overlays", "cuda", "fp16", "ab" * 6)
    scores = json.loads((metrics / "finetuned" / "test_eval.json").read_text())
    texts += (scores["run"]["weights"][:12], scores["run"]["data"][:12], scores["run"]["device"])
    for text in texts:
        assert text in shown, text


def test_the_read_out_is_reached_by_keyboard_and_its_cells_enlarge(page):
    with browser() as started:
        tab = started.new_page()
        tab.goto(page.as_uri())
        tab.get_by_role("link", name="read-out").press("Enter")
        assert tab.get_by_role("heading", name="Read-out: autophagy").is_visible()
        folded = tab.get_by_text("Means of each well", exact=True)
        folded.press("Enter")
        region = tab.get_by_role("region", name=re.compile("Means of each well, over cells"))
        assert region.get_by_role("row").count() == 1 + len(SIX)
        tab.get_by_role("button", name=re.compile("Enlarge most: 7 red puncta")).press("Enter")
        assert "7 red puncta" in tab.get_by_role("dialog").get_by_role("img").get_attribute("alt")


def test_a_page_without_a_read_out_says_nothing_or_why(make, metrics, tmp_path):
    shutil.copytree(metrics, tmp_path / "m")
    (tmp_path / "m" / "readout.json").write_text('{"reason": "No channel is known to be red."}')
    assert make("--metrics_dir", tmp_path / "m")[0] == 0
    assert "<p>No channel is known to be red.</p>" in (tmp_path / "report.html").read_text()
    (tmp_path / "m" / "readout.json").unlink()
    assert make("--metrics_dir", tmp_path / "m", "--force")[0] == 0
    assert "read-out" not in (tmp_path / "report.html").read_text()


def test_the_page_prints_in_black_on_white(page, tmp_path):
    with browser() as started:
        tab = started.new_page(color_scheme="dark")
        tab.goto(page.as_uri())
        tab.emulate_media(media="print")
        colours = "(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))"
        assert tab.evaluate(colours) == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]
        assert not tab.get_by_role("navigation").is_visible()
        assert tab.pdf(format="A4").startswith(b"%PDF")


def test_two_reports_of_one_run_are_the_same_bytes(page, make):
    first = page.read_bytes()
    assert make("--force")[0] == 0
    assert page.read_bytes() == first
    assert len(first) < 3e6


def test_a_typical_field_is_shown_before_the_worst_one(page, metrics, tmp_path):
    table = pd.read_csv(metrics / "finetuned" / "test_fields.csv", index_col="field")
    worst = table["objects.average_precision.0.5"].idxmin()
    typical = table["objects.average_precision.0.5"].idxmax()  # the upper one of two
    drawn = metrics / "finetuned" / "images" / "test" / f"{typical}.png"
    assert (tmp_path / "example.png").read_bytes() == drawn.read_bytes()
    text = page.read_text()
    names = (f"{typical}, finetuned: typical", f"{worst}, finetuned: the worst of 2 fields")
    shown = [text.index(f"test: {name}") for name in (*names, "worst cells, finetuned")]
    assert shown == sorted(shown)


def test_the_page_says_whether_a_difference_is_good(page):
    with browser() as started:
        tab = started.new_page()
        tab.goto(page.as_uri())
        tab.get_by_text("All other scores and counts (test)").click()
        tables = tab.get_by_role("region", name=re.compile("(Main|Other) scores, test"))
        rows = {row.split("\t")[0]: row for row in tables.get_by_role("row").all_inner_texts()}
    for name, smaller_is_better in (("AP@0.5", False), ("cells missed", True)):
        row = rows[name]
        first, second = (float(text.split()[0]) for text in row.split("\t")[1:3])
        rose, better = second > first, (second < first) == smaller_is_better
        assert first != second
        assert ("▲" in row, "better" in row, "worse" in row) == (rose, better, not better), row


@pytest.mark.parametrize("used", [30, 900])
def test_a_diameter_far_from_that_of_the_annotated_cells_is_said(make, metrics, tmp_path, used):
    shutil.copytree(metrics, tmp_path / "m")
    path = tmp_path / "m" / "pretrained" / "valid_eval.json"
    scores = json.loads(path.read_text())
    scores["run"]["diameter"] = {"used": used, "annotated": 120.4}
    path.write_text(json.dumps(scores))
    assert make("--metrics_dir", tmp_path / "m")[0] == 0
    said = "pretrained, valid: the model was told that cells are {} px across; the annotated ones"
    text = " ".join((tmp_path / "report.html").read_text().split())
    assert text.count("the model was told") == 1
    assert said.format(used) + " are 120 px" in text


def test_the_page_says_which_fields_were_trained_on(make, metrics, tmp_path):
    shutil.copytree(metrics, tmp_path / "m")
    seen = TRAINING | {"trained_on": ["train", "valid", "test"]}
    for training, times in ((TRAINING, 0), (seen, 2)):  # above, and in the section of the split
        (tmp_path / "m" / "train.json").write_text(json.dumps(training))
        assert make("--metrics_dir", tmp_path / "m", "--force")[0] == 0
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert page.count(SEEN) == times * 2  # test and valid
        assert ("The validation fields were trained on" in page) == bool(times)


def test_the_code_of_a_page_is_the_last_commit_that_changed_it(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    assert revision_of(tmp_path) == {}

    def git(*arguments):
        who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        command = ["git", "-C", tmp_path, *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    git("add", "-A")
    git("commit", "-qm", "code")
    code = git("rev-parse", "HEAD")[:12]
    date = git("log", "-1", "--format=%cs")
    assert revision_of(tmp_path) == {"date": date, "code": f"commit {code}"}
    (tmp_path / "dvc.lock").write_text("results\n")
    git("add", "-A")
    git("commit", "-qm", "results")
    (tmp_path / "metrics.json").write_text("{}")
    assert revision_of(tmp_path)["code"] == f"commit {code}"
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    assert revision_of(tmp_path)["code"] == f"commit {code}, with changes that are not committed"
    monkeypatch.setenv("DVC_EXP_NAME", "ashen-lure")
    assert revision_of(tmp_path)["code"] == f"experiment ashen-lure, based on commit {code}"


def test_a_split_without_cells_has_a_page_too(metrics, make, tmp_path):
    for model in MODELS:
        nothing = scored(np.zeros((40, 40)), np.zeros((40, 40)), "empty")
        write_results(files_of(metrics / model, "none"), [nothing], seed=0)
        folder = metrics / model / "images" / "none"
        folder.mkdir(exist_ok=True)
        shutil.copyfile(metrics / model / "images" / "test" / "a.png", folder / "empty.png")
    assert make("--splits", "none")[0] == 0
    assert "nothing can be said" in (tmp_path / "report.html").read_text()


def _cut(path):
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("train.json", lambda path: path.write_text("{}"), "not as the stages write it"),
        ("train.csv", lambda path: path.write_text(LOSSES[:-3]), "train.csv"),  # 1, of 1.65
        ("train.csv", lambda path: path.write_text(LOSSES[:27] + "\n"), "its last epoch is not"),
        ("train.csv", lambda path: path.write_text(LOSSES.replace("1.6,", "one,")), "train.csv"),
        ("train.csv", lambda path: path.write_text(LOSSES[:28]), "train.csv"),  # a header alone
        ("prepare.json", _cut, "prepare.json: not valid JSON"),
        ("finetuned/images/test/b.png", _cut, "b.png: no readable image, or cut short"),
        ("finetuned/images/test", shutil.rmtree, "no picture of a field there"),
        ("finetuned/images", shutil.rmtree, "images does not exist"),
        ("finetuned/test_fields.csv", _cut, "test_fields.csv"),
    ],
)
def test_a_file_that_is_not_as_its_stage_wrote_it_is_told(
    make, metrics, tmp_path, name, spoil, message
):
    shutil.copytree(metrics, tmp_path / "m")
    spoil(tmp_path / "m" / name)
    code, _, err = make("--metrics_dir", tmp_path / "m", "--example", tmp_path / "example.png")
    assert code == 2 and message in err and err.count("\n") == 1, err
    assert {path.name for path in tmp_path.iterdir()} == {"m"}


def test_bad_input_gets_one_clear_error(make, metrics, tmp_path):
    code, _, err = make("--splits", "train")
    assert code == 2 and "train_eval.json does not exist; run the pipeline" in err
    (tmp_path / "file").write_text("")
    code, _, err = make("--example", tmp_path / "file" / "example.png")  # the page not alone either
    assert code == 2 and "example.png: cannot be written" in err
    assert not (tmp_path / "report.html").exists()
    (tmp_path / "report.html").write_text("mine")
    code, _, err = make()
    assert code == 2 and "exists already" in err


@pytest.mark.parametrize("name", ["train.json", "finetuned/images/test/b.png", "report.html"])
def test_what_the_page_is_made_from_is_not_replaced(make, metrics, tmp_path, name):
    shutil.copytree(metrics, tmp_path / "m")
    (tmp_path / "m" / "report.html").write_text("mine")
    before = (tmp_path / "m" / name).read_bytes()
    output = tmp_path / "m" / "report.html"  # and once the page and the picture in one file
    arguments = ("--output", output, "--example", tmp_path / "m" / name, "--force")
    code, _, err = make("--metrics_dir", tmp_path / "m", *arguments)
    assert code == 2 and "would be lost" in err
    assert (tmp_path / "m" / name).read_bytes() == before
    params = tmp_path / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", params)
    code, _, err = make("--params", params, "--output", params, "--force")
    assert code == 2 and "would be lost" in err
