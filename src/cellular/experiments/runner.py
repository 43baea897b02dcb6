"""The runner: DVC experiments by their names, each once, on as many workers as are wanted."""

import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dvc.config import Config
from tqdm import tqdm

from cellular.base.errors import InputError
from cellular.base.params import Section, validate
from cellular.base.queues import cores
from cellular.experiments.clones import Clone, a_clone, git
from cellular.experiments.profiles import flags, overridden

log = logging.getLogger(__name__)

DECIDING = ("src", "dvc.yaml", "requirements.txt")  # the code that decides an experiment's result
LAST_LINES = 15  # of a failed experiment's log, in the error


@dataclass(frozen=True)
class Experiment:
    """A DVC experiment."""

    name: str
    overrides: dict[str, Any]  # by dotted name in params.yaml
    targets: tuple[str, ...] = ()  # stages to run, with those they need; (): the whole pipeline


class Stopped(Exception):
    """Another experiment failed, or the user has pressed Ctrl-C."""


def identified(
    root: Path, prefix: str, overrides: dict[str, Any], model: type[Section], where: Path
) -> str:
    """Return a name for an experiment, which ends in a hash of its parameters and its code.

    Raises `InputError`, which names the file `where` the overrides come from, if params.yaml is
    not valid with them; `model` validates the whole of it.
    """
    params = validate(model, overridden(root / "params.yaml", overrides, where), str(where))
    plain = ("--no-color", "--no-ext-diff")  # whatever the user's settings are
    code = git(root, "ls-tree", "HEAD", *DECIDING)
    code += git(root, "diff", *plain, "HEAD", "--", *DECIDING)
    identity = hashlib.sha256((params.model_dump_json() + code).encode()).hexdigest()[:6]
    return legal(f"{prefix}-{identity}")


def legal(name: str) -> str:
    """Return a name with dashes for the signs that DVC refuses in names of experiments."""
    return re.sub(r"[^\w-]", "-", name)


def commit_of(root: Path, name: str) -> str:
    """Return the commit of a finished experiment, whatever it began at; "" if there is none."""
    found = git(
        root,
        *("for-each-ref", "--sort=-committerdate", "--format=%(objectname)"),
        f"refs/exps/*/*/{name}",
    )
    return found.partition("\n")[0]


def run_one(
    clone: Clone,
    experiment: Experiment,
    *,
    environment: Mapping[str, str] = MappingProxyType({}),
    output: Path | None = None,
    watch: Callable[[], None] = lambda: None,
) -> str:
    """Run an experiment in a clone, and return its commit in the user's repository.

    Parameters
    ----------
    environment, watch : see `Clone.run`
    output : file for what DVC prints (default: standard error)

    Raises
    ------
    InputError
        If the experiment fails; those that are finished are kept.
    """
    clone.restore()
    _forget_missing(clone)
    command = ["dvc", "exp", "run", "--name", experiment.name, *flags(experiment.overrides)]
    command += experiment.targets
    # An experiment of that name that was killed before it came home would stop DVC.
    reference = clone.reference(experiment.name)
    git(clone.folder, "update-ref", "-d", reference)
    opened: Any = nullcontext() if output is None else output.open("a", encoding="utf-8")
    with opened as stream:
        done = clone.run(command, environment=environment, output=stream, watch=watch)
    if not done:
        raise InputError(f"experiment {experiment.name} failed; {_why(output)}")
    clone.send_home(reference)
    return git(clone.root, "rev-parse", reference).strip()


def _forget_missing(clone: Clone) -> None:
    """Take stages out of the clone's dvc.lock if folders that they made are not in DVC's cache.

    DVC looks into folders of stages that it does not run, for their plots for instance, and fails
    at one that it cannot list, as in a fresh clone of the repository. Those stages would have to be
    run again in any case.
    """
    from dvc.utils.serialize import modify_yaml  # takes seconds to import

    path = clone.folder / "dvc.lock"
    if not path.exists():
        return
    cache = Path(Config(str(clone.folder / ".dvc")).read()["cache"]["dir"]) / "files" / "md5"

    def there(output: dict) -> bool:
        known = output.get("md5", "")
        return not known.endswith(".dir") or (cache / known[:2] / known[2:]).exists()

    with modify_yaml(path) as lock:
        lock["stages"] = {
            name: stage
            for name, stage in lock.get("stages", {}).items()
            if all(map(there, stage.get("outs", [])))
        }


def _why(output: Path | None) -> str:
    again = "correct it and run the same command again: finished experiments are not repeated"
    if output is None:
        return f"DVC's message above says why; {again}"
    lines = output.read_text(encoding="utf-8").replace("\r", "\n").splitlines()
    last = "\n  ".join([line for line in lines if line.strip()][-LAST_LINES:])
    return f"{output} ends with\n  {last}\n{again}"


def run_all(
    root: Path, experiments: Sequence[Experiment], *, workers: int = 1, logs: Path | None = None
) -> dict[str, str]:
    """Run the experiments that are not finished yet, and return the commit of each by its name.

    Parameters
    ----------
    root : the repository; its files and its index stay as they are
    workers : experiments that run at once, each in a clone of its own; they share the cores
    logs : folder for what DVC prints, <name>.log; None: standard error, with one worker only

    Raises
    ------
    InputError
        If an experiment fails: the others are stopped, and those that are finished are kept.
    """
    commits = {experiment.name: commit_of(root, experiment.name) for experiment in experiments}
    waiting = [experiment for experiment in experiments if not commits[experiment.name]]
    for name, commit in commits.items():
        if commit:
            log.info("%s is finished", name)
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    left = iter(waiting)
    taking = threading.Lock()

    def watch() -> None:
        if stop.is_set():
            raise Stopped

    def work(number: int) -> None:
        try:
            with a_clone(root) as clone:
                for experiment in _taken(left, taking):
                    watch()
                    log.info("running %s", experiment.name)
                    commits[experiment.name] = run_one(
                        clone,
                        experiment,
                        environment=shared(number, workers),
                        output=logs and logs / f"{experiment.name}.log",
                        watch=watch,
                    )
                    bar.update()
        except BaseException:
            stop.set()
            raise

    with (
        tqdm(
            total=len(commits),
            initial=len(commits) - len(waiting),
            desc="experiments",
            unit="experiment",
            leave=False,
            disable=logs is None,  # DVC's own output would tear it
        ) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        futures = [pool.submit(work, number) for number in range(min(workers, len(waiting)))]
        try:
            errors = [future.exception() for future in futures]
        except KeyboardInterrupt:
            stop.set()
            raise
    for error in sorted(filter(None, errors), key=lambda error: isinstance(error, Stopped)):
        raise error
    return commits


def _taken(left: Iterator[Experiment], lock: threading.Lock) -> Iterator[Experiment]:
    """Give what is left, one after the other, to whichever thread asks."""
    while True:
        with lock:
            experiment = next(left, None)
        if experiment is None:
            return
        yield experiment


def shared(number: int, workers: int) -> dict[str, str]:
    """Return the variables that give worker `number` of several its threads and its GPU."""
    if workers <= 1:
        return {}
    threads = str(max(cores() // workers, 1))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return dict.fromkeys(names, threads) | _gpu(number)


def _gpu(number: int) -> dict[str, str]:
    """Return the variable that names one GPU of those that there are, for a worker."""
    import torch  # takes seconds to import

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = named.split(",") if named else [str(gpu) for gpu in range(torch.cuda.device_count())]
    return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}


@contextmanager
def files_of(root: Path, commit: str) -> Iterator[Any]:
    """Give the files of an experiment's commit, those in DVC's cache too (an fsspec file system).

    Raises `InputError` if one that is read is not there.
    """
    from dvc.api import DVCFileSystem  # takes seconds to import
    from dvc_data.index import DataIndexError

    try:
        yield DVCFileSystem(str(root), rev=commit)
    except (DataIndexError, FileNotFoundError) as error:
        names = ("--points-at", commit, "--format=%(refname:lstrip=4)", "refs/exps")
        name = git(root, "for-each-ref", *names).partition("\n")[0] or commit
        raise InputError(
            f"experiment {name}: a file is not in DVC's cache ({error}); fetch it with `dvc exp "
            f"pull`, or give `dvc exp remove {name}`, then the same command again"
        ) from None


def read_json(root: Path, commit: str, path: str) -> dict:
    """Return the content of a JSON file of a commit."""
    with files_of(root, commit) as files:
        return json.loads(files.read_text(path))
