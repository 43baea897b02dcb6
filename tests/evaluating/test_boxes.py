"""eval.py on a folder of real images with boxes in YOLO's format."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from skimage.measure import regionprops

from cellular.evaluating.overlays import INDEX
from cellular.imaging.images import read_labels

pytestmark = pytest.mark.slow

FOUND, MISSED, INVENTED = (INDEX[name] for name in ("found", "missed", "false positive"))


def write_boxes(path, labels):
    """Write the box of each cell of a label map in YOLO's format."""
    height, width = labels.shape
    lines = []
    for cell in regionprops(labels.astype(np.int64)):
        top, left, bottom, right = cell.bbox
        centre = (left + right) / 2 / width, (top + bottom) / 2 / height
        numbers = (*centre, (right - left) / width, (bottom - top) / height)
        lines.append(" ".join(["0", *map(str, numbers)]))
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture(scope="module")
def folders(pieces, tmp_path_factory):
    """Two real pieces: with their masks (train), and with boxes around these (boxed)."""
    folder = tmp_path_factory.mktemp("boxes")
    (folder / "train").mkdir()
    (folder / "boxed").mkdir()
    for image in sorted((pieces / "train").glob("*[0-9].png"))[:2]:
        masks = image.with_name(f"{image.stem}_masks.png")
        shutil.copy(masks, folder / "train")
        for split in ("train", "boxed"):
            shutil.copy(image, folder / split)
        write_boxes(folder / "boxed" / f"{image.stem}.txt", read_labels(masks))
    (folder / "boxed" / "classes.txt").write_text("cell\n")
    return folder


@pytest.fixture
def evaluate(run_script, pretrained, tmp_path):
    def run(*dirs, diameter="40", out="out"):
        given = ("--model_path", pretrained, "--output_dir", tmp_path / out)
        code, said, err = run_script("eval", "--test_dir", *dirs, *given, "--diameter", diameter)
        assert code == 0, err
        found = [
            json.loads((tmp_path / out / f"{path.name}_eval.json").read_text()) for path in dirs
        ]
        return said, *found

    return run


def test_the_boxes_of_what_a_model_finds_are_found(evaluate, folders, tmp_path):
    evaluate(folders / "boxed")
    perfect = tmp_path / "perfect"
    perfect.mkdir()
    images = sorted((folders / "boxed").glob("*.png"))
    for image in images:
        shutil.copy(image, perfect)
        labels = read_labels(tmp_path / f"out/images/pred_{image.stem}.png")
        write_boxes(perfect / f"{image.stem}.txt", labels)
    said, result = evaluate(perfect, out="again")
    assert "F1 of cells 1.000, 2 fields" in said
    objects, counts = result["objects"], result["counts"]
    assert objects["f1"] == objects["strict"]["f1"] == objects["average_precision"]["mean"] == 1
    assert counts["found"] == counts["cells"] == counts["predictions"] > 20
    assert result["diameter_error"]["absolute_px"] == pytest.approx(0, abs=1e-9)
    picture = np.asarray(Image.open(tmp_path / f"again/overlays/perfect/{images[0].stem}.png"))
    picture = picture[: len(labels)]  # without the legend
    assert (picture == FOUND).any()
    assert not ((picture == MISSED) | (picture == INVENTED)).any()


def test_a_folder_with_masks_and_one_with_boxes_are_scored_in_one_run(evaluate, folders, tmp_path):
    masks, boxes = tmp_path / "masks", tmp_path / "boxes"
    first, second = sorted((folders / "boxed").glob("*.png"))
    for folder, image in ((masks, first), (boxes, second)):
        folder.mkdir()
        shutil.copy(image, folder)
    shutil.copy(folders / "train" / f"{first.stem}_masks.png", masks)
    shutil.copy(second.with_suffix(".txt"), boxes)
    _, by_masks, by_boxes = evaluate(masks, boxes)
    assert "cell" in by_masks and "cell" not in by_boxes
    assert by_masks["counts"]["found"] > 3 and by_boxes["counts"]["found"] > 3


def test_the_diameter_of_boxes_is_that_of_ellipses_in_them(evaluate, folders):
    _, result = evaluate(folders / "boxed", diameter="annotated")
    medians = []
    for image in sorted((folders / "train").glob("*_masks.png")):
        sizes = [
            (cell.bbox[2] - cell.bbox[0]) * (cell.bbox[3] - cell.bbox[1])
            for cell in regionprops(read_labels(image).astype(np.int64))
        ]
        medians.append(np.median(np.sqrt(sizes)))
    assert result["run"]["diameter"]["used"] == pytest.approx(np.mean(medians))


def test_two_models_are_compared_on_boxes_and_never_boxes_with_masks(
    evaluate, folders, run_script, tmp_path
):
    shutil.copytree(folders / "boxed", tmp_path / "test")
    evaluate(tmp_path / "test", out="metrics/one")
    evaluate(tmp_path / "test", out="metrics/two", diameter="50")
    models = ("--metrics_dir", tmp_path / "metrics", "--splits", "test", "--models", "one")
    code, said, err = run_script("compare", *models, "two")
    assert code == 0, err
    assert "| F1 of cells " in said and "pixel" not in said and "nan" not in said
    shutil.rmtree(tmp_path / "test")
    shutil.copytree(folders / "train", tmp_path / "test")
    evaluate(tmp_path / "test", out="metrics/masks")
    code, _, err = run_script("compare", *models, "masks")
    assert code == 2 and "were scored on different cells of test" in err
