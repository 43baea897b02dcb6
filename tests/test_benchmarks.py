"""Every benchmark runs on a small input. Its figures are not tested."""

import importlib
import json
import logging
import shutil
import subprocess
import sys

import pytest
from helpers.annotations import ROOT

import benchmarks
from benchmarks import tolerance

pytestmark = pytest.mark.slow


def results():
    """Return the files in the folders where benchmarks keep their results, with their dates."""
    return {
        path: path.stat().st_mtime_ns
        for name in ("experiments", "metrics")
        for path in (ROOT / name).rglob("*")
    }


@pytest.fixture(autouse=True)
def as_loud_as_before():
    """Some benchmarks silence our log, which other tests read."""
    log = logging.getLogger("cellular")
    level = log.level
    yield
    log.setLevel(level)


@pytest.mark.parametrize("name", benchmarks.NAMES)
def test_a_benchmark_runs_on_a_small_input_and_keeps_nothing_of_it(name):
    before = results()
    result = importlib.import_module(f"benchmarks.{name}").run(small=True)
    if result is None:
        assert name == "train_gpu"
    else:
        assert result.line(name).startswith(f"{name}: ")
    assert results() == before


def test_long_benchmarks_run_only_when_they_are_named():
    assert set(benchmarks.NAMED) < set(benchmarks.NAMES)
    command = [sys.executable, "-m", "benchmarks", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "without names, all but those that take long" in " ".join(done.stdout.split())


def test_an_unknown_benchmark_gets_a_list_of_those_that_exist():
    command = [sys.executable, "-m", "benchmarks", "speed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no benchmark 'speed'; there are: effect, evaluate" in done.stderr


def test_a_tolerance_is_three_standard_deviations_of_a_difference():
    committed = {"test": {"ap50": 0.5, "count_error": -0.27}, "best_valid_loss": 1.6}
    runs = [
        {"test": {"ap50": 0.49, "count_error": -0.27}, "best_valid_loss": 1.5},
        {"test": {"ap50": 0.51, "count_error": -0.27}, "best_valid_loss": 1.7},
    ]
    # Standard deviations of 0.01, 0 and 0.1, times 3 and the square root of 2: 4.2426.
    assert tolerance.tolerances_of(committed, runs) == {
        "test": {"ap50": 0.043, "count_error": 0.0},
        "best_valid_loss": 0.425,
    }


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A repository with the outputs of a run, as far as the benchmark looks for them."""
    weights = "models/pretrained/cellular_pretrained"
    for name in ("data/raw", "data/prepared/all", "data/flows", "metrics", weights):
        (tmp_path / name).mkdir(parents=True)
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "metrics/summary.json").write_text(json.dumps({"test": {"ap50": 0.5}}))
    monkeypatch.setattr(tolerance, "ROOT", tmp_path)
    return tmp_path


def test_tolerances_are_measured_once_for_each_variation_and_params_yaml(finished, monkeypatch):
    measured = []

    def measure(params, changes, *_):
        measured.append(changes)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return {"test": {"ap50": 0.5 + 0.01 * changes.get("seed", 0)}}

    monkeypatch.setattr(tolerance, "_measure", measure)
    with pytest.raises(KeyboardInterrupt):
        tolerance.run()
    assert not (finished / "metrics/tolerances.json").exists()
    assert "0.054" in tolerance.run().text
    count = len(measured)
    assert all(measured.count(changes) == 1 for changes in measured if changes != measured[2])
    written = json.loads((finished / "metrics/tolerances.json").read_text())
    assert written["tolerances"] == {"test": {"ap50": 0.054}}
    assert {"committed", "32 bits", "one thread", "seed 3"} < written["runs"].keys()
    assert tolerance.run() and len(measured) == count
    params = finished / "params.yaml"
    params.write_text(params.read_text().replace("n_epochs: 20", "n_epochs: 21"))
    assert tolerance.run() and len(measured) == 2 * count - 1


def test_tolerances_need_a_finished_run(finished):
    shutil.rmtree(finished / "data/flows")
    with pytest.raises(SystemExit, match=r"data/flows missing; run `make repro` first"):
        tolerance.run()
