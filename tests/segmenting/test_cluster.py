"""Dask: real schedulers and workers give the same bytes as one process, even if one is killed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from helpers.annotations import ROOT
from helpers.results import results

pytest.importorskip("distributed", reason="an optional extra")
pytestmark = pytest.mark.slow
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


@contextmanager
def cluster(folder, workers, environment=ENVIRONMENT):
    """Give the address of a scheduler and the processes of its workers, and end them all."""
    contact = folder / "scheduler.json"
    common = ["--scheduler-file", str(contact), "--no-dashboard"]
    programs = [["scheduler", "--host", "127.0.0.1", "--port", "0", *common]]
    programs += [["worker", *common, "--no-nanny", "--nthreads", "1"]] * workers
    processes = []
    try:
        for number, (program, *options) in enumerate(programs):
            command = [sys.executable, "-m", f"distributed.cli.dask_{program}", *options]
            with (folder / f"{number}.log").open("w") as log:
                process = subprocess.Popen(
                    command, env=environment, cwd=folder, stdout=log, stderr=log
                )
            processes.append(process)
        wait_for(contact.exists)
        yield contact.read_text().split('"address": "')[1].split('"')[0], processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def wait_for(condition):
    while not condition():
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(images, model, tmp_path_factory):
    """The results of one process."""
    from segment import main

    output = tmp_path_factory.mktemp("whole") / "out"
    main([str(images), "--model", str(model), "--output", str(output)])
    return results(output)


def arguments(images, model, output, scheduler):
    options = ("--model", model, "--output", output, "--batch_images", 2)
    return ("segment", images, *options, "--scheduler", scheduler)


def test_a_local_cluster(images, model, whole, run_script, tmp_path):
    output = tmp_path / "out"
    code, _, err = run_script(*arguments(images, model, output, "local"))
    assert code == 0, err
    assert results(output) == whole


def test_a_worker_that_is_killed_in_the_middle(images, model, whole, tmp_path):
    output = tmp_path / "out"
    with cluster(tmp_path, workers=2) as (address, workers):
        script, *options = map(str, arguments(images, model, output, address))
        command = [sys.executable, str(ROOT / f"src/{script}.py"), *options]
        with (tmp_path / "log").open("w") as log:
            run = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
        wait_for(lambda: any(output.glob("labels/*.tif")) or run.poll() is not None)
        os.kill(workers[0].pid, signal.SIGKILL)
        assert run.wait() == 0, (tmp_path / "log").read_text()
    assert workers[0].returncode == -signal.SIGKILL
    assert results(output) == whole
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_workers_that_have_another_package_of_this_name(images, model, run_script, tmp_path):
    other = tmp_path / "other" / "cellular" / "__init__.py"
    other.parent.mkdir(parents=True)
    other.touch()
    environment = ENVIRONMENT | {"PYTHONPATH": str(tmp_path / "other")}
    with cluster(tmp_path, workers=1, environment=environment) as (address, _):
        command = arguments(images, model, tmp_path / "out", address)
        code, out, err = run_script(*command)
    assert (code, out) == (2, "")
    assert "cannot import this package" in err and err.endswith("\n") and err.count("error: ") == 1
