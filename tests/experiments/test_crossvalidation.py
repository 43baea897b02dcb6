"""src/cross_validate.py: each fold runs once, whatever is killed, for one table of folds."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.annotations import ROOT
from helpers.repository import Repository, environment, real_corners

from cellular.base.errors import InputError
from cellular.experiments.crossvalidation import (
    DECIDED,
    FILES,
    check_free,
    folds_of,
    sites_are_shared,
)
from cellular.imaging.images import read_labels
from parameters import Params

TIMES = ("001", "002", "003")
SMALL = {
    "train.model_type": "scellseg",
    "train.n_epochs": 1,
    "train.images_per_epoch": 2,
    "train.valid_images": 1,
    "train.batch_size": 2,
    "train.precision": 32,
    "eval.precision": 32,
    "eval.worst_cells": 0,
}


def field(well, time=1, site=1, plate="220518-ST"):
    return f"Timepoint_00{time}_{plate}_{well}_s{site}"


def planned(fields, by, seeds=(0,), overrides=None):
    return folds_of(ROOT, fields, overrides or {}, Params, by, seeds)


def test_each_group_is_left_out_once_with_each_seed():
    folds = planned(
        [field(well, time) for well in ("C03", "I06", "C10") for time in (1, 2)], "well", (0, 3)
    )
    wells = ["220518-ST C03", "220518-ST C10", "220518-ST I06"]
    assert [(fold.group, fold.seed) for fold in folds] == [(w, s) for w in wells for s in (0, 3)]
    experiment = folds[1].experiment
    assert re.fullmatch(r"cv-well-220518-ST-C03-s3-[0-9a-f]{6}", experiment.name)
    assert experiment.targets == ("evaluate@finetuned",)
    assert experiment.overrides == {
        "prepare.split_by": "well",
        "prepare.test_groups": ["220518-ST C03"],
        "prepare.valid_groups": [],
        "train.all_fields": False,
        "eval.skip": ["train"],
        "seed": 3,
    }


def test_another_recipe_has_other_experiments():
    fields = [field("C03", time) for time in (1, 2, 3)]
    names = [
        {fold.experiment.name for fold in planned(fields, "timepoint", overrides=overrides)}
        for overrides in ({}, {"train.n_epochs": 7})
    ]
    assert len(names[0] | names[1]) == 6
    # A profile that says how fields are split does not change the folds.
    split = {"prepare.split_by": None, "prepare.valid_groups": ["C03"]}
    assert {
        fold.experiment.name for fold in planned(fields, "timepoint", overrides=split)
    } == names[0]


def test_fewer_than_three_groups_are_an_error():
    fields = [field("C03", time) for time in (1, 2, 3)] + [field("I06")]
    with pytest.raises(InputError, match=r"of 2 \(220518-ST C03, 220518-ST I06\), expected at"):
        planned(fields, "well")
    assert len(planned(fields, "timepoint")) == 3


def test_sites_are_shared_by_time_points_of_one_site_only():
    one_site = [field("C03", time) for time in (1, 2, 3)]
    assert sites_are_shared(one_site, "timepoint") and not sites_are_shared(one_site, "well")
    others = [field(well, time) for time, well in enumerate(("C03", "I06", "K07"), start=1)]
    assert not sites_are_shared(others, "timepoint")


@pytest.mark.parametrize("name", DECIDED)
def test_what_a_fold_decides_cannot_be_set(name):
    check_free(["train.n_epochs"])
    with pytest.raises(InputError, match=f"-S {name}: each fold has its own"):
        check_free([name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--against", "cv-well"), "the results of this run go there"),
        (("--against", "moon"), "no cross-validation of that name; there are: none"),
        (("--profile", "moon"), "no such profile"),
        (("-S", "seed=1"), "each fold has its own"),
        (("-S", "dataset"), "expected name=value"),
        (("-S", "train.n_epoch=1"), "train.n_epoch: no such parameter"),
        (("--seeds", "0", "-1"), "seed: Input should be greater than or equal to 0"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(
    arguments, message, run_script, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, err = run_script("cross_validate", *arguments)
    assert (code, out) == (2, "") and message in err, err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["[]", "{", '{"folds": [{"group": "a"}]}', '{"folds": ["a"]}'])
def test_a_file_that_is_no_table_of_folds_is_told(content, run_script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments/mine").mkdir(parents=True)
    (tmp_path / "experiments/mine/folds.json").write_text(content)
    code, out, err = run_script("cross_validate", "--against", "mine")
    assert (code, out) == (2, "") and "mine/folds.json: not the folds that" in err


class Run:
    """Cross-validations in a copy of the repository, on corners of three real fields."""

    def __init__(self, repository: Repository, data: Path):
        self.repository = repository
        self.results = repository.folder / "experiments" / "cv"
        values = SMALL | {"dataset": "local", "data.path": data}
        self.command = [
            *(sys.executable, "src/cross_validate.py", "--by", "timepoint", "--name", "cv"),
            *(part for name, value in values.items() for part in ("-S", f"{name}={value}")),
        ]
        self.processes: list[subprocess.Popen] = []

    def start(self, *options: str) -> subprocess.Popen:
        """Start the script; the last one of an option that is given twice counts."""
        variables = {"PYTHONPATH": str(self.repository.folder / "src"), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*self.command, *options],
            cwd=self.repository.folder,
            env=environment() | variables,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def finish(self, *options: str) -> tuple[str, str]:
        """Run the script to its end; return its output and its log."""
        process = self.start(*options)
        out, err = process.communicate()
        assert process.returncode == 0, err
        return out, err

    def experiments(self) -> dict[str, str]:
        """Return the commit of each finished fold by the name of its experiment."""
        listed = self.repository.git(
            "for-each-ref", "refs/exps", "--format=%(refname) %(objectname)"
        )
        rows = [line.split() for line in listed.splitlines()]
        found = {name.rpartition("/")[2]: commit for name, commit in rows}
        return {name: commit for name, commit in found.items() if name.startswith("cv-")}

    def files(self) -> dict[str, bytes]:
        """Return the results, without the logs."""
        paths = [
            path
            for name in FILES
            for path in (self.results / name, *(self.results / name).rglob("*"))
        ]
        return {path.name: path.read_bytes() for path in paths if path.is_file()}

    def kill(self) -> None:
        """Kill the last process, and what belongs to its session."""
        if self.processes[-1].poll() is None:
            os.killpg(self.processes[-1].pid, signal.SIGKILL)
        self.processes[-1].communicate()


@pytest.fixture
def runs(sample, tmp_path):
    """Two copies of the repository, each with a cache of its own, and the same data."""
    real_corners(sample, tmp_path / "corners")
    for path in (tmp_path / "corners").glob("*/Timepoint_00[45]*"):
        path.unlink()
    made = [Run(Repository.copy(tmp_path / name), tmp_path / "corners") for name in ("one", "two")]
    yield made
    for run in made:
        if run.processes:
            run.kill()


@pytest.mark.slow
@pytest.mark.timeout(1800)  # fifteen starts of DVC and PyTorch, beside other tests
def test_a_killed_cross_validation_resumes_and_ends_with_the_same_table(runs):
    killed, whole = runs
    killed.start()
    time.sleep(6)  # somewhere before the first fold
    killed.kill()
    assert not killed.experiments() and not killed.files()

    process = killed.start()
    for line in process.stderr:
        if "running cv-timepoint-001" in line:
            break
    time.sleep(15)  # somewhere in the first fold
    killed.kill()

    process = killed.start()
    while len(killed.experiments()) < 1 and process.poll() is None:
        time.sleep(0.2)
    time.sleep(3)  # somewhere in the second fold
    killed.kill()
    (first,) = killed.experiments().items()
    assert not killed.files()

    out, err = killed.finish()
    assert f"{first[0]} is finished" in err and err.count("running cv-") == 2
    assert first in killed.experiments().items() and len(killed.experiments()) == 3
    assert not killed.repository.git("status", "--porcelain")
    expected, _ = whole.finish("--workers", "2")
    assert out == expected
    assert killed.files() == whole.files()

    rows = json.loads((killed.results / "folds.json").read_text())["folds"]
    assert [(row["group"], row["seed"], row["fields"]) for row in rows] == [
        (time, 0, 1) for time in TIMES
    ]
    assert all(0 <= row["ap50"] <= 1 and row["cells"] > 5 for row in rows)
    with (killed.results / "folds.csv").open() as file:
        assert [row["experiment"] for row in csv.DictReader(file)] == sorted(killed.experiments())
    with (killed.results / "fields.csv").open() as file:
        scored = {row["field"]: row for row in csv.DictReader(file)}
    maps = {path.stem.removeprefix("pred_"): path for path in killed.results.glob("predictions/*")}
    assert scored.keys() == maps.keys() and len(maps) == 3
    for name, row in scored.items():
        assert row["group"] in name
        assert len(set(read_labels(maps[name]).flat) - {0}) == int(row["predictions"])

    # Against the same folds there is no difference, and nothing runs again.
    shutil.copytree(killed.results, killed.results.parent / "other")
    out, err = killed.finish("--against", "other")
    assert "running" not in err and err.count("is finished") == 4
    found = json.loads((killed.results / "folds.json").read_text())["against"]
    assert found["name"] == "other" and found["groups"] == list(TIMES)
    assert found["scores"]["ap50"]["difference"] == 0 and found["scores"]["ap50"]["p"] == 1
    assert "cv minus other" in out and "at least 0.25" in out

    process = killed.start("-S", "train.n_epochs=2")
    assert "results of other folds" in process.communicate()[1] and process.returncode == 2
