"""Copies of this repository, to run DVC's commands in."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import yaml

from cellular.base.params import read_params
from cellular.imaging.images import read_image, read_labels, write_labels
from helpers.annotations import ROOT, write_png

# Small enough for minutes; the way through the pipeline is the same.
QUICK = {"n_epochs": 2, "images_per_epoch": 4, "valid_images": 2, "batch_size": 4}
# The parameters with which training is Cellpose's own.
REFERENCE = read_params(ROOT / "conf/reference.yaml")
DEFAULT = read_params(ROOT / "params.yaml")
SIDE = 640  # pixels of the corner of each real field that the quick pipeline runs on


def environment() -> dict[str, str]:
    """Return this environment, with the commands of this Python first."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


class Repository:
    """A git repository in a folder, and the commands that one gives there."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.errors = ""

    @classmethod
    def copy(cls, folder: Path) -> "Repository":
        """Return a new repository with the files of this one as they are now."""
        made = cls(folder)
        listed = made.git("ls-files", "-co", "--exclude-standard", "-z", cwd=ROOT)
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes((ROOT / name).read_bytes())
        made.git("init", "-q", "-b", "main")
        made._configure()
        made.commit("copy")
        return made

    def clone(self, folder: Path) -> "Repository":
        """Return a clone that has this repository's data, too."""
        self.git("clone", "-q", str(self.folder), str(folder))
        clone = Repository(folder)
        clone._configure()
        clone.dvc("config", "--local", "cache.dir", str(self.folder / ".dvc" / "cache"))
        clone.dvc("checkout", "-q")
        return clone

    def _configure(self) -> None:
        self.git("config", "user.name", "test")
        self.git("config", "user.email", "test@example.org")

    def run(self, *command: str, cwd: Path | None = None, code: int = 0) -> str:
        """Run a command, check its exit code, and return what it prints."""
        done = subprocess.run(
            command, cwd=cwd or self.folder, env=environment(), capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        self.errors = done.stderr
        return done.stdout

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        return self.run("git", *arguments, cwd=cwd)

    def dvc(self, *arguments: str, code: int = 0) -> str:
        return self.run("dvc", *arguments, code=code)

    def repro(self, *arguments: str) -> set[str]:
        """Run `dvc repro`, and return the stages that were run."""
        return stages_run(self.dvc("repro", *arguments))

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)

    def restore(self) -> None:
        """Go back to the last commit, with its data."""
        self.git("checkout", "-q", ".")
        self.dvc("checkout", "-q")

    def change(self, section: str | None = None, **values: object) -> None:
        """Change parameters of a section of params.yaml, or of its top level."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        (params[section] if section else params).update(values)
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def json(self, name: str) -> dict:
        return json.loads((self.folder / name).read_text())


def write_params(folder: Path, changes: dict[str, object]) -> Path:
    """Write the real params.yaml to a folder, some values changed by their names with dots."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for dotted, value in changes.items():
        *sections, name = dotted.split(".")
        place = content
        for section in sections:
            place = place[section]
        place[name] = value
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def stages_run(output: str) -> set[str]:
    """Return the stages that DVC ran, by what it printed."""
    return set(re.findall(r"Running stage '([^']+)'", output))


def real_corners(sample: Path, folder: Path) -> None:
    """Write a corner of each real field, at half its size, as a user's own folder."""
    for image in sorted((sample / "images").glob("*.jpg")):
        corner = (slice(0, 2 * SIDE), slice(0, 2 * SIDE))
        pixels = cv2.resize(read_image(image)[corner], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        write_png(folder / "images" / f"{image.stem}.png", pixels)
        labels = read_labels(sample / "masks" / f"{image.stem}.tif")[corner][::2, ::2]
        (folder / "masks").mkdir(exist_ok=True)
        write_labels(folder / "masks" / f"{image.stem}.png", labels)


def quick_pipeline(folder: Path, sample: Path) -> Repository:
    """Return a copy of this repository in which the pipeline was run, with quick parameters."""
    repository = Repository.copy(folder / "repository")
    real_corners(sample, folder / "real corners")
    repository.change(None, dataset="local", diameter={"pretrained": 60, "finetuned": None})
    repository.change("data", path=str(folder / "real corners"))
    repository.change("train", **QUICK, precision="32")
    repository.change("eval", precision="32")
    repository.commit("quick parameters")  # before the run: the report names this commit
    repository.dvc("repro")
    repository.commit("quick")
    return repository
