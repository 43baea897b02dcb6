"""A trial on its way through the folds, and the judgement at the end, without any training."""

import importlib
import os
import sys
from types import SimpleNamespace

import pytest
from helpers.annotations import ROOT

from cellular.base.errors import InputError
from cellular.base.params import validate

optuna = pytest.importorskip("optuna", reason="an optional extra")

from cellular.experiments import search  # noqa: E402
from cellular.experiments.runner import Experiment, Stopped  # noqa: E402
from cellular.experiments.search import LOSSES, Place, Trial, judged  # noqa: E402
from cellular.experiments.space import Search  # noqa: E402

SETTINGS = {"space": {"seed": {"low": 0, "high": 99}}}
FIVE = {"by": "timepoint", "test": [9], "valid": [1, 2, 3, 4, 5]}


def place(folder, **values):
    return Place(ROOT, validate(Search, SETTINGS | values, "search.yaml"), folder / "mine")


def trial_of(place, trial, parent=None):
    clone = SimpleNamespace(folder=place.folder)
    return Trial(place, trial, clone, {}, os.getppid() if parent is None else parent)


def test_a_worker_whose_parent_was_gone_before_its_trial_began_ends_it(tmp_path):
    where = place(tmp_path)
    with where.study().claimed(1) as trial:
        trial_of(where, trial)._watch(0, Experiment("mine-0000", {}))()
        with pytest.raises(Stopped):
            trial_of(where, trial, parent=os.getpid())._watch(0, Experiment("mine-0000", {}))()


def test_losses_of_another_training_are_not_taken_for_those_of_the_trial(tmp_path):
    where = place(tmp_path, pruning={"pruner": "median"})
    where.logs.mkdir(parents=True)
    log, table = where.logs / "mine-0000.log", where.folder / LOSSES
    table.parent.mkdir(parents=True)
    log.write_text("Running stage 'train':\n")  # of a run that was killed
    table.write_text("epoch,valid_loss\n1,0.5\n")
    with where.study().claimed(1) as trial:
        watch = trial_of(where, trial)._watch(0, Experiment("mine-0000", {}))

        def reported():
            watch()
            return trial.study.trials[0].intermediate_values

        assert not reported()
        with log.open("a") as file:
            file.write("Running stage 'train':\n")
        table.unlink()
        assert not reported()
        table.write_text("epoch,valid_loss\n1,\n2,3.5\n")
        assert reported() == {2: -3.5}


def test_a_trial_never_trains_on_the_fields_that_judge_it_nor_scores_the_test(tmp_path):
    where = place(tmp_path, overrides={"train.all_fields": True, "eval.skip": []}, folds=FIVE)
    with where.study().claimed(1) as trial:
        overrides = trial_of(where, trial).overrides
    assert overrides["train.all_fields"] is False and "test" in overrides["eval.skip"]
    assert [fold["prepare.valid_groups"] for fold in where.folds().values()] == [
        [str(group)] for group in FIVE["valid"]
    ]
    assert {tuple(fold["prepare.test_groups"]) for fold in where.folds().values()} == {("9",)}


def test_a_worker_that_is_killed_again_and_again_is_not_started_for_ever(tmp_path):
    script = importlib.import_module("search")
    end = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(InputError, match=r"worker 0 was killed by signal 9.*worker-0\.log"):
        script._run_workers(place(tmp_path).study(), 1, 1, [sys.executable, "-c", end])


def test_the_error_of_a_worker_is_its_last_and_not_one_of_an_earlier_call(tmp_path):
    script = importlib.import_module("search")
    study = place(tmp_path).study()
    (study.folder / "logs").mkdir()
    (study.folder / "logs/worker-0.log").write_text("error: interrupted\n")
    end = "import sys; print('a traceback'); sys.exit(1)"
    with pytest.raises(InputError, match=r"^a traceback$"):
        script._run_workers(study, 1, 1, [sys.executable, "-c", end])


@pytest.mark.parametrize("name", ["", "a b", "mine-2026", "mine-default", "../mine"])
def test_a_study_has_a_name_that_no_experiment_of_another_study_has(name, capsys):
    script = importlib.import_module("search")
    with pytest.raises(SystemExit):
        script._parser().parse_args(["--study", name])
    assert "expected letters, digits" in capsys.readouterr().err


def test_wilcoxons_pruner_ends_a_worse_trial_unless_all_its_folds_are_done(tmp_path, monkeypatch):
    where = place(tmp_path, folds=FIVE, pruning={"pruner": "wilcoxon", "startup": 2})
    # With one of five folds a little better, p falls below 0.1 at the last fold.
    scores = {
        0: [0.5, 0.5, 0.5, 0.5, 0.5],
        1: [0.51, 0.4, 0.39, 0.38, 0.37],
        2: [0.41, 0.4, 0.39, 0.38, 0.37],
    }

    def fold(self, experiment, names, watch):
        score = scores[self.trial.number][int(experiment.name[-1]) - 1]
        return {"valid.ap50": score, "seconds": 1.0}

    monkeypatch.setattr(Trial, "_fold", fold)
    study = where.study()
    study.work(3, lambda trial: trial_of(where, trial).run())
    states = [(trial.state.name, len(trial.intermediate_values)) for trial in study.trials()]
    assert states == [("COMPLETE", 5), ("COMPLETE", 5), ("PRUNED", 4)]


def test_a_search_that_goes_on_scores_the_new_winner(tmp_path, monkeypatch):
    where = place(tmp_path)
    study = where.study()
    scored = []

    def run_all(root, experiments, **others):
        scored.append([experiment.name for experiment in experiments])
        return dict.fromkeys(scored[-1], "commit")

    monkeypatch.setattr(search, "run_all", run_all)
    monkeypatch.setattr(search, "read_json", lambda *_: {"test": {"ap50": 0.5}})
    for trials in (1, 2):
        study.work(trials, lambda trial: [trial.number])
        judged(where, study, "recipe", 1)
    assert scored == [["mine-default", "mine-0000-winner"], ["mine-default", "mine-0001-winner"]]
    with pytest.raises(InputError, match="has changed since the study was made"):
        judged(where, study, "another recipe", 1)
