"""A clone has the user's files and settings, and serves again whatever is killed."""

import os
import subprocess
import sys
import time

import pytest
from helpers.annotations import ROOT
from helpers.repository import Repository, environment

from cellular.base.errors import InputError
from cellular.experiments.clones import HOME, a_clone

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


def run(repository, command=SAVE):
    """Run a command in a clone; if it succeeds, take home what it made."""
    with a_clone(repository.folder) as clone:
        if clone.run(["sh", "-c", command]):
            clone.send_home(REFERENCE)
            return True
        return False


def clones(repository):
    return sorted(path for path in (repository.folder / HOME).iterdir() if path.is_dir())


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


def test_a_clone_is_used_again_with_the_files_of_then_and_the_data_of_before(repository):
    with a_clone(repository.folder) as clone:
        (clone.folder / "data.bin").write_text("not tracked, as DVC's data are")
        (clone.folder / "kept").write_text("changed by a command")
        clone.restore()
        assert (clone.folder / "kept").read_bytes() == b"\0first\r\n"
        first = clone.folder
    (repository.folder / "kept").write_text("second")
    repository.git("rm", "-q", "deleted")
    repository.commit("second")
    with a_clone(repository.folder) as clone:
        assert clone.folder == first and clone.head == head(repository)
        assert (clone.folder / "kept").read_text() == "second"
        assert (clone.folder / "data.bin").exists()
        assert not (clone.folder / "deleted").exists()
        with a_clone(repository.folder) as other:
            assert other.folder != first
            assert not (other.folder / "data.bin").exists()


def test_settings_of_this_machine_lead_to_the_same_places(repository):
    here = repository.folder

    def places():
        """Return where the cache and the remotes are for DVC in the clone."""
        run(repository)
        lines = repository.git("show", f"{REFERENCE}:settings.txt").splitlines()
        repository.git("update-ref", "-d", REFERENCE)
        return [
            os.path.normpath(clones(repository)[0] / ".dvc" / line.split(" = ")[1])
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


def test_a_lock_that_a_killed_git_left_does_not_stop_the_next_command(repository):
    assert run(repository)
    for name in ("index.lock", "HEAD.lock"):
        (clones(repository)[0] / ".git" / name).touch()
    assert run(repository)


def test_a_user_whom_git_does_not_know_may_run_experiments(repository, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    repository.git("config", "--remove-section", "user")
    repository.git("config", "user.useConfigOnly", "true")
    assert run(repository)
    assert repository.git("log", "-1", "--format=%an", REFERENCE).strip() == "cellular"


def test_a_command_that_fails_leaves_nothing(repository):
    assert not run(repository, f"{SAVE}; false")
    assert not repository.git("for-each-ref", "refs/exps")


def test_what_a_killed_command_had_started_is_ended_with_it(repository, tmp_path):
    alone = tmp_path / "alone"
    assert not run(repository, f"(sleep 2; touch {alone}) & kill -9 $$")
    time.sleep(3)
    assert not alone.exists()


def test_what_the_watcher_raises_ends_the_command_and_all_that_it_started(repository, tmp_path):
    class Hopeless(Exception):
        pass

    def watch():
        if (tmp_path / "started").exists():
            raise Hopeless

    began = time.monotonic()
    with a_clone(repository.folder) as clone:
        with pytest.raises(Hopeless):
            command = (
                f"echo x > kept; (sleep 600; touch {tmp_path}/late) & touch {tmp_path}/started"
            )
            clone.run(["sh", "-c", f"{command}; wait"], watch=watch)
        assert (clone.folder / "kept").read_bytes() == b"\0first\r\n"
    assert time.monotonic() - began < 60


def test_what_a_killed_process_left_running_is_ended_before_its_clone_is_used(repository):
    """Only the first process is killed; what it started goes on in the clone."""
    here = repository.folder
    code = (
        "from pathlib import Path; from cellular.experiments.clones import a_clone\n"
        f"with a_clone(Path({str(here)!r})) as clone:\n"
        "    clone.run(['sh', '-c', 'echo $$ > pid.new; mv pid.new pid; sleep 600'])"
    )
    modules = {"PYTHONPATH": str(ROOT / "src")}
    running = subprocess.Popen([sys.executable, "-c", code], env=environment() | modules)

    def pids():
        return [path for path in (here / HOME).glob("*/pid")]

    while not pids() and running.poll() is None:
        time.sleep(0.05)
    (pid,) = pids()
    left = int(pid.read_text())
    assert run(repository), "another clone is free while this one is in use"
    assert pid.exists()
    repository.git("update-ref", "-d", REFERENCE)
    running.kill()
    running.wait()
    assert pid.exists()
    assert run(repository)
    assert not pid.exists()  # the clone was made anew
    with pytest.raises(ProcessLookupError):
        os.kill(left, 0)
