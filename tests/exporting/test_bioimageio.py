"""Packages of bioimage.io: bioimage.io's own test passes on them, and they say what they are."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers.annotations import ROOT
from helpers.repository import environment

from cellular.base.errors import InputError
from cellular.base.files import digest, digest_folder
from cellular.exporting.bioimageio import export
from cellular.exporting.network import Flows
from cellular.imaging.images import read_image
from cellular.network import weights
from cellular.network.segmentation import Network, load_model
from cellular.network.settings import Settings
from cellular.network.tiles import cut, join

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
SETTINGS = Settings(diameter=121, cellprob_threshold=-0.5)
COLOURED = Settings(channels=(2, 3), diameter=121, augment=True)
CARD = "# Cells of flies\n\n## Validation\n\nScores of a test."


@pytest.fixture(scope="module")
def image(sample: Path) -> np.ndarray:
    """A corner of a real field, whose cells have a diameter of 121 pixels."""
    return read_image(sample / "images" / "Timepoint_001_220518-ST_C03_s3.jpg")[:1100, :1000]


@pytest.fixture(scope="module")
def package(pretrained: Path, image: np.ndarray, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "package"
    export(pretrained, SETTINGS, image, folder, citation=CITATION, card=CARD, pixel_size=0.1733)
    return folder


def described(package: Path) -> dict:
    return yaml.safe_load((package / "rdf.yaml").read_text(encoding="utf-8"))


def bioimageio(*arguments: object) -> int:
    """Run a command of bioimage.io and return its exit code."""
    command = [str(Path(sys.executable).parent / "bioimageio"), *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True).returncode


@pytest.mark.slow
def test_bioimageio_reproduces_the_cells_that_this_project_finds(package, tmp_path):
    pytest.importorskip("bioimageio.core")
    assert bioimageio("test", package) == 0
    assert bioimageio("package", package, tmp_path / "cellular.zip") == 0
    with zipfile.ZipFile(tmp_path / "cellular.zip") as packed:
        assert {"weights.pt", "network.py", "README.md"} < set(packed.namelist())


@pytest.mark.slow
def test_bioimageio_tells_cells_that_differ(package, tmp_path):
    pytest.importorskip("bioimageio.core")
    shutil.copytree(package, tmp_path / "other")
    cells = tmp_path / "other" / "test_cells.npy"
    labels = np.load(cells)
    np.save(cells, np.where(labels == 1, 0, labels).astype(np.uint16))
    rdf = (package / "rdf.yaml").read_text(encoding="utf-8")
    rdf = rdf.replace(digest(package / "test_cells.npy"), digest(cells))
    (tmp_path / "other" / "rdf.yaml").write_text(rdf, encoding="utf-8")
    assert bioimageio("test", tmp_path / "other", "--stop-early") != 0


@pytest.mark.slow
def test_a_package_of_two_channels_and_mirrored_tiles_passes_too(pretrained, image, tmp_path):
    pytest.importorskip("bioimageio.core")
    package = tmp_path / "package"
    export(pretrained, COLOURED, image[:520, :480], package, citation=CITATION)
    axes = described(package)["inputs"][0]["axes"]
    assert axes[1]["channel_names"] == ["green", "nuclei, blue"]
    assert "unit" not in axes[2]  # no pixel size is known
    pixels = np.load(package / "test_image.npy")[0]
    assert pixels.mean((1, 2)) == pytest.approx(image[:520, :480, 1:].mean((0, 1)), rel=0.02)
    assert bioimageio("test", package) == 0


def test_the_same_model_gives_the_same_bytes(package, pretrained, image, tmp_path):
    again = tmp_path / "again"
    export(pretrained, SETTINGS, image, again, citation=CITATION, card=CARD, pixel_size=0.1733)
    assert digest_folder(again) == digest_folder(package)


def test_a_package_says_what_a_user_has_to_know(package, pretrained):
    says = described(package)
    assert says["license"] == "BSD-3-Clause"
    assert says["authors"] == [{"name": "the CELLULAR experiments authors"}]
    assert [work["doi"] for work in says["cite"]] == [
        "10.1038/s41597-023-02687-x",
        "10.1038/s41592-020-01018-x",
    ]
    card = (package / "README.md").read_text(encoding="utf-8")
    assert CARD in card and "by 0.2479 first" in card  # 30 px / 121 px
    for axis in says["inputs"][0]["axes"][2:] + says["outputs"][0]["axes"][2:]:
        assert axis["unit"] == "micrometer"
        assert axis["scale"] == pytest.approx(0.1733 * 121 / 30, abs=1e-6)
    thresholds = says["outputs"][0]["postprocessing"][0]["kwargs"]
    assert (thresholds["flow_threshold"], thresholds["cellprob_threshold"]) == (0.4, -0.5)
    assert says["config"]["cellular"]["diameter"] == 121
    entry = says["weights"]["pytorch_state_dict"]
    assert entry["architecture"]["kwargs"] == {"augment": False}
    assert entry["sha256"] == digest(pretrained) == digest(package / "weights.pt")


def test_the_test_image_is_the_grey_middle_at_the_networks_scale(package, image):
    (pixels,), (labels,) = (
        np.load(package / name) for name in ("test_image.npy", "test_cells.npy")
    )
    assert pixels.shape == labels.shape == (1, 256, 247)  # of 1100 x 1000 pixels, by 30 / 121
    assert pixels.dtype == np.float32 and labels.dtype == np.uint16
    assert pixels.mean() == pytest.approx(image.mean(), rel=0.1)
    assert labels.max() > 5


def test_a_package_has_the_flows_of_this_projects_tiles(pretrained):
    model = load_model(pretrained, torch.device("cpu"))
    image = np.random.default_rng(0).random((250, 300, 2), np.float32)
    image[..., 1] = 0  # a package fills the channel that is missing
    tiles = cut(image, 1, augment=False)
    expected = join(tiles, Network(model, Settings(precision="32"))(tiles.tiles))
    ours = Flows()
    ours.load_state_dict(weights.load(pretrained))
    grey = torch.from_numpy(image[None, None, ..., 0])
    assert ours(grey)[0].numpy() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("size", "message"), [(1000, "no cell was found"), (200, "give a larger image")]
)
def test_an_image_that_tests_nothing_is_refused(pretrained, tmp_path, size, message):
    with pytest.raises(InputError, match=message):
        export(
            pretrained, SETTINGS, np.zeros((size, size)), tmp_path / "package", citation=CITATION
        )
    assert list(tmp_path.iterdir()) == []


def test_the_script_exports_bare_weights_too(run_script, pretrained, pieces, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, errors = run_script("export", pretrained)
    assert code == 2 and "give one with --image" in errors
    field = pieces / "train" / "Timepoint_001_220518-ST_C03_s3_0.png"
    code, said, errors = run_script("export", pretrained, "--image", field)
    assert code == 0, errors
    assert "cells" in said and (tmp_path / "exported" / "rdf.yaml").is_file()
    code, _, errors = run_script("export", pretrained, "--image", field)
    assert code == 2 and "--force" in errors
