"""eval.py: Cellpose's own masks, honest scores, results where they are looked for."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from cellpose.metrics import average_precision
from cellpose.models import CellposeModel
from conftest import write_png
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from cellular.fields import check_pairs, read_pair
from cellular.images import read_image, read_labels, write_labels
from cellular.overlays import FOUND, GREYS, INVENTED, MISSED, draw
from cellular.params import SegmentParams
from cellular.segmentation import load_model, segment

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


def test_the_result_is_what_sklearn_and_cellpose_say_of_the_masks_it_wrote(
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
    found = result["objects"]
    for index, threshold in enumerate(("0.5", "0.75", "0.9")):
        assert found["average_precision"][threshold] == pytest.approx(
            np.mean([*expected[:, index], 1.0]), abs=1e-7
        )
        for name, counts in (("tp", tp), ("fp", fp), ("fn", fn)):
            assert found[name][threshold] == counts[:, index].sum()


@pytest.mark.parametrize("resample", [False, True])
@pytest.mark.parametrize("channels", [[0, 0], [2, 1]])
def test_masks_are_those_of_a_plain_cellpose_model(real, pretrained, resample, channels):
    cpu = torch.device("cpu")
    pair = check_pairs(real)[0]
    params = SegmentParams(diameter=121, resample=resample, channels=channels)
    ours = segment(load_model(pretrained, cpu), read_pair(pair)[0], params)
    plain = CellposeModel(pretrained_model=str(pretrained), device=cpu)
    image = cv2.imread(str(pair.image))[..., ::-1]
    theirs = plain.eval(image, channels=channels, diameter=121, resample=resample)[0]
    assert ours.max() > 5
    assert np.array_equal(ours, theirs)


def test_the_stored_diameter_is_used_when_none_is_given(real, pretrained):
    model = load_model(pretrained, torch.device("cpu"))
    image = read_pair(check_pairs(real)[0])[0][:256, :256]
    by_default = segment(model, image, SegmentParams())
    assert np.array_equal(by_default, segment(model, image, SegmentParams(diameter=30)))


def test_results_can_go_where_the_pipeline_wants_them(evaluate, tmp_path):
    code, _, _ = evaluate(
        *("--predictions_dir", tmp_path / "p", "--overlays_dir", tmp_path / "o"),
        *("--overlays", 1, "--resample", "false"),
    )
    assert code == 0
    assert len(list((tmp_path / "p").iterdir())) == 3
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["test_a.png"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["test_eval.json"]


def test_overlay_shows_found_missed_and_invented():
    truth, predicted = np.zeros((2, 60, 60), np.uint16)
    truth[5:20, 5:20], truth[40:55, 5:20] = 1, 2
    predicted[5:20, 5:20], predicted[5:20, 40:55] = 1, 2
    picture = draw(np.zeros((60, 60), np.uint8), truth, predicted)
    assert isinstance(picture, Image.Image)
    indices, palette = np.asarray(picture), np.array(picture.getpalette()).reshape(-1, 3)
    for (y, x), colour in (((5, 10), FOUND), ((40, 10), MISSED), ((5, 50), INVENTED)):
        assert tuple(palette[indices[y, x]]) == colour
    assert indices[12, 12] < GREYS


def no_model(folder, weights_file):
    return {"model": folder / "nowhere"}, "no such weights file"


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


def image_cut_short(folder, weights_file):
    path = folder / "test" / "b.png"
    path.write_bytes(path.read_bytes()[:-500])
    return {"test_dir": folder / "test"}, "b.png: no readable image, or cut short"


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
        image_cut_short,
        no_device,
    ],
)
def test_bad_input_gets_one_clear_error_and_leaves_nothing(
    evaluate, real, pretrained, tmp_path, spoil
):
    shutil.copytree(real, tmp_path / "test")
    options, told = spoil(tmp_path, pretrained)
    code, out, err = evaluate(*options.pop("arguments", ()), **options)
    assert (code, out) == (2, "") and told in err and err.count("error: ") == 1
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_an_output_that_exists_is_not_overwritten(evaluate, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "test_eval.json").write_text("{}")
    code, _, err = evaluate()
    assert code == 2 and "exists already" in err and "--force" in err
    assert (tmp_path / "out" / "test_eval.json").read_text() == "{}"
