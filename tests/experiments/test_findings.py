"""What is written about a search: each trial as it was, and figures for every kind of study."""

import json

import pandas as pd
import pytest

from cellular.base.errors import InputError
from cellular.base.params import validate

optuna = pytest.importorskip("optuna", reason="an optional extra")

from cellular.experiments.findings import write_findings  # noqa: E402
from cellular.experiments.space import Search  # noqa: E402
from cellular.experiments.studies import Study  # noqa: E402

SETTINGS = {
    "space": {
        "a.x": {"low": 0.0, "high": 1.0},
        "a.kind": {"choices": [[0, 0], "w"]},
        "a.y": {"low": 0.1, "high": 0.9, "when": {"a.kind": "w"}},
    }
}
JUDGED = {"default": {"valid.ap50": 0.5, "test.ap50": 0.4}, "winner": {"valid.ap50": 0.6}}
TWO = [{"score": "valid.ap50"}, {"score": "seconds", "direction": "minimize"}]


def study(folder, **values):
    return Study(folder / "mine", validate(Search, SETTINGS | values, "search.yaml"))


def written(opened):
    """Return the text, the table of trials and the summary."""
    text = write_findings(opened, JUDGED)
    table = pd.read_csv(opened.folder / "trials.csv").set_index("trial")
    return text, table, json.loads((opened.folder / "summary.json").read_text())


def test_each_trial_is_told_with_its_own_numbers_and_pruned_ones_have_no_score(tmp_path):
    opened = study(tmp_path)

    def objective(trial):
        if trial.number == 1:
            trial.report(-1.7, 3)  # a loss
            raise optuna.TrialPruned("after epoch 3")
        if trial.number == 2:
            raise InputError("the disk is full")
        return [trial.number / 10]

    opened.work(5, objective)
    text, table, summary = written(opened)
    assert list(table["state"]) == ["finished", "pruned", "failed", *["finished"] * 3]
    assert table["valid.ap50"].dropna().to_dict() == {0: 0.0, 3: 0.3, 4: 0.4, 5: 0.5}
    assert table["reason"].dropna().to_dict() == {1: "after epoch 3", 2: "the disk is full"}
    assert (table["a.y"].isna() == (table["a.kind"] == "[0, 0]")).all()
    assert summary["trials"] == {"finished": 4, "pruned": 1, "failed": 1}
    assert summary["best"]["trial"] == 5 and summary["front"] == [5]
    assert "valid +0.1000 (0.5000 to 0.6000)" in text and "nan" not in text
    assert "dvc exp apply mine-0005-winner" in text
    for name in ("history", "parallel_coordinates", "importance"):
        assert (opened.folder / f"{name}.png").stat().st_size > 5000


def test_seconds_are_those_of_the_objective_where_they_are_one(tmp_path):
    opened = study(tmp_path, objectives=TWO)
    opened.work(3, lambda trial: [trial.number / 10, 100.0 * (trial.number + 1)])
    _, table, summary = written(opened)
    assert list(table["seconds"]) == [100, 200, 300]
    assert summary["front"] == [0, 1, 2] and summary["best"]["trial"] == 2
    assert (opened.folder / "pareto_front.png").exists()


def test_a_winner_of_several_folds_is_taken_over_by_its_parameters(tmp_path):
    opened = study(tmp_path, folds={"by": "well", "test": ["A"], "valid": ["B", "C"]})
    opened.work(1, lambda trial: [0.5])
    text, _, _ = written(opened)
    assert "dvc exp apply" not in text and "set the parameters below" in text


def test_a_study_without_a_finished_trial_has_no_findings(tmp_path):
    opened = study(tmp_path)

    def objective(trial):
        raise optuna.TrialPruned("the loss exploded")

    opened.work(2, objective)
    with pytest.raises(InputError, match="no trial was finished; give it more, with --trials"):
        write_findings(opened, JUDGED)
