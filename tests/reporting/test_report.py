"""The report: one page that shows a run, tested in a real browser."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from helpers.annotations import ROOT, write_png
from helpers.browser import browser
from helpers.label_maps import scored

from cellular.evaluating.evaluation import evaluate
from cellular.evaluating.params import Scoring, SegmentParams
from cellular.imaging.images import read_image, read_labels, write_labels
from cellular.scoring.results import write_results

pytestmark = pytest.mark.slow

FIELD = "Timepoint_005_220518-ST_C03_s3"
MODELS = ("pretrained", "finetuned")
LOSSES = "epoch,train_loss,valid_loss\n1,1.9,1.8\n2,1.7,\n3,1.6,1.65\n"
TRAINING = {
    "epochs": 3,
    "stopped": "the last epoch was reached",
    "crops": 96,
    "kept_epoch": 3,
    "best_epoch": 3,
    "best_valid_loss": 1.65,
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
    shutil.copyfile(ROOT / "metrics" / "prepare.json", folder / "metrics" / "prepare.json")
    (folder / "metrics" / "train.csv").write_text(LOSSES)
    (folder / "metrics" / "train.json").write_text(json.dumps(TRAINING))
    return folder / "metrics"


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
        shown = tab.locator("main").inner_text()
        rows = tab.get_by_role("region", name="Scores, test").get_by_role("row").all_inner_texts()
    lines = table.splitlines()
    assert sentences == [line for line in lines if line.startswith(("test:", "valid:"))]
    (found,) = [row for row in rows if row.startswith("AP@0.5\t")]
    expected = next(line for line in lines if line.startswith("| AP@0.5 "))
    _, first, second, difference = (cell.strip() for cell in expected.split("|")[1:-1])
    values = [text.split()[0] for text in found.split("\t")[1:]]
    assert values == [first, second, difference.split()[0]]
    assert difference in found
    texts = ("CC BY 4.0", "Al Outa et al.", "train.learning_rate", "0.0005", "3.1.1.3")
    texts += ("make repro", "its 2 fields, which are few", "true", "eval.overlays")
    for text in texts:
        assert text in shown, text


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
    assert len(first) < 5e6


def test_pictures_are_shown_the_worst_first(page, metrics, tmp_path):
    table = pd.read_csv(metrics / "finetuned" / "test_fields.csv", index_col="field")
    worst = table["objects.average_precision.0.5"].idxmin()
    best = table["objects.average_precision.0.5"].idxmax()
    assert worst == "b"  # not the first by its name
    drawn = metrics / "finetuned" / "images" / "test" / f"{worst}.png"
    assert (tmp_path / "example.png").read_bytes() == drawn.read_bytes()
    text = page.read_text()
    shown = [text.index(f"test: {name}, finetuned") for name in (worst, best, "worst cells")]
    assert shown == sorted(shown)


def test_a_split_without_cells_has_a_page_too(metrics, make, tmp_path):
    for model in MODELS:
        nothing = scored(np.zeros((40, 40)), np.zeros((40, 40)), "empty")
        write_results(metrics / model, "none", [nothing], seed=0)
        folder = metrics / model / "images" / "none"
        folder.mkdir(exist_ok=True)
        shutil.copyfile(metrics / model / "images" / "test" / "a.png", folder / "empty.png")
    assert make("--splits", "none")[0] == 0
    assert "nothing can be said" in (tmp_path / "report.html").read_text()


def test_bad_input_gets_one_clear_error(make, metrics, tmp_path):
    spoilt = tmp_path / "spoilt"
    shutil.copytree(metrics, spoilt)
    (spoilt / "train.json").write_text("{}")
    code, _, err = make("--metrics_dir", spoilt)
    assert code == 2 and "not as the stages write it" in err
    shutil.rmtree(spoilt / "finetuned" / "images" / "test")
    code, _, err = make("--metrics_dir", spoilt)
    assert code == 2 and "no picture of a field there" in err
    code, _, err = make("--splits", "train")
    assert code == 2 and "train_fields.csv does not exist; run the pipeline" in err
    assert not (tmp_path / "report.html").exists()
    (tmp_path / "report.html").write_text("mine")
    code, _, err = make()
    assert code == 2 and "exists already" in err
