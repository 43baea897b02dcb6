"""run_experiments.sh: each experiment of the grid runs once, whatever is killed, for one table."""

import csv
import json
import os
import signal
import subprocess
import time

import pytest
import yaml
from helpers.annotations import ROOT
from helpers.repository import Repository, environment

from cellular.base.params import validate
from cellular.experiments.clones import a_clone
from cellular.experiments.grid import _fingerprint, chosen
from cellular.experiments.profiles import overridden
from parameters import Params


@pytest.fixture
def repository(tmp_path):
    """A copy of the repository whose quick profile is so small that a run takes seconds."""
    copy = Repository.copy(tmp_path / "repository")
    profile = copy.folder / "conf" / "quick.yaml"
    text = profile.read_text().replace("Timepoint_004", "ST_I06").replace("Timepoint_005", "ST_C03")
    profile.write_text(text.replace("n_epochs: 2", "n_epochs: 1\n  crop_size: 64"))
    copy.commit("small")
    return copy


@pytest.fixture
def start(repository, annotations, tmp_path):
    """Start the grid; what still runs at the end of the test is killed."""
    annotations.three_splits()
    started = []

    def start(*weights):
        command = [
            *("sh", "run_experiments.sh", str(annotations.masks), str(tmp_path / "results")),
            *("--profile", "quick", "--weights", *weights),
        ]
        running = subprocess.Popen(
            command,
            cwd=repository.folder,
            env=environment(),
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(running)
        return running

    yield start
    for running in started:
        if running.poll() is None:
            kill(running)
    with a_clone(repository.folder):  # which ends what they left running
        pass


def kill(running):
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()


@pytest.mark.slow
def test_a_killed_grid_leaves_the_users_files_as_they_are(repository, start):
    repository.change(None, seed=7)
    repository.change("eval", seed=5)
    repository.git("add", "params.yaml")
    repository.change(None, seed=8)  # staged once, and changed again since
    (repository.folder / "staged.txt").write_text("staged")
    repository.git("add", "staged.txt")
    (repository.folder / "untracked.txt").write_text("untracked")

    def state():
        listed = repository.git("status", "--porcelain"), repository.git("stash", "list")
        locked = sorted((repository.folder / ".git").glob("*.lock"))
        return *listed, locked, (repository.folder / "params.yaml").read_bytes()

    before = state()
    for moment in range(9):
        running = start("scratch")
        for line in running.stderr:
            if "running quick-" in line:
                break
        time.sleep(0.1 + 0.4 * moment)
        kill(running)
        assert state() == before, moment
    running = start("scratch")
    _, err = running.communicate()
    assert running.returncode == 0, err
    assert state() == before
    (reference,) = repository.git("for-each-ref", "refs/exps", "--format=%(refname)").split()
    assert reference.startswith("refs/exps/") and "quick-scratch" in reference
    params = yaml.safe_load(repository.git("show", f"{reference}:params.yaml"))
    assert params["seed"] == 8 and params["eval"]["seed"] == 5
    assert params["train"]["model_type"] == "scratch"
    assert repository.git("show", f"{reference}:staged.txt") == "staged"
    assert "untracked.txt" not in repository.git("ls-tree", "-r", "--name-only", reference)


@pytest.mark.slow
def test_a_killed_grid_resumes_and_runs_no_experiment_twice(repository, start, tmp_path):
    both = ("scratch", "scellseg")

    def finished():
        return repository.git("for-each-ref", "refs/exps", "--format=%(refname) %(objectname)")

    running = start(*both)
    time.sleep(8)  # somewhere in the first run
    kill(running)
    assert "quick-scratch" not in finished()

    running = start(*both)
    while "quick-scratch" not in finished() and running.poll() is None:
        time.sleep(0.1)
    time.sleep(2)  # somewhere in the second run
    kill(running)
    once = [line for line in finished().splitlines() if "quick-" in line]
    assert len(once) == 1

    running = start(*both)
    out, err = running.communicate()
    assert running.returncode == 0, err
    name = once[0].split()[0].rpartition("/")[2]
    assert f"{name} is finished" in err and err.count("running quick-") == 1
    assert once[0] in finished()
    rows = json.loads((tmp_path / "results" / "paper_table.json").read_text())["rows"]
    assert [(row["weights"], row["model"], row["split"]) for row in rows] == [
        (weights, model, split)
        for weights in both
        for model in ("pretrained", "finetuned")
        for split in ("test", "valid", "train")
    ]
    with (tmp_path / "results" / "paper_table.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 12
    assert out.strip() == (tmp_path / "results" / "paper_table.md").read_text().strip()

    running = start(*both)
    again, err = running.communicate()
    assert again == out and err.count("is finished") == 2
    assert not repository.git("status", "--porcelain")


@pytest.mark.parametrize(
    ("profile", "masks", "diameter"),
    [("paper", False, 121), ("paper", True, "annotated"), ("quick", True, None)],
)
def test_the_papers_diameter_is_not_that_of_masks_of_ones_own(
    annotations, profile, masks, diameter
):
    path = ROOT / "conf" / f"{profile}.yaml"
    overrides = chosen(path, annotations.masks if masks else None)
    assert overrides.get("diameter.pretrained") == diameter  # None: that of params.yaml
    assert overrides.get("data.path") == (str(annotations.folder) if masks else None)
    assert validate(Params, overridden(ROOT / "params.yaml", overrides, path), "params.yaml")


def test_other_files_in_the_data_folder_are_another_experiment(tmp_path):
    (tmp_path / "x.png").write_bytes(b"1")
    first = _fingerprint(tmp_path)
    assert _fingerprint(tmp_path) == first
    (tmp_path / "y.png").write_bytes(b"1")
    assert _fingerprint(tmp_path) != first


def test_wrong_arguments_are_refused_before_anything_runs(repository, annotations, tmp_path):
    (tmp_path / "file").write_text("")
    for arguments, message in (
        (["--profile", "moon"], "no such profile"),
        ([str(tmp_path / "nowhere")], "no such folder of masks"),
        (
            [str(annotations.masks), str(tmp_path / "file"), "--profile", "quick"],
            "cannot be written",
        ),
    ):
        done = subprocess.run(
            ["sh", "run_experiments.sh", *arguments],
            cwd=repository.folder,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
        assert "running" not in done.stderr
