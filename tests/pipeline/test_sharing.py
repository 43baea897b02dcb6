"""What docs/sharing.md says of sharing a model, done with remotes that are folders."""

import re
import shutil
from pathlib import Path

import pytest
from helpers.annotations import ROOT
from helpers.repository import Repository

from cellular.base.files import digest

pytestmark = pytest.mark.slow

DOCUMENT = (ROOT / "docs/sharing.md").read_text(encoding="utf-8")
REMOTE = "/mnt/shared/cellular.git"  # the address in the document
MODEL = "models/finetuned"


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    return found


@pytest.fixture(scope="module")
def shared(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the git remote of a repository, whose model has a version, and its weights."""
    folder = tmp_path_factory.mktemp("shared")
    repository.git("init", "-q", "--bare", "-b", "main", str(folder / "cellular.git"))
    repository.git("remote", "set-url", "origin", str(folder / "cellular.git"))
    repository.dvc("remote", "add", "-d", "team", str(folder / "data"))
    repository.commit("remote of the team")
    repository.dvc("push")
    repository.run("gto", "register", "cellular", "--version", "v1.0.0")
    repository.git("push", "-q", "origin", "HEAD", "cellular@v1.0.0")
    return folder


def test_a_model_is_taken_by_name_and_version(repository, shared, tmp_path):
    assert re.search(r"cellular.*v1\.0\.0", repository.run("gto", "show"))
    address = str(shared / "cellular.git")
    take = ("dvc", "artifacts", "get", address, "cellular")
    for options in (["--rev", "v1.0.0"], []):
        repository.run(*take, *options, "--out", "model", cwd=tmp_path)
        taken = {
            path.name: digest(path)
            for path in (tmp_path / "model").iterdir()
            if not path.name.startswith(".")
        }
        ours = {name: digest(repository.folder / MODEL / name) for name in taken}
        assert taken == ours and len(taken) == 3
        shutil.rmtree(tmp_path / "model")
    repository.run(*take, "--rev", "v9.9.9", cwd=tmp_path, code=1)


def test_an_experiment_is_pushed_and_pulled(repository, shared, tmp_path):
    repository.dvc("exp", "run", "-n", "looser", "-S", "eval.cellprob_threshold=-1")
    repository.dvc("exp", "push", "origin", "looser")
    assert "looser" in repository.dvc("exp", "list", "origin")
    repository.restore()
    colleague = Repository(tmp_path / "colleague")
    colleague.git("clone", "-q", str(shared / "cellular.git"), "colleague", cwd=tmp_path)
    colleague.dvc("exp", "pull", "origin", "looser")
    colleague.dvc("exp", "apply", "looser")
    assert colleague.json("metrics/summary.json") != repository.json("metrics/summary.json")
    assert "cellprob_threshold: -1" in (colleague.folder / "params.yaml").read_text()


def test_another_project_takes_the_model_segments_and_counts(repository, shared, tmp_path):
    project = Repository(tmp_path / "counting")
    project.folder.mkdir()
    project.git("init", "-q")
    project.dvc("init", "-q")
    (tmp_path / "cellular").symlink_to(repository.folder)
    stages = block("yaml").replace(REMOTE, str(shared / "cellular.git"))
    (project.folder / "dvc.yaml").write_text(stages, encoding="utf-8")
    (project.folder / "count_cells.py").write_text(block("python"), encoding="utf-8")
    images = sorted((repository.folder / "data/raw/images").iterdir())[:2]
    (project.folder / "images").mkdir()
    for image in images:
        shutil.copyfile(image, project.folder / "images" / image.name)
    assert project.repro() == {"model", "segment", "count"}
    names, *counts = (project.folder / "cells.csv").read_text().splitlines()
    assert names == "image,cells" and len(counts) == 2
    (project.folder / "images" / images[1].name).unlink()
    assert project.repro() == {"segment", "count"}


def test_cellpose_lists_the_model(repository, tmp_path):
    folder = tmp_path / ".cellpose/models"
    folder.mkdir(parents=True)
    weights = str(repository.folder / MODEL / "cellular_finetuned")
    repository.run("env", f"HOME={tmp_path}", "cellpose", "--add_model", weights)
    assert (folder / "gui_models.txt").read_text() == "cellular_finetuned\n"
    assert digest(folder / "cellular_finetuned") == digest(Path(weights))
