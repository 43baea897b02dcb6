"""A user's own images, by the command of the README: other cells, at another scale, in classes."""

import shlex

import cv2
import numpy as np
import pytest
from helpers.annotations import write_png

from cellular.imaging.images import read_image, read_labels

pytestmark = pytest.mark.slow

SCALE = 4  # cells of 120 px are 30 px afterwards
SIDE = 320  # px
FIELDS = {1: "a", 2: "b", 3: "c", 4: "d_valid", 5: "e_test"}
COMMAND = (
    """dvc exp run -S dataset=local -S 'data.path="{path}"' """
    "-S prepare.val_pattern=_valid -S prepare.test_pattern=_test"
)


@pytest.fixture
def own_images(sample, tmp_path):
    """Corners of the real fields, a quarter of their size, with a mask for each cell by class."""
    folder = tmp_path / "my images"
    for time, name in FIELDS.items():
        field = f"Timepoint_00{time}_220518-ST_C03_s3"
        corner = np.s_[: SCALE * SIDE, : SCALE * SIDE]
        pixels = read_image(sample / "images" / f"{field}.jpg")[corner]
        small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        write_png(folder / "images" / f"{name}.png", small)
        labels = read_labels(sample / "masks" / f"{field}.tif")[corner][::SCALE, ::SCALE]
        for label in np.unique(labels[labels > 0]):
            kind = "dead cells" if label % 3 == 0 else "living cells"
            mask = np.where(labels == label, 255, 0).astype(np.uint8)
            write_png(folder / "masks" / name / kind / f"cell_{label}.png", mask)
    return folder


def test_own_images_by_the_command_of_the_readme(repository, own_images):
    command = shlex.split(COMMAND.format(path=own_images))
    repository.change(None, diameter={"pretrained": "annotated", "finetuned": None})
    repository.run(*command, "-S", "class_name=living cells", "-n", "own")
    report = repository.json("metrics/prepare.json")["splits"]
    assert report.keys() == {"all", "dead cells", "living cells"}
    cells = {split: counts["cells"] for split, counts in report["living cells"].items()}
    assert min(cells.values()) > 10
    assert repository.json("metrics/train.json")["cells"]["train"] == cells["train"]
    for model in ("pretrained", "finetuned"):
        scores = repository.json(f"metrics/{model}/test_eval.json")
        assert scores["groups"]["class"].keys() == {"living cells"}
        assert scores["groups"]["class"]["living cells"]["cells"] == cells["test"]
        # Cells of 30 px, and not of the 120 px of the sample.
        diameter = scores["run"]["diameter"]
        assert 20 < diameter["annotated"] < 45
        assert diameter["used"] == pytest.approx(diameter["annotated"], rel=0.3)
    pretrained = repository.json("metrics/pretrained/test_eval.json")
    assert pretrained["objects"]["recall"] > 0.1
    # The same command with nothing changed has nothing to do.
    repository.run(*command, "-S", "class_name=living cells", "-S", "data.version=2")
    assert "own" in repository.dvc("exp", "list", "--all-commits")
