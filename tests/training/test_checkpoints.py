"""Saved states belong to the code that wrote them, all packages included."""

import shutil
import subprocess
import sys

import pytest
from helpers.annotations import ROOT

pytestmark = pytest.mark.slow

PROGRAM = "import train; from cellular.training.checkpoints import code_identity as i; print(i())"


@pytest.fixture
def source(tmp_path):
    """A copy of src."""
    return shutil.copytree(ROOT / "src", tmp_path / "src")


def identity(source):
    """Return the lines of the identity of the code in a copy of src, as train.py loads it."""
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_identity_changes_with_a_file_of_another_package(source):
    before = identity(source)
    assert identity(source) == before
    other = source / "cellular/imaging/normalisation.py"
    other.write_text(other.read_text() + "\n# changed\n")
    changed = [line for line in identity(source) if line not in before]
    assert [line.split()[0] for line in changed] == ["cellular.imaging.normalisation"]


def test_the_identity_lists_modules_of_every_package_that_training_uses(source):
    names = {line.split()[0] for line in identity(source)}
    assert names >= {
        "cellular.base.params",
        "cellular.imaging.trainingset",
        "cellular.network.weights",
        "cellular.training.crops",
        "cellular.training.loop",
        "cellpose",
        "torch",
    }
    # The catalogue of downloads has no influence on a training that starts from a file.
    assert not any(name.startswith("cellular.fetching") for name in names)
