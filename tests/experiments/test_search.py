"""src/search.py: each trial a DVC experiment, once, whoever is killed; the hopeless are ended."""

import json
import signal
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest
import yaml
from helpers.repository import Repository, environment, real_corners

from cellular.base.params import parse_params
from cellular.experiments.clones import a_clone

pytest.importorskip("optuna", reason="an optional extra")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
SMALL = {
    "n_epochs": 1,
    "crop_size": 64,
    "images_per_epoch": 2,
    "valid_images": 1,
    "valid_every": 1,
    "batch_size": 2,
    "precision": "32",
}
SETTINGS = {
    "overrides": {"train.n_epochs": 8},
    "trials": 4,
    "pruning": {"pruner": "median", "startup": 1, "column": "train_loss", "warmup": 1},
    "space": {"train.learning_rate": {"choices": [0.0007, 0.01]}},
}


@pytest.fixture(scope="module")
def repository(sample, tmp_path_factory):
    """A copy of the repository whose pipeline was run, on corners of three real fields."""
    folder = tmp_path_factory.mktemp("search")
    real_corners(sample, folder / "corners")
    for path in (folder / "corners").glob("*/Timepoint_00[23]*"):
        path.unlink()
    copy = Repository.copy(folder / "repository")
    copy.change(None, dataset="local", diameter={"pretrained": 60, "finetuned": None})
    copy.change("data", path=str(folder / "corners"))
    copy.change("train", **SMALL)
    (copy.folder / "search.yaml").write_text(yaml.safe_dump(SETTINGS))
    copy.commit("small")
    copy.dvc("repro")
    copy.commit("the run")
    return copy


class Running:
    """A search in a process of its own, and what it has started."""

    def __init__(self, repository, study, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "src/search.py", "--study", study, *arguments],
            cwd=repository.folder,
            env=environment() | ONE_THREAD,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.folder = repository.folder / "experiments" / study

    def workers(self):
        return [
            child
            for child in psutil.Process(self.process.pid).children()
            if "--worker" in child.cmdline()
        ]

    def wait_for(self, condition):
        """Wait until something is so; a search that ends before is a failure."""
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.1)

    def training(self):
        """Tell whether a training that saved its state is under way."""
        return any(self.folder.glob("states/*/*.state"))

    def finish(self):
        out, err = self.process.communicate()
        assert self.process.returncode == 0, err
        return out


@pytest.fixture
def start(repository):
    started = []

    def start(study, *arguments):
        started.append(Running(repository, study, *arguments))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
            running.process.communicate()
    while any(
        "src/search.py" in " ".join(process.info["cmdline"] or [])
        and process.info["cwd"] == str(repository.folder)
        for process in psutil.process_iter(["cmdline", "cwd"])
    ):
        time.sleep(0.1)  # workers notice that they are alone
    with a_clone(repository.folder):  # which ends what killed workers left running
        pass


def experiments(repository, study="mine"):
    lines = repository.git(
        "for-each-ref", "--format=%(refname:lstrip=4) %(objectname)", f"refs/exps/*/*/{study}-*"
    )
    return dict(line.split() for line in lines.splitlines())


@pytest.mark.slow
def test_a_search_with_kills_and_an_interrupt_has_each_trial_once(repository, start):
    before = repository.git("status", "--porcelain")
    running = start("mine", "--workers", "2")
    running.wait_for(running.training)
    for worker in running.workers():  # with all that they started, as in a crash
        for process in (worker, *worker.children(recursive=True)):
            process.kill()
    running.wait_for(lambda: experiments(repository))
    running.process.send_signal(signal.SIGINT)
    out, err = running.process.communicate()
    assert running.process.returncode == 130 and "give the same command again to go on" in err
    assert "Traceback" not in err
    once = experiments(repository)

    running = start("mine", "--workers", "2")
    running.wait_for(lambda: running.workers())
    running.process.kill()  # its workers notice
    running.process.communicate()

    out = start("mine", "--workers", "1").finish()
    made = experiments(repository)
    folder = running.folder
    trials = pd.read_csv(folder / "trials.csv")
    counts = trials["state"].value_counts()
    assert counts.get("finished", 0) + counts.get("pruned", 0) == 4 and len(trials) == 4
    assert once.items() <= made.items()
    finished = trials[trials["state"] == "finished"]
    names = {f"mine-{number:04d}" for number in finished["trial"]}
    pruned = trials[trials["reason"].fillna("").str.startswith("after epoch")]
    names |= {f"mine-{number:04d}-pruned" for number in pruned["trial"]}
    found = json.loads((folder / "summary.json").read_text())
    best = f"mine-{found['best']['trial']:04d}"
    recipes = {"default": "mine-default", "winner": f"{best}-winner"}
    assert set(made) == names | set(recipes.values())
    assert not any((folder / "states").iterdir())  # neither of finished trials nor of pruned ones
    logs = "".join(path.read_text() for path in (folder / "logs").glob("worker-*.log"))
    assert "is taken up again" in logs
    assert any("resuming after epoch" in path.read_text() for path in folder.glob("logs/mine-*"))

    # What the tables say is what the experiments have.
    for _, row in finished.iterrows():
        commit = made[f"mine-{row['trial']:04d}"]
        summary = json.loads(repository.git("show", f"{commit}:metrics/summary.json"))
        assert summary["valid"]["ap50"] == row["valid.ap50"] and "test" not in summary
        params = parse_params(repository.git("show", f"{commit}:params.yaml").encode(), commit)
        assert params["train"]["learning_rate"] == row["train.learning_rate"]
    assert found["best"]["values"] == [finished["valid.ap50"].max()]
    for recipe, name in recipes.items():
        summary = json.loads(repository.git("show", f"{made[name]}:metrics/summary.json"))
        assert found["judged"][recipe]["test.ap50"] == summary["test"]["ap50"]
    assert out.strip() == (folder / "study.md").read_text().strip()
    for name in ("history", "parallel_coordinates"):
        assert (folder / f"{name}.png").stat().st_size > 5000
    shown = json.loads(repository.dvc("exp", "show", "--json"))
    listed = {
        each["name"]: each["revs"][-1]["data"]
        for baseline in shown
        for each in baseline.get("experiments") or []
    }
    assert set(listed) >= set(made)

    # The best is applied, and comes out the same, byte by byte, when it is computed anew.
    assert repository.git("status", "--porcelain") == before
    repository.dvc("exp", "apply", best)
    results = repository.folder / "metrics" / "finetuned" / "valid_eval.json"
    expected = results.read_bytes()
    assert not repository.repro("evaluate@finetuned")
    assert found["best"]["values"][0] > 0
    again = ("dvc", "repro", "--force", "--no-run-cache", "evaluate@finetuned")
    subprocess.run(again, cwd=repository.folder, env=environment() | ONE_THREAD, check=True)
    assert results.read_bytes() == expected


@pytest.mark.slow
def test_a_hopeless_trial_is_ended_and_its_experiment_says_so(repository, start):
    # With so low a rate the loss stays where it begins, and that of the default falls. The seed
    # makes it the second trial.
    space = {"train.learning_rate": {"choices": [0.0007, 1e-7]}}
    pruning = {"pruner": "median", "startup": 1, "column": "train_loss"}
    settings = SETTINGS | {"space": space, "pruning": pruning, "trials": 2}
    (repository.folder / "search.yaml").write_text(yaml.safe_dump(settings))
    params = repository.folder / "params.yaml"
    before = params.read_bytes()
    running = start("hopeless")
    running.wait_for(lambda: experiments(repository, "hopeless"))
    repository.change("train", paste_cells=0.1)
    _, err = running.process.communicate()  # all trials were run as the files were before
    assert running.process.returncode == 2 and "has changed since the study was made" in err
    params.write_bytes(before)
    assert "hopeless-default" not in experiments(repository, "hopeless")
    running = start("hopeless")
    running.finish()
    trials = pd.read_csv(running.folder / "trials.csv")
    assert list(trials["state"]) == ["finished", "pruned"]
    assert trials["reason"][1].startswith("after epoch ")
    epoch = int(trials["reason"][1].split()[2].rstrip(","))
    made = experiments(repository, "hopeless")
    assert set(made) == {
        "hopeless-0000",
        "hopeless-0001-pruned",
        "hopeless-default",
        "hopeless-0000-winner",
    }
    commit = made["hopeless-0001-pruned"]
    assert "pruned after epoch" in repository.git("log", "-1", "--format=%s", commit)
    summary = json.loads(repository.git("show", f"{commit}:metrics/summary.json"))
    assert summary == {"pruned_after_epoch": epoch}
    values = parse_params(repository.git("show", f"{commit}:params.yaml").encode(), commit)
    assert values["train"]["learning_rate"] == 1e-7
    assert not any((running.folder / "states").iterdir())
    assert "hopeless-0001-pruned" in repository.dvc("exp", "show", "--csv")


@pytest.mark.slow
def test_wrong_searches_are_refused_before_anything_runs(repository, start, tmp_path):
    wrong = tmp_path / "wrong.yaml"
    for change, message in (
        ({"space": {"train.moon": {"low": 0, "high": 1}}}, "moon: no such parameter"),
        ({"profile": "moon"}, "no such profile"),
        ({"trials": 0}, "trials"),
    ):
        wrong.write_text(yaml.safe_dump(SETTINGS | change))
        running = start("wrong", "--settings", str(wrong))
        _, err = running.process.communicate()
        assert running.process.returncode == 2 and message in err and "Traceback" not in err
    assert not experiments(repository, "wrong")
    assert not (repository.folder / "experiments" / "wrong").exists()
