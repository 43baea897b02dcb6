"""A model that is used, and small real images with cells."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from cellular.base.files import digest
from cellular.imaging.images import image_files, read_image

SETTINGS = {
    "channels": [2, 1],
    "normalisation": {},
    "diameter": 40.0,
    "network_diameter": 30.0,
    "flow_threshold": 0.4,
    "cellprob_threshold": 0.0,
    "resample": False,
    "augment": False,
    "seen": {
        "channels": [3],
        "brightness": [0.18, 0.22],
        "saturated": 0.2,
        "diameter": 40.0,
        "pixel_size": 0.5,
    },
    "cellpose": "3.1.1.3",
    "run": {},
}


@pytest.fixture(scope="session")
def model(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder with real weights, for cells of 40 px in green, with red beside it."""
    folder = tmp_path_factory.mktemp("models") / "model"
    folder.mkdir()
    shutil.copyfile(pretrained, folder / "real")
    weights = {"file": "real", "sha256": digest(folder / "real")}
    (folder / "settings.json").write_text(json.dumps({"weights": weights} | SETTINGS))
    return folder


@pytest.fixture(scope="session")
def corners(pieces: Path) -> list[np.ndarray]:
    """Eight real images, each (160, 160, 3) uint8, one tile for the network."""
    files = [path for path in image_files(pieces / "train") if not path.stem.endswith("_masks")]
    places = [np.s_[y : y + 160, x : x + 160] for y in (0, 160) for x in (0, 160)]
    return [read_image(path)[place] for path in files[:2] for place in places]


@pytest.fixture(scope="session")
def images(corners: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six of them."""
    folder = tmp_path_factory.mktemp("images") / "images"
    folder.mkdir()
    for number, corner in enumerate(corners[:6], 1):
        assert cv2.imwrite(str(folder / f"image_{number}.png"), corner[..., ::-1])
    return folder
