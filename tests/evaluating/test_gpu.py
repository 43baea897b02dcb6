"""On a GPU, evaluation in each number format finds nearly the cells that the CPU finds."""

import json

import numpy as np
import pytest
import torch
from helpers.annotations import write_png

from cellular.imaging.images import read_image, read_labels, write_labels
from cellular.imaging.matching import count_overlaps, match

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

FIELD = "Timepoint_005_220518-ST_C03_s3"


@pytest.fixture(scope="module")
def test_dir(sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "test"
    piece = np.s_[:900, :900]
    write_png(folder / "a.png", read_image(sample / "images" / f"{FIELD}.jpg")[piece])
    labels = read_labels(sample / "masks" / f"{FIELD}.tif")[piece]
    write_labels(folder / "a_masks.png", labels.astype(np.uint16))
    return folder


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("precision", ["32", "tf32", "bf16", "fp16"])
def test_a_gpu_finds_the_cells_that_the_cpu_finds(
    run_script, test_dir, pretrained, tmp_path, precision, augment
):
    found = {}
    for device, used in (("cpu", "32"), ("cuda", precision)):
        out = tmp_path / device
        code, _, _ = run_script(
            *("eval", "--test_dir", test_dir, "--model_path", pretrained, "--output_dir", out),
            *("--diameter", "annotated", "--augment", augment),
            *("--device", device, "--precision", used),
        )
        run = json.loads((out / "test_eval.json").read_text())["run"]
        assert code == 0 and (run["device"], run["precision"]) == (device, used)
        found[device] = read_labels(out / "images" / "pred_a.png")
    same = np.sum(match(count_overlaps(found["cpu"], found["cuda"])).iou > 0.8)
    assert same >= 0.85 * max(found["cpu"].max(), found["cuda"].max()) > 10
    assert np.mean((found["cpu"] > 0) == (found["cuda"] > 0)) > 0.98
