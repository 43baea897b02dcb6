"""A clone has the user's files and settings, and ends without a trace whatever is killed."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.annotations import ROOT
from helpers.repository import Repository, environment

from cellular.base.errors import InputError
from cellular.experiments.clones import HOME, run_in_clone

REFERENCE = "refs/exps/made"
# Commits what is in the clone, and DVC's settings there, as an experiment.
SAVE = (
    "cp .dvc/config.local settings.txt && git add settings.txt"
    f" && git commit -q -a -m made && git update-ref {REFERENCE} HEAD"
)


@pytest.fixture
def repository(tmp_path):
    """A repository with three files, which is a shallow clone itself."""
    origin = Repository(tmp_path / "origin")
    origin.folder.mkdir()
    origin.git("init", "-q", "-b", "main")
    origin._configure()
    origin.dvc("init", "-q")
    for name in ("kept", "with space", "deleted"):
        (origin.folder / name).write_bytes(b"\0first\r\n")
        origin.commit(name)
    made = Repository(tmp_path / "repository")
    made.git("clone", "-q", "--depth=1", f"file://{origin.folder}", str(made.folder), cwd=tmp_path)
    made._configure()
    return made


def head(repository):
    return repository.git("rev-parse", "HEAD").strip()


def run(repository, command=SAVE, name="made"):
    return run_in_clone(repository.folder, name, head(repository), ["sh", "-c", command], REFERENCE)


def test_changes_that_are_not_committed_are_in_the_clone(repository):
    (repository.folder / "with space").write_bytes(b"\0second\r\n")
    (repository.folder / "deleted").unlink()
    (repository.folder / "staged").write_bytes(b"\xff\n")
    repository.git("add", "staged")
    (repository.folder / "untracked").write_text("")
    before = repository.git("status", "--porcelain")
    assert run(repository)
    listed = repository.git("ls-tree", "--name-only", REFERENCE).split("\n")
    assert {"kept", "with space", "staged"} <= set(listed)
    assert not {"deleted", "untracked"} & set(listed)
    for name in ("kept", "with space", "staged"):
        blob = subprocess.run(
            ["git", "show", f"{REFERENCE}:{name}"], cwd=repository.folder, capture_output=True
        )
        assert blob.stdout == (repository.folder / name).read_bytes()
    assert repository.git("rev-parse", f"{REFERENCE}~1").strip() == head(repository)
    assert repository.git("status", "--porcelain") == before
    assert not (repository.folder / HOME / "made").exists()


def test_settings_of_this_machine_lead_to_the_same_places(repository):
    here = repository.folder

    def places():
        """Return where the cache and the remotes are for DVC in the clone."""
        run(repository)
        lines = repository.git("show", f"{REFERENCE}:settings.txt").splitlines()
        repository.git("update-ref", "-d", REFERENCE)
        return [
            os.path.normpath(here / HOME / "made" / ".dvc" / line.split(" = ")[1])
            for line in lines
            if line.strip().startswith(("dir", "url"))
        ]

    assert places() == [f"{here}/.dvc/cache"]
    # In these files, relative paths start at the folder of the file.
    (here / ".dvc" / "config.local").write_text(
        "[cache]\n    dir = ../../cache\n['remote \"mirror\"']\n    url = ../mirror\n"
    )
    (here / ".dvc" / "config").write_text("['remote \"team\"']\n    url = ../../team\n")
    folders = (here.parent / "cache", here.parent / "team", here / "mirror")
    assert sorted(places()) == sorted(map(str, folders))
    (here / ".dvc" / "config").write_text("[core]\n    moon = 1\n")
    with pytest.raises(InputError, match="moon"):
        places()


def test_a_command_that_fails_leaves_nothing(repository):
    assert not run(repository, f"{SAVE}; false")
    assert not repository.git("for-each-ref", "refs/exps")
    assert not (repository.folder / HOME / "made").exists()


def test_a_clone_is_not_taken_from_a_command_that_outlived_its_grid(repository):
    """Only the first process is killed; what it started goes on in the clone."""
    here = repository.folder
    code = (
        "from pathlib import Path; from cellular.experiments.clones import run_in_clone; "
        f"run_in_clone(Path({str(here)!r}), 'made', {head(repository)!r}, "
        f"['sh', '-c', 'echo $$ > pid.new; mv pid.new pid; exec sleep 600'], {REFERENCE!r})"
    )
    modules = {"PYTHONPATH": str(ROOT / "src")}
    running = subprocess.Popen([sys.executable, "-c", code], env=environment() | modules)
    pid = here / HOME / "made" / "pid"
    while not pid.exists() and running.poll() is None:
        time.sleep(0.05)
    running.kill()
    running.wait()
    try:
        with pytest.raises(InputError, match="another process runs this experiment now"):
            run(repository)
        assert run(repository, name="other")  # which removes only what nobody uses
        assert pid.exists()
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while pid.exists() and time.monotonic() < deadline:  # a kill takes a moment
        assert not run(repository, "false", name="other")
    assert not pid.parent.exists()
