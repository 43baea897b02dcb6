"""Many processes work on one study: each trial is done once, whoever is killed."""

import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import requests

from cellular.base.errors import InputError
from cellular.base.params import validate

optuna = pytest.importorskip("optuna", reason="an optional extra")
from optuna.trial import TrialState  # noqa: E402

from cellular.experiments.space import Search  # noqa: E402
from cellular.experiments.studies import JOURNAL, Study  # noqa: E402

SPAWN = multiprocessing.get_context("spawn")
SETTINGS = {
    "space": {
        "a.x": {"low": 0.0, "high": 1.0},
        "a.kind": {"choices": [[0, 0], "w"]},
        "a.y": {"low": 0.1, "high": 0.9, "when": {"a.kind": "w"}},
    },
    "pruning": {"pruner": "median"},
}


def study(folder: Path, **values) -> Study:
    return Study(folder, validate(Search, SETTINGS | values, "search.yaml"))


def work(folder: Path, trials: int) -> None:
    """Work on trials whose value is known, in a process of its own; note each in a file."""
    opened = study(folder)

    def objective(trial):
        values = opened.settings.draw(trial)
        time.sleep(random.random() * 0.02)
        with (folder / f"{os.getpid()}.done").open("a") as file:
            file.write(f"{trial.number}\n")
        return [-((values["a.x"] - 0.3) ** 2)]

    opened.work(trials, objective)


def hold(folder: Path) -> None:
    """Take a trial, and never finish it."""
    with study(folder).claimed(1) as trial:
        (folder / "held").write_text(json.dumps(trial.params))
        time.sleep(600)


def full_disk(trial):
    raise InputError("the disk is full")


@pytest.mark.slow
def test_two_hundred_trials_on_eight_workers_some_of_them_killed(tmp_path):
    workers = [SPAWN.Process(target=work, args=(tmp_path, 200)) for _ in range(8)]
    for worker in workers:
        worker.start()
    killed = 0
    while killed < 3:  # each at a moment when it has done something
        time.sleep(0.2)
        if list(tmp_path.glob(f"{workers[killed].pid}.done")):
            workers[killed].kill()
            killed += 1
    for worker in workers:
        worker.join()
    assert Counter(worker.exitcode for worker in workers) == {-signal.SIGKILL: 3, 0: 5}
    found = study(tmp_path)
    trials = found.trials()
    assert [trial.number for trial in trials] == list(range(200))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert all(trial.values == [-((trial.params["a.x"] - 0.3) ** 2)] for trial in trials)
    assert len({trial.params["a.x"] for trial in trials}) == 200  # nobody drew what another had
    done = Counter(
        int(line) for path in tmp_path.glob("*.done") for line in path.read_text().split()
    )
    # Only a trial whose worker was killed may have been begun twice.
    assert sum(count - 1 for count in done.values()) <= 3
    for line in (tmp_path / JOURNAL).read_text().splitlines():
        json.loads(line)


@pytest.mark.slow
def test_a_trial_whose_worker_is_killed_is_taken_up_with_its_values(tmp_path):
    worker = SPAWN.Process(target=hold, args=(tmp_path,))
    worker.start()
    while not (tmp_path / "held").exists() and worker.is_alive():
        time.sleep(0.05)
    opened = study(tmp_path)
    with opened.claimed(1) as trial:
        assert trial is None  # there is one, and it is in good hands
    worker.kill()
    worker.join()
    with opened.claimed(1) as trial:
        assert trial.number == 0
        assert trial.params == json.loads((tmp_path / "held").read_text())
    opened.work(1, lambda trial: [1.0])
    assert [trial.state for trial in opened.trials()] == [TrialState.COMPLETE]


def test_what_is_drawn_depends_on_the_trials_before_it_alone(tmp_path):
    drawn = []
    for name, times in (("at once", 1), ("one by one", 4)):
        for part in range(1, times + 1):
            opened = study(tmp_path / name)
            opened.work(12 * part // times, lambda trial: [trial.params["a.x"]])
        drawn.append([trial.params for trial in opened.trials()])
    assert drawn[0] == drawn[1] and len(drawn[0]) == 12


def test_the_default_comes_first_and_once(tmp_path):
    opened = study(tmp_path)
    for _ in range(2):
        opened.add({"a.x": 0.25, "a.kind": '"w"', "a.y": 0.5})
        opened.work(2, lambda trial: [1.0])
    assert len(opened.trials()) == 2
    assert opened.settings.draw(opened.trials()[0]) == {"a.x": 0.25, "a.kind": "w", "a.y": 0.5}


def test_the_default_is_tried_again_if_it_fails(tmp_path):
    opened = study(tmp_path)
    default = {"a.x": 0.25, "a.kind": '"w"', "a.y": 0.5}
    opened.add(default)
    with pytest.raises(InputError, match="the disk is full"):
        opened.work(2, full_disk)
    opened.work(2, lambda trial: [1.0])
    opened = study(tmp_path)
    assert [trial.params == default for trial in opened.trials()] == [*[True] * 4, False]
    assert [trial.state.name for trial in opened.trials()] == [*["FAIL"] * 3, *["COMPLETE"] * 2]


def test_a_trial_that_fails_is_noted_and_replaced(tmp_path):
    opened = study(tmp_path)

    def objective(trial):
        if trial.number in (0, 2):
            raise InputError("the loss is not a number any more")
        if trial.number == 3:
            raise optuna.TrialPruned("after epoch 2")
        return [1.0]

    opened.work(3, objective)
    states = [trial.state.name for trial in opened.trials()]
    assert states == ["FAIL", "COMPLETE", "FAIL", "PRUNED", "COMPLETE"]
    assert "not a number" in opened.trials()[0].user_attrs["failed"]
    assert opened.trials()[3].user_attrs["pruned"] == "after epoch 2"


def test_a_pruned_trial_between_failures_is_no_failure(tmp_path):
    opened = study(tmp_path)

    def objective(trial):
        if trial.number == 5:
            return [1.0]
        raise optuna.TrialPruned if trial.number % 2 else InputError("the disk is full")

    opened.work(3, objective)
    states = [trial.state.name for trial in opened.trials()]
    assert states == ["FAIL", "PRUNED", "FAIL", "PRUNED", "FAIL", "COMPLETE"]


def test_the_seconds_of_a_trial_are_those_of_its_work_without_the_pauses(tmp_path):
    def interrupted(trial):
        time.sleep(0.1)
        raise KeyboardInterrupt

    def finished(trial):
        time.sleep(0.1)
        return [1.0]

    opened = study(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        opened.work(1, interrupted)
    time.sleep(0.3)
    study(tmp_path).work(1, finished)
    (trial,) = opened.trials()
    assert trial.user_attrs["seconds"] == pytest.approx(0.2, abs=0.1)


def test_trials_in_other_hands_are_counted_and_those_of_killed_workers_are_not(tmp_path):
    opened = study(tmp_path)
    assert opened.elsewhere() == 0
    with study(tmp_path).claimed(1):
        assert opened.elsewhere() == 1
    assert opened.elsewhere() == 0
    assert len(opened.trials(TrialState.RUNNING)) == 1


def test_a_trial_that_was_killed_before_it_was_drawn_gets_the_values_it_would_have_had(tmp_path):
    whole, killed = study(tmp_path / "whole"), study(tmp_path / "killed")
    killed.optuna.ask()
    for opened in (whole, killed):
        with opened.claimed(1) as trial:
            opened.settings.draw(trial)
    assert whole.trials()[0].params == killed.trials()[0].params


def test_a_study_goes_on_with_the_recipe_that_it_was_made_with_alone(tmp_path):
    study(tmp_path).check_recipe("mine-aaaaaa")
    study(tmp_path).check_recipe("mine-aaaaaa")
    with pytest.raises(InputError, match=r"params.yaml, its profile or the code has changed"):
        study(tmp_path).check_recipe("mine-bbbbbb")


def test_after_three_failures_in_a_row_a_worker_gives_up(tmp_path):
    opened = study(tmp_path)
    with pytest.raises(InputError, match="the disk is full"):
        opened.work(5, full_disk)
    assert len(opened.trials(TrialState.FAIL)) == 3


def test_an_interrupt_leaves_the_trial_to_be_taken_up(tmp_path):
    opened = study(tmp_path)

    def objective(trial):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened.work(1, objective)
    opened.work(1, lambda trial: [1.0])
    assert [trial.number for trial in opened.trials()] == [0]


def test_half_a_line_that_a_full_disk_left_does_not_spoil_the_journal(tmp_path):
    opened = study(tmp_path)
    opened.work(2, lambda trial: [1.0])
    with (opened.folder / JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code": 6, "wor')
    study(tmp_path).work(3, lambda trial: [2.0])
    assert [trial.values for trial in study(tmp_path).trials()] == [[1.0], [1.0], [2.0]]


def test_any_seed_is_good(tmp_path):
    for seed in (0, 20261128, 2**31 - 1):
        opened = study(tmp_path / str(seed), seed=seed)
        opened.work(1, lambda trial: [1.0])


def test_other_settings_need_another_study_and_more_trials_do_not(tmp_path):
    study(tmp_path)
    study(tmp_path, trials=99)
    other = {"seed": 1, "pruning": {"pruner": "none"}}
    with pytest.raises(InputError, match=r"\(pruning, seed\).*--study, or delete this folder"):
        study(tmp_path, **other)
    study(tmp_path).work(1, lambda trial: [1.0])
    with pytest.raises(InputError, match=r"other settings \(pruning, seed\).*--study$"):
        study(tmp_path, **other)


@pytest.mark.slow
def test_the_dashboard_reads_the_journal(tmp_path):
    opened = study(tmp_path / "mine")
    opened.work(3, lambda trial: [1.0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "optuna-dashboard"
    command = [Path(sys.executable).with_name(program), tmp_path / "mine" / JOURNAL]
    running = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                found = requests.get(f"http://127.0.0.1:{port}/api/studies", timeout=10).json()
                break
            except requests.ConnectionError:
                assert running.poll() is None
                time.sleep(0.1)
        assert [each["study_name"] for each in found["study_summaries"]] == ["mine"]
    finally:
        running.terminate()
        running.wait()
