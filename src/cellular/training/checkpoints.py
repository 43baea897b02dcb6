"""Checkpoints: the saved state of a training run, from which it resumes after a kill.

They are kept in the cache folder, because DVC removes the outputs of a stage before it runs; or in
the folder that CELLULAR_STATES names, so that whoever gives a run up can remove its states. The
name of a checkpoint is a hash of everything that decides the result, so that a run finds its own
state in whatever folder it is started again, and never that of another run.
"""

import hashlib
import importlib.metadata
import io
import logging
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from cellular.base import provenance
from cellular.base.files import STATES, cache_dir, remove, whole

log = logging.getLogger(__name__)

PACKAGE = __name__.partition(".")[0]
SHA256_BYTES = 32
KEPT_DAYS = 30  # states of runs that were stopped and never went on are removed after that ...
KEPT_BYTES = 5_000_000_000  # ... and, the oldest first, when all together are larger
LIBRARIES = (*provenance.LIBRARIES, "lightning-fabric")


def code_identity() -> str:
    """Return a line for each loaded module of our packages, with its hash, and each library."""
    listed = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    for name, module in sorted(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if path and name.partition(".")[0] == PACKAGE:
            listed.append(f"{name} {hashlib.sha256(Path(path).read_bytes()).hexdigest()}")
    return "\n".join(listed)


def identity(*parts: str) -> str:
    """Return a hash of the texts that together decide a result."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class Checkpoint:
    """The state of one run on disk, locked: only one process at a time reads and writes it."""

    def __init__(self, name: str):
        folder = Path(os.environ.get(STATES) or cache_dir() / "training")
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.state"
        self._lock = FileLock(folder / f".{name}.lock")
        try:
            self._lock.acquire(timeout=0)
            self.mine = True
            _prune(folder, keep=self.path)
        except Timeout:
            self.mine = False
            log.warning("another process runs the same training; this one saves no state")

    def load(self) -> dict[str, Any] | None:
        """Return the saved state, or None if there is none that can be read."""
        if not self.mine or not self.path.exists():
            return None
        content = self.path.read_bytes()
        digest, saved = content[:SHA256_BYTES], content[SHA256_BYTES:]
        if hashlib.sha256(saved).digest() != digest:
            log.warning("%s is damaged; training starts from the beginning", self.path)
            return None
        return torch.load(io.BytesIO(saved), map_location="cpu", weights_only=True)

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved state, in one step; its hash stands before it."""
        if self.mine:
            content = io.BytesIO()
            torch.save(state, content)
            saved = content.getvalue()
            with whole(self.path) as staging:
                staging.write_bytes(hashlib.sha256(saved).digest() + saved)

    def remove(self) -> None:
        """Remove the saved state, once the run is finished or has failed."""
        if self.mine:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        """Unlock the state."""
        self._lock.release()


def _prune(folder: Path, keep: Path) -> None:
    """Remove states that are old, or too large together, except those that are in use."""
    total = 0
    with suppress(FileNotFoundError):  # another process prunes as well
        states = [(path.stat(), path) for path in folder.glob("*.state") if path != keep]
        for stat, path in sorted(states, key=lambda state: state[0].st_mtime, reverse=True):
            total += stat.st_size
            days = (time.time() - stat.st_mtime) / 86400
            if days < KEPT_DAYS and total < KEPT_BYTES:
                continue
            with suppress(Timeout), FileLock(folder / f".{path.stem}.lock", timeout=0):
                path.unlink()
                log.info("%s: state of a training that stopped %.0f days ago, removed", path, days)
    for left in folder.glob(".*.state.partial"):  # killed while its state was saved
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > KEPT_DAYS * 86400:
                remove(left)
