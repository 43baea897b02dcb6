"""Checkpoints: the state of a training run, from which it goes on after a kill.

They lie in the cache folder, outside of the outputs that DVC removes before a stage and resets
before an experiment, under a name that everything which decides the result is hashed into. So a run
finds its own state in whatever folder it is started again, and never another run's.
"""

import hashlib
import importlib.metadata
import io
import logging
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from cellular.base.files import cache_dir, whole

log = logging.getLogger(__name__)

PACKAGE = __name__.partition(".")[0]
LIBRARIES = ("cellpose", "lightning-fabric", "numpy", "opencv-python-headless", "torch")


def code_identity() -> str:
    """Return the loaded files of all our packages, hashed, and the versions of libraries."""
    listed = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] == PACKAGE and getattr(module, "__file__", None):
            content = Path(module.__file__).read_bytes()
            listed.append(f"{name} {hashlib.sha256(content).hexdigest()}")
    return "\n".join(listed)


def identity(*parts: str) -> str:
    """Return a hash of all that decides a result."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class Checkpoint:
    """The state of one run, on disk; with it the run is in use, and no other process writes it."""

    def __init__(self, name: str):
        folder = cache_dir() / "training"
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.state"
        self._lock = FileLock(folder / f".{name}.lock")
        try:
            self._lock.acquire(timeout=0)
            self.mine = True
        except Timeout:
            self.mine = False
            log.warning("the same training runs already elsewhere; this one is not saved meanwhile")

    def load(self) -> dict[str, Any] | None:
        """Return what was saved, or None."""
        if not self.mine or not self.path.exists():
            return None
        try:
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile):
            log.warning("%s cannot be read; training starts anew", self.path)
            return None

    def save(self, state: dict[str, Any]) -> None:
        """Replace what was saved, in one step."""
        if self.mine:
            content = io.BytesIO()
            torch.save(state, content)
            with whole(self.path) as staging:
                staging.write_bytes(content.getbuffer())

    def remove(self) -> None:
        """Forget the run: it is finished, or led nowhere."""
        if self.mine:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        """Let other processes have the run."""
        self._lock.release()
