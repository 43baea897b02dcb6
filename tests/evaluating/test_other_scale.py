"""The whole way with default parameters, through the scripts, on cells of about 30 px."""

import json

import cv2
import pytest
from helpers.annotations import ROOT, coloured, write_png

from cellular.imaging.images import read_image, read_labels
from parameters import load_params

pytestmark = pytest.mark.slow

PARAMS = ROOT / "params.yaml"
PIECE = 1200  # pixels of a real field, which are shrunk by 4


@pytest.fixture(scope="module")
def raw(sample, tmp_path_factory):
    """A corner of each real field at a quarter of its size, each cell in a file of a class."""
    folder = tmp_path_factory.mktemp("raw")
    for image in sorted((sample / "images").glob("*.jpg")):
        pixels = read_image(image)[:PIECE, :PIECE]
        small = cv2.resize(pixels, None, fx=1 / 4, fy=1 / 4, interpolation=cv2.INTER_AREA)
        write_png(folder / "images" / f"{image.stem}.png", small)
        labels = read_labels(sample / "masks" / f"{image.stem}.tif")[:PIECE:4, :PIECE:4]
        for label in set(labels.ravel().tolist()) - {0}:
            name = ("fed", "unfed", "Unidentified")[label % 3]
            path = folder / "masks" / image.stem / name / f"{label}.png"
            write_png(path, coloured(labels == label))
    return folder


@pytest.mark.parametrize("class_name", ["all", "fed"])
def test_the_defaults_fit_cells_of_another_size_and_any_class(
    run_script, raw, pretrained, tmp_path, class_name
):
    params = load_params(PARAMS)
    splits = {
        name: tmp_path / "prepared" / class_name / name for name in ("train", "valid", "test")
    }
    code, _, _ = run_script(
        *("prepare_data", "--params", PARAMS, "--class_name", class_name),
        *("-i", raw / "masks", "-c", raw / "images", "-o", tmp_path / "prepared"),
        *("--flows_dir", tmp_path / "flows"),
    )
    assert code == 0
    code, _, _ = run_script(
        *("train", "--params", PARAMS, "--weights", pretrained, "--flows_dir", tmp_path / "flows"),
        *("--train_dir", splits["train"], "--valid_dir", splits["valid"]),
        *("--output_model", tmp_path / "weights", "--metrics_dir", tmp_path),
        *("--n_epochs", 1, "--images_per_epoch", 2, "--valid_images", 2, "--batch_size", 2),
    )
    assert code == 0
    train, diameter = params.train, params.diameter
    models = {
        "pretrained": (pretrained, diameter.pretrained, params.channels.pretrained),
        "finetuned": (tmp_path / "weights", diameter.finetuned, train.channels),
    }
    scores = {}
    for model, (path, size, channels) in models.items():
        code, _, err = run_script(
            *("eval", "--params", PARAMS, "--model_path", path, "--test_dir", splits["test"]),
            *("--annotated_dir", splits["train"], "--output_dir", tmp_path / model),
            *("--diameter", size, "--channels", *channels),
        )
        assert code == 0, err
        assert "but the annotated ones have" not in err
        scores[model] = json.loads((tmp_path / model / "test_eval.json").read_text())
    used = scores["pretrained"]["run"]["diameter"]
    assert used["used"] == used["annotated"] and 25 < used["used"] < 40
    assert scores["pretrained"]["run"]["settings"]["channels"] == [0, 0]
    assert scores["finetuned"]["run"]["settings"]["channels"] == train.channels
    classes = {"fed", "unfed"} if class_name == "all" else {class_name}
    for of_model in scores.values():
        assert of_model["groups"]["class"].keys() == classes
        assert of_model["counts"]["found"] > 5
