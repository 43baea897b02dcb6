"""Experiments by name: each once, the user's files untouched, and an error that shows why."""

import shutil
import sys

import pytest
from helpers.annotations import ROOT
from helpers.repository import Repository

import experiment
from cellular.base.errors import InputError
from cellular.base.params import flat, parse_params
from cellular.experiments.profiles import load_profile
from cellular.experiments.runner import Experiment, commit_of, identified, read_json, run_all
from parameters import Params


@pytest.fixture
def repository(tmp_path):
    copy = Repository.copy(tmp_path / "repository")
    (copy.folder / "dvc.lock").unlink()  # nothing was run here
    copy.commit("nothing was run")
    return copy


@pytest.mark.slow
def test_one_flag_applies_a_profile_and_leaves_the_users_files_alone(repository):
    with (repository.folder / "params.yaml").open("a") as file:
        file.write("# a comment that is not committed\n")
    before = repository.git("status", "--porcelain")
    command = (sys.executable, "src/experiment.py", "--profile", "quick", "-n", "quick")
    out = repository.run(*command, "-S", "train.channels=[2,3]", "check_params")
    assert "dvc exp apply quick" in out
    assert repository.git("status", "--porcelain") == before
    repository.run(*command, "check_params", code=2)
    assert "quick: there is an experiment of this name" in repository.errors
    text = repository.git("show", f"{commit_of(repository.folder, 'quick')}:params.yaml")
    assert "# a comment that is not committed" in text and "# the highest; SGD needs" in text
    content = dict(flat(parse_params(text.encode(), "params.yaml")))
    expected = load_profile(ROOT / "conf/quick.yaml") | {"train.channels": [2, 3]}
    assert {name: content[name] for name in expected} == expected


@pytest.mark.slow
def test_an_experiment_that_fails_stops_the_others_and_shows_its_log(repository, tmp_path):
    def experiment(name, target="check_params", **overrides):
        return Experiment(name, overrides, (target,))

    wrong = experiment("wrong", seed=-1)
    with pytest.raises(InputError, match=r"(?s)wrong failed; .*wrong.log ends with.*seed: "):
        run_all(repository.folder, [experiment("first", seed=1), wrong], logs=tmp_path)
    first = commit_of(repository.folder, "first")
    assert first and not commit_of(repository.folder, "wrong")
    again = [experiment("first", seed=1), experiment("second", seed=2), experiment("third", seed=3)]
    commits = run_all(repository.folder, again, workers=2, logs=tmp_path)
    assert commits["first"] == first and len(set(commits.values())) == 3
    assert len(list((repository.folder / ".dvc/tmp/workers").glob("*/"))) == 2
    assert read_json(repository.folder, first, "metrics/summary.json")
    shutil.rmtree(repository.folder / ".dvc/cache")
    with pytest.raises(InputError, match=r"experiment first: a file is not in DVC's cache"):
        read_json(repository.folder, first, "data/params_checked.txt")


def test_an_experiment_of_some_stages_is_not_taken_for_one_of_all(monkeypatch):
    names = []
    monkeypatch.setattr(experiment, "run_all", lambda _, each: names.append(each[0].name))
    for targets in ([], ["check_params"], ["evaluate@finetuned"]):
        experiment.main(targets)
    assert len(set(names)) == 3 and names[2].startswith("experiment-evaluate-finetuned-")


def test_a_name_changes_with_parameters_and_code_alone(repository):
    def name(**overrides):
        where = repository.folder / "params.yaml"
        return identified(repository.folder, "a name", overrides, Params, where)

    first = name()
    assert first.startswith("a-name-") and name() == first == name(seed=0) != name(seed=1)
    (repository.folder / "README.md").write_text("other words")
    assert name() == first
    repository.commit("other words")
    assert name() == first
    script = repository.folder / "src" / "train.py"
    script.write_text(script.read_text() + "\n# changed\n")
    changed = name()
    assert changed != first
    repository.commit("changed")
    assert name() != first
