"""Studies: the trials of a search, in a journal that many processes read and write at once.

Optuna's journal knows no heartbeat: a trial whose process was killed would count as running for
ever. Here a process holds a lock for as long as it works on a trial; the system frees it when the
process ends, however that happens, and the next one that asks for work takes the trial up again.
"""

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import TrialState

from cellular.base.errors import InputError
from cellular.experiments.space import SECONDS, Pruning, Search

log = logging.getLogger(__name__)

JOURNAL = "journal.log"
FAILURES = 3  # trials that fail one after the other, after which a worker gives up
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


class Study:
    """A study in its folder: settings, trials, and who works on which."""

    def __init__(self, folder: Path, settings: Search):
        """Open the study, or make it; `InputError` if it was made with other settings."""
        self.folder, self.settings = folder, settings
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        (folder / "claims").mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / ".study.lock")
        self.judging = FileLock(folder / ".judging.lock")  # so that test groups are scored once
        with self._lock:
            backend = _journal(folder / JOURNAL)
            self.optuna = optuna.create_study(
                storage=optuna.storages.JournalStorage(backend),
                study_name=folder.name,
                directions=[objective.direction for objective in settings.objectives],
                pruner=_pruner(settings.pruning),
                load_if_exists=True,
            )
            self._check_settings()

    def _check_settings(self) -> None:
        # The number of trials may be raised later.
        now = self.settings.model_dump(mode="json", exclude={"trials"})
        before = self.optuna.user_attrs.get("settings")
        if before is None:
            self.optuna.set_user_attr("settings", now)
        elif changed := [name for name in now if now[name] != before.get(name)]:
            kept = self.trials(*DONE, TrialState.RUNNING)
            or_else = "" if kept else ", or delete this folder: no trial is finished"
            raise InputError(
                f"{self.folder}: the study was made with other settings ({', '.join(changed)}); "
                f"give the new search another name with --study{or_else}"
            )

    def trials(self, *states: TrialState) -> list[optuna.trial.FrozenTrial]:
        """Return the trials in these states, in the order of their numbers."""
        return self.optuna.get_trials(deepcopy=False, states=states or None)

    def best(self) -> optuna.trial.FrozenTrial:
        """Return the trial that is best by the first objective; `InputError` if none finished."""
        finished = self.trials(TrialState.COMPLETE)
        if not finished:
            raise InputError(f"{self.folder}: no trial was finished; give it more, with --trials")
        maximize = self.settings.objectives[0].direction == "maximize"
        return (max if maximize else min)(finished, key=lambda trial: trial.values[0])

    def add(self, drawn: dict) -> None:
        """Let these values be drawn for the first trial, if there is none yet."""
        with self._lock:
            if not self.trials():
                self.optuna.enqueue_trial(drawn)

    def elsewhere(self) -> int:
        """Return the number of trials that other processes work on now."""
        count = 0
        with self._lock:  # or a worker that looks for a trial now would pass over one held here
            for running in self.trials(TrialState.RUNNING):
                if claim := self._locked(running.number):
                    claim.release()
                else:
                    count += 1
        return count

    def check_recipe(self, recipe: str) -> None:
        """Raise `InputError` if the trials before were of another recipe, a word for what it is."""
        before = self.optuna.user_attrs.get("recipe")
        if before is None:
            self.optuna.set_user_attr("recipe", recipe)
        elif before != recipe:
            raise InputError(
                f"{self.folder}: params.yaml, its profile or the code has changed since the study "
                "was made, so that new trials cannot be compared with those before; undo the "
                "changes, or give the new search another name with --study"
            )

    @contextmanager
    def claimed(self, trials: int) -> Iterator[optuna.Trial | None]:
        """Give a trial to work on, or None once there are `trials`; nobody else has it meanwhile.

        Trials that failed do not count.
        """
        with self._lock:
            trial, claim = self._claim(trials)
        try:
            yield trial
        finally:
            if claim:
                claim.release()

    def _claim(self, trials: int) -> tuple[optuna.Trial | None, FileLock | None]:
        for running in self.trials(TrialState.RUNNING):
            if claim := self._locked(running.number):
                # It may have been finished between both lines above.
                if self.trials()[running.number].state == TrialState.RUNNING:
                    log.info("trial %d is taken up again", running.number)
                    self._seed(running.number)  # if it was killed before all was drawn
                    return optuna.Trial(self.optuna, running._trial_id), claim
                claim.release()
        under_way = len(self.trials(*DONE, TrialState.RUNNING))
        if under_way >= trials and not self.trials(TrialState.WAITING):
            return None, None
        number = len(self.trials())
        self._seed(number)
        trial = self.optuna.ask()
        claim = self._locked(trial.number)
        self.settings.draw(trial)  # within the lock, and so in the journal before anything else
        return trial, claim

    def _seed(self, number: int) -> None:
        # A seed for each trial: what is drawn depends on the trials before it alone, not on which
        # process draws it. (With one seed, all processes would begin with the same values.)
        seed = (self.settings.seed * 100_003 + number) % 2**32
        self.optuna.sampler = (
            optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)
            if self.settings.sampler == "tpe"
            else optuna.samplers.RandomSampler(seed=seed)
        )

    def _locked(self, number: int) -> FileLock | None:
        claim = FileLock(self.folder / "claims" / f"{number:04d}.lock")
        try:
            return claim.acquire(timeout=0).lock
        except Timeout:
            return None

    def work(self, trials: int, objective: Callable[[optuna.Trial], Sequence[float]]) -> None:
        """Work on one trial after the other until there are `trials`.

        Parameters
        ----------
        objective : returns the values of a trial, one for each objective. It may raise
            `optuna.TrialPruned`; after an `InputError` the trial has failed, and the next begins.

        Raises
        ------
        InputError
            After three failures in a row.
        """
        failures = 0
        while True:
            with self.claimed(trials) as trial:
                if trial is None:
                    return
                try:
                    with _timed(trial):
                        values = objective(trial)
                except optuna.TrialPruned as reason:
                    failures = 0
                    trial.set_user_attr("pruned", str(reason))
                    self.optuna.tell(trial, state=TrialState.PRUNED)
                except InputError as error:
                    failures += 1
                    trial.set_user_attr("failed", str(error))
                    with self._lock:  # or another would be drawn in place of the default
                        self.optuna.tell(trial, state=TrialState.FAIL)
                        if default := self.trials()[trial.number].system_attrs.get("fixed_params"):
                            self.optuna.enqueue_trial(default)  # it is tried again
                    if failures == FAILURES:
                        raise
                    log.warning("trial %d failed: %s", trial.number, error)
                else:
                    failures = 0
                    self.optuna.tell(trial, list(values))


def _journal(path: Path) -> JournalFileBackend:
    """Open the journal, without the half of a line that a full disk may have left at its end.

    With more lines after it, Optuna could not read the journal any more.
    """
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        content = path.read_bytes() if path.exists() else b""
        if content and not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
    finally:
        lock.release()
    return JournalFileBackend(str(path), lock)


@contextmanager
def _timed(trial: optuna.Trial) -> Iterator[None]:
    """Add the seconds that this takes to those that the trial has had, without pauses between."""
    began = time.monotonic()
    try:
        yield
    finally:
        took = trial.user_attrs.get(SECONDS, 0.0) + time.monotonic() - began
        trial.set_user_attr(SECONDS, round(took, 1))


def winner_of(study: str, trial: int) -> str:
    """Return the name of the experiment that scores a study's winner on the test groups.

    The trial is in it, since a study that goes on may have another winner.
    """
    return f"{study}-{trial:04d}-winner"


def _pruner(pruning: Pruning) -> optuna.pruners.BasePruner:
    if pruning.pruner == "median":
        return optuna.pruners.MedianPruner(pruning.startup, pruning.warmup)
    if pruning.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=max(pruning.warmup, 1))
    if pruning.pruner == "wilcoxon":
        return optuna.pruners.WilcoxonPruner(n_startup_steps=pruning.startup)
    return optuna.pruners.NopPruner()
