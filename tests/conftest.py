"""What several tests need: small annotations of our own, and the real fields and weights."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import settings

from cellular.fetching.datasets import fetch_dataset
from cellular.fetching.pretrained import pretrained_state
from cellular.imaging.images import read_image, read_labels, write_labels
from cellular.imaging.trainingset import TrainingField, make_field, percentiles
from cellular.network import weights
from cellular.preparing.flows import annotated, flows_of

# No deadline: timings are never asserted. The same examples in every run.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parents[1]
SIDE = 96


def disc(y: int, x: int, radius: int = 8, side: int = SIDE) -> np.ndarray:
    """Return a round object, (side, side) bool."""
    rows, columns = np.ogrid[:side, :side]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def write_png(path: Path, image: np.ndarray) -> Path:
    """Write an image, R G B, as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)
    return path


def coloured(mask: np.ndarray, colour: tuple[int, int, int] = (0, 0, 7)) -> np.ndarray:
    """Return a mask as the data set's own colour PNGs have it."""
    return mask[..., None] * np.array(colour, np.uint8)


class Annotations:
    """A folder of masks in the paper's layout, and one of images, to be written to."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.masks, self.images = folder / "masks", folder / "images"
        self.out = folder / "out"
        for made in (self.masks, self.images):
            made.mkdir(parents=True)

    def image(self, field: str, side: int = SIDE, suffix: str = ".png") -> Path:
        noise = np.random.default_rng(len(field)).integers(0, 255, (side, side, 3), np.uint8)
        return write_png(self.images / f"{field}{suffix}", noise)

    def object(self, field: str, class_name: str, name: str, mask: np.ndarray) -> Path:
        return write_png(self.masks / field / class_name / f"{name}.png", coloured(mask))

    def field(self, field: str, **classes: int) -> None:
        """Write an image and, by class, some discs that touch nothing."""
        self.image(field)
        places = [(y, x) for y in range(12, SIDE - 8, 20) for x in range(12, SIDE - 8, 20)]
        for class_name, count in classes.items():
            for number in range(1, count + 1):
                self.object(field, class_name, f"cell_{number}", disc(*places.pop(0)))

    def three_splits(self) -> "Annotations":
        """Write one field for each split, by the paper's patterns."""
        for name in ("a_ST_D01_s1", "a_ST_I06_s1", "a_ST_C03_s1"):
            self.field(name, fed=6, unfed=5, Unidentified=2)
        return self


@pytest.fixture
def annotations(tmp_path: Path) -> Annotations:
    return Annotations(tmp_path / "annotations")


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The five real fields, as data/raw has them."""
    folder = tmp_path_factory.mktemp("sample") / "raw"
    fetch_dataset("sample", folder)
    return folder


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real generalist weights, as models/pretrained has them."""
    path = tmp_path_factory.mktemp("weights") / "pretrained"
    weights.save(pretrained_state("scellseg"), path)
    return path


@pytest.fixture(scope="session")
def pieces(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared folders with real pieces, a third as large: three to train, one to validate."""
    folder = tmp_path_factory.mktemp("pieces")
    for split, time, corners in (("train", 1, (0, 400, 800)), ("valid", 4, (0,))):
        field = f"Timepoint_00{time}_220518-ST_C03_s3"
        image = read_image(sample / "images" / f"{field}.jpg")
        labels = read_labels(sample / "masks" / f"{field}.tif")
        for corner in corners:
            piece = np.s_[corner : corner + 960 : 3, corner : corner + 960 : 3]
            write_png(folder / split / f"{field}_{corner}.png", image[piece])
            write_labels(folder / split / f"{field}_{corner}_masks.png", labels[piece])
    return folder


def in_memory(name: str, image: np.ndarray, labels: np.ndarray, channels=(0, 0)) -> TrainingField:
    """Return a field of the training set that was never on the disk, with exact flows."""
    field = annotated(image, labels)
    return make_field(
        name, field.image, flows_of(field.labels), percentiles(field.image), channels,
        cells=field.cells, diameter=field.diameter,
    )  # fmt: skip


@pytest.fixture
def run_script(capsys: pytest.CaptureFixture):
    """Run a stage script in this process; return its exit code, output and errors."""
    from cellular.base import cli

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        module = __import__(name)
        capsys.readouterr()
        code = 0
        try:
            cli.run(module.main, [str(argument) for argument in arguments])
        except SystemExit as left:
            code = left.code
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return code, told.out, told.err

    return run
