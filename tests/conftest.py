"""What several tests need: small annotations of our own, and the real fields and weights."""

import os
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from helpers.annotations import Annotations, write_png
from helpers.repository import Repository, quick_pipeline
from hypothesis import settings

from cellular.fetching.datasets import fetch_dataset
from cellular.fetching.pretrained import pretrained_state
from cellular.imaging.images import read_image, read_labels, write_labels
from cellular.network import weights

# No deadline: timings are never asserted. The same examples in every run.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


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


@pytest.fixture(scope="session")
def finished_pipeline(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The pipeline, run with quick parameters once for all tests. Do not change it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "pipeline"
    with FileLock(shared / "pipeline.lock"):
        if folder.exists():
            return Repository(folder / "repository")
        return quick_pipeline(folder, sample)


@pytest.fixture(scope="module")
def repository(
    finished_pipeline: Repository, tmp_path_factory: pytest.TempPathFactory
) -> Repository:
    """A clone of the finished pipeline for one file of tests."""
    return finished_pipeline.clone(tmp_path_factory.mktemp("clone") / "repository")


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
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run
