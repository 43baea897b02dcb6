"""eval.py: label maps, scores and pictures, compared with Cellpose and scikit-learn; errors."""

import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from cellpose.metrics import average_precision
from helpers.annotations import write_png
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from cellular.evaluating.overlays import CELL, COLOURS, GAP, GREYS, INDEX, LINE, crops, draw, worst
from cellular.imaging.images import read_image, read_labels, write_labels
from cellular.scoring.cells import table_of_cells

pytestmark = pytest.mark.slow

FIELD = "Timepoint_005_220518-ST_C03_s3"


@pytest.fixture(scope="module")
def real(sample, tmp_path_factory):
    """A prepared folder with two real pieces of 768 px, and one without a cell."""
    folder = tmp_path_factory.mktemp("prepared") / "test"
    folder.mkdir()
    image = read_image(sample / "images" / f"{FIELD}.jpg")
    labels = read_labels(sample / "masks" / f"{FIELD}.tif")
    for name, y, x in (("a", 0, 0), ("b", 1024, 768)):
        piece = np.s_[y : y + 768, x : x + 768]
        write_png(folder / f"{name}.png", image[piece])
        write_labels(folder / f"{name}_masks.png", labels[piece].astype(np.uint16))
    write_png(folder / "empty.png", np.zeros((512, 512, 3), np.uint8))
    write_labels(folder / "empty_masks.png", np.zeros((512, 512), np.uint16))
    return folder


@pytest.fixture
def evaluate(run_script, real, pretrained, tmp_path):
    def run(*arguments, test_dir=real, model=pretrained):
        return run_script(
            "eval",
            *("--test_dir", test_dir, "--model_path", model, "--output_dir", tmp_path / "out"),
            *("--diameter", 121, *arguments),
        )

    return run


def test_scores_are_those_of_sklearn_and_cellpose_for_the_written_label_maps(
    evaluate, real, tmp_path
):
    code, out, _ = evaluate()
    assert code == 0 and "AP@0.5" in out
    result = json.loads((tmp_path / "out" / "test_eval.json").read_text())
    truths, predictions = [], []
    for name in ("a", "b", "empty"):
        truths.append(cv2.imread(str(real / f"{name}_masks.png"), cv2.IMREAD_UNCHANGED))
        path = tmp_path / "out" / "images" / f"pred_{name}.png"
        predictions.append(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
        assert predictions[-1].dtype == np.uint16
    assert predictions[0].max() > 5  # there is something to score
    for name, score in (
        ("precision", precision_score),
        ("recall", recall_score),
        ("f1", f1_score),
        ("jaccard", jaccard_score),
    ):
        means = [
            np.mean(
                [
                    score((a > 0).ravel(), (b > 0).ravel(), pos_label=label, zero_division=0)
                    for a, b in zip(truths, predictions, strict=True)
                ]
            )
            for label in (False, True)
        ]
        assert result["background"][name] == pytest.approx(means[0], abs=1e-12)
        assert result["cell"][name] == pytest.approx(means[1], abs=1e-12)
        assert result["average"][name] == pytest.approx(np.mean(means), abs=1e-12)
    dense = [np.unique(truth, return_inverse=True)[1].reshape(truth.shape) for truth in truths]
    expected, tp, fp, fn = average_precision(dense[:2], predictions[:2])
    found = result["objects"]["average_precision"]
    for index, threshold in enumerate(("0.5", "0.75", "0.9")):
        # it is undefined for the field without any annotated or predicted cell
        assert found[threshold] == pytest.approx(np.mean(expected[:, index]), abs=1e-7)
    counts = result["counts"]
    assert counts["found"] == tp[:, 0].sum()
    assert counts["predictions"] == (tp + fp)[:, 0].sum()
    assert counts["cells"] == (tp + fn)[:, 0].sum()
    intervals = result["interval_by_field"]["objects"]["average_precision"]
    assert intervals["0.5"].keys() == {"low", "high"}
    cells = pd.read_csv(tmp_path / "out" / "test_cells.csv")
    assert (cells["outcome"] == "found").sum() == counts["found"]
    assert set(cells["field"]) == {"a", "b"}


def test_predictions_and_overlays_can_be_written_to_other_folders(evaluate, tmp_path):
    code, _, _ = evaluate(
        *("--predictions_dir", tmp_path / "p", "--overlays_dir", tmp_path / "o"),
        *("--overlays", 1, "--resample", "false"),
    )
    assert code == 0
    assert len(list((tmp_path / "p").iterdir())) == 3
    drawn = {str(path.relative_to(tmp_path / "o")) for path in (tmp_path / "o").rglob("*.png")}
    # a typical field and the worst one, not that without cells
    assert drawn == {"test/a.png", "test/b.png", "test_worst_cells.png"}
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"test_eval.json", "test_fields.csv", "test_cells.csv", "curves"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predictions_dir", "x", "--overlays_dir", "x"], "would be lost"),
        (["--predictions_dir", "x/y", "--overlays_dir", "x"], "would be lost"),
        (["--predictions_dir", "out"], "would be lost"),
        (["--seed", "-1"], "expected a whole number from 0 on, found '-1'"),
    ],
)
def test_outputs_that_would_replace_one_another_are_refused(evaluate, tmp_path, arguments, message):
    given = [str(tmp_path / word) if word[0] in "xo" else word for word in arguments]
    code, out, err = evaluate(*given)
    assert (code, out) == (2, "") and message in err
    assert not list(tmp_path.glob("[!.]*"))


def test_the_same_command_gives_the_same_bytes(evaluate, tmp_path):
    contents = []
    for _ in range(2):
        assert evaluate("--force")[0] == 0
        files = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
        contents.append([path.read_bytes() for path in files])
    assert len(contents[0]) > 8 and contents[0] == contents[1]


def test_excluded_cells_are_background_or_ignored(evaluate, real, tmp_path):
    # In field a, half of the annotated cells become cells of an excluded class.
    folder = tmp_path / "some" / "test"
    shutil.copytree(real, folder)
    labels = read_labels(folder / "a_masks.png")
    kept = labels % 2 == 0
    write_labels(folder / "a_masks.png", np.where(kept, labels, 0).astype(np.uint16))
    write_labels(folder / "a_excluded.png", np.where(kept, 0, labels).astype(np.uint16))
    results = {}
    for choice in ("background", "ignore"):
        assert evaluate("--force", "--excluded", choice, test_dir=folder)[0] == 0
        results[choice] = json.loads((tmp_path / "out" / "test_eval.json").read_text())
    ignored, background = results["ignore"], results["background"]
    assert ignored["counts"]["cells"] == background["counts"]["cells"]
    assert ignored["counts"]["ignored"] > 0 == background["counts"]["ignored"]
    assert ignored["objects"]["precision"] > background["objects"]["precision"]
    assert ignored["cell"]["precision"] > background["cell"]["precision"]
    assert ignored["objects"]["recall"] >= background["objects"]["recall"]


def test_there_are_scores_of_each_class_if_classes_are_known(evaluate, real, tmp_path):
    folder = tmp_path / "some" / "test"
    shutil.copytree(real, folder)
    for field in ("a", "b"):
        labels = np.unique(read_labels(folder / f"{field}_masks.png"))[1:]
        lines = [f"{label},{'fed' if label % 2 else 'unfed'}" for label in labels]
        (folder / f"{field}_classes.csv").write_text("\n".join(["label,class", *lines]) + "\n")
    assert evaluate(test_dir=folder)[0] == 0
    result = json.loads((tmp_path / "out" / "test_eval.json").read_text())
    by_class = result["groups"]["class"]
    assert by_class.keys() == {"fed", "unfed"}
    assert sum(of["cells"] for of in by_class.values()) == result["counts"]["cells"]
    assert sum(of["found"] for of in by_class.values()) == result["counts"]["found"]


def test_an_overlay_shows_the_outcome_of_every_cell_in_its_colour():
    truth, predicted = np.zeros((2, 90, 90), np.uint16)
    truth[5:20, 5:20], truth[40:55, 5:20] = 1, 2  # found, missed
    truth[65:80, 5:17], truth[65:80, 17:29] = 3, 4  # merged
    truth[65:75, 40:70] = 5  # split
    predicted[5:20, 5:20], predicted[5:20, 40:55] = 1, 2  # found, false positive
    predicted[65:82, 5:29] = 3
    predicted[65:75, 40:50], predicted[65:75, 50:60], predicted[65:75, 60:70] = 4, 5, 6
    cells, _ = table_of_cells("x", truth, predicted)
    picture = draw(np.zeros((90, 90), np.uint8), truth, predicted, cells)
    assert isinstance(picture, Image.Image)
    palette = np.array(picture.getpalette()).reshape(-1, 3)
    plain, indices = np.asarray(picture)[:90, :90], np.asarray(picture)[:, 90 + GAP :]
    assert plain.max() < GREYS  # the image without outlines, to the left
    shown = {
        (5, 10): "found",
        (40, 10): "missed",
        (5, 50): "false positive",
        (65, 10): "merged",
        (65, 45): "split",
    }
    for (y, x), outcome in shown.items():
        assert tuple(palette[indices[y, x]]) == COLOURS[outcome], outcome
    assert indices[12, 12] < GREYS
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_the_worst_cells_come_first_and_their_crops_may_extend_beyond_the_frame():
    truth, predicted = np.zeros((2, 90, 90), np.uint16)
    truth[0:20, 0:20], truth[40:50, 40:50], truth[70:80, 70:80] = 1, 2, 3
    predicted[40:48, 40:50], predicted[70:80, 70:80], predicted[60:75, 5:20] = 1, 2, 3
    cells, _ = table_of_cells("x", truth, predicted)
    chosen = worst(cells, 3)
    assert chosen["outcome"].tolist() == ["missed", "false positive", "found"]
    assert chosen["iou"].tolist()[2] == 0.8
    shown = crops(np.zeros((90, 90, 3), np.uint8), truth, predicted, chosen)
    for crop, name in zip(shown, ("missed", "false positive", "found"), strict=True):
        assert crop.shape == (CELL + 2 * LINE, CELL)
        assert INDEX[name] in crop[:CELL]
    assert worst(cells, 0).empty and len(worst(cells, 99)) == 4


# Each of these damages something, and returns arguments of the script and what its error says.
def no_model(folder, weights_file):
    return {"model": folder / "nowhere"}, "no model there"


def model_is_code(folder, weights_file):
    path = folder / "evil"
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    return {"model": path}, "not run"


def model_cut_short(folder, weights_file):
    path = folder / "cut"
    path.write_bytes(weights_file.read_bytes()[:-5000])
    return {"model": path}, "cut short"


def no_folder(folder, weights_file):
    return {"test_dir": folder / "nowhere"}, "no such folder"


def image_alone(folder, weights_file):
    (folder / "test" / "b_masks.png").unlink()
    return {"test_dir": folder / "test"}, "no label map b_masks"


def faults_in_two_folders(folder, weights_file):
    shutil.copytree(folder / "test", folder / "valid")
    for name in ("test", "valid"):
        (folder / name / "b_masks.png").unlink()
    arguments = ["--test_dir", folder / "test", folder / "valid"]
    return {"arguments": arguments}, f"{folder / 'valid' / 'b.png'}: no label map b_masks"


def image_cut_short(folder, weights_file):
    path = folder / "test" / "b.png"
    path.write_bytes(path.read_bytes()[:-500])
    return {"test_dir": folder / "test"}, "b.png: no readable image, or cut short"


def classes_of_other_cells(folder, weights_file):
    (folder / "test" / "a_classes.csv").write_text("label,class\n1,fed\n")
    return {"test_dir": folder / "test"}, "a_classes.csv: 1 rows for the"


def excluded_of_another_size(folder, weights_file):
    write_labels(folder / "test" / "a_excluded.png", np.ones((5, 5), np.uint16))
    return {"test_dir": folder / "test"}, "masks and image of a field must be of one size"


def no_device(folder, weights_file):
    return {"arguments": ["--device", "abacus"]}, "device 'abacus' is unknown"


@pytest.mark.parametrize(
    "spoil",
    [
        no_model,
        model_is_code,
        model_cut_short,
        no_folder,
        image_alone,
        faults_in_two_folders,
        image_cut_short,
        classes_of_other_cells,
        excluded_of_another_size,
        no_device,
    ],
)
def test_bad_input_is_one_clear_error_and_nothing_is_written(
    evaluate, real, pretrained, tmp_path, spoil
):
    shutil.copytree(real, tmp_path / "test")
    options, message = spoil(tmp_path, pretrained)
    code, out, err = evaluate(*options.pop("arguments", ()), **options)
    assert (code, out) == (2, "") and message in err and err.count("error: ") == 1
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_an_output_that_exists_is_not_overwritten(evaluate, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "test_eval.json").write_text("{}")
    code, _, err = evaluate()
    assert code == 2 and "exists already" in err and "--force" in err
    assert (tmp_path / "out" / "test_eval.json").read_text() == "{}"
