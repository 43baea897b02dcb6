"""Splits by groups, and splits that are not scored, as experiments of DVC."""

import pytest

pytestmark = pytest.mark.slow


def test_fields_are_split_by_time_points(repository):
    split = ("-S", "prepare.split_by=timepoint", "-S", "prepare.test_groups=[3]")
    repository.dvc("exp", "run", *split, "prepare")
    groups = {"train": ["001", "002", "005"], "valid": ["004"], "test": ["003"]}
    assert repository.json("metrics/prepare.json")["groups"] == groups
    prepared = repository.folder / "data" / "prepared" / "all"
    for name, timepoints in groups.items():
        fields = {path.name.split("_")[1] for path in (prepared / name).glob("*_masks.png")}
        assert sorted(fields) == timepoints
    repository.restore()


def test_a_split_that_is_skipped_leaves_no_scores_and_the_comparison_says_why(repository):
    scores = repository.folder / "metrics" / "finetuned"
    assert (scores / "test_eval.json").exists()
    repository.dvc("exp", "run", "-S", "eval.skip=[test]", "evaluate@finetuned")
    assert (scores / "valid_eval.json").exists() and (scores / "train_eval.json").exists()
    assert not list(scores.rglob("test*"))
    assert repository.json("metrics/summary.json").keys() == {"valid"}
    repository.dvc("repro", "compare", code=255)
    assert "test_eval.json does not exist" in repository.errors
    assert "with eval.skip: [] in params.yaml" in repository.errors
    repository.restore()
