"""Clones of the repository: each experiment runs in one, so that a kill leaves the user's as it is.

`dvc exp run --temp` runs in a copy as well. But it first writes the parameters into the user's own
files, and stashes what is not committed: a kill at that moment would leave them so.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from dvc.config import Config, ConfigError

from cellular.base.errors import InputError
from cellular.base.files import REPOSITORY

HOME = Path(".dvc") / "tmp" / "grid"  # of the clones; git and DVC ignore it


def git(folder: Path, *arguments: str) -> str:
    """Return what a git command prints; `InputError` if it fails."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"git {' '.join(arguments)} failed in {folder}: {done.stderr.strip()}")
    return done.stdout


def run_in_clone(root: Path, name: str, head: str, command: Sequence[str], reference: str) -> bool:
    """Run a command in a clone of the repository, take a reference from it, and remove it.

    Clones that killed runs left are removed first.

    Parameters
    ----------
    root : the repository; its files stay as they are
    name : of the folder of the clone, without dots
    head : the commit that is HEAD in the clone; uncommitted changes of tracked files come on top
    command : its output goes to standard error
    reference : in git, what the command makes, such as refs/exps/...

    Returns
    -------
    bool
        Whether the command succeeded. If not, nothing is taken.

    Raises
    ------
    InputError
        If another process uses a clone of this name, or git fails.
    """
    home = root / HOME
    home.mkdir(parents=True, exist_ok=True)
    clone = home / name
    with _locked(clone) as lock:
        for left in home.glob("*.lock"):
            with suppress(InputError), _locked(left):
                shutil.rmtree(left.with_suffix(""), ignore_errors=True)
        try:
            shutil.rmtree(clone, ignore_errors=True)
            _make(root, clone, head)
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            # The command holds the lock too, since it goes on if only this process is killed.
            done = subprocess.run(
                command,
                cwd=clone,
                env=os.environ | {"PATH": path, REPOSITORY: str(root)},
                stdout=sys.stderr,
                pass_fds=[lock.fileno()],
            )
            if not done.returncode:
                # A fetch would replace FETCH_HEAD, which the user may be about to merge.
                names = f"{reference}:{reference}"
                git(clone, "push", "--quiet", "--no-verify", str(root), names)
            return not done.returncode
        finally:
            shutil.rmtree(clone, ignore_errors=True)


@contextmanager
def _locked(clone: Path) -> Iterator[TextIO]:
    """Lock the name of a clone for this process and those that get the open file."""
    with clone.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{clone}: another process runs this experiment now; wait until it has ended, and "
                "run the same command again"
            ) from None
        yield lock


def _make(root: Path, clone: Path, head: str) -> None:
    """Clone the repository with the changes that are not committed, its settings and its cache."""
    git(root, "clone", "--quiet", "--shared", "--no-checkout", str(root), str(clone))
    objects, index = (
        root / git(root, "rev-parse", "--git-path", name).strip() for name in ("objects", "index")
    )
    # What --shared writes, unless the repository is a shallow clone itself.
    (clone / ".git" / "objects" / "info" / "alternates").write_text(f"{objects}\n")
    for key in ("user.name", "user.email"):
        if value := git(root, "config", "--default", "", key).strip():
            git(clone, "config", key, value)
    git(clone, "update-ref", "--no-deref", "HEAD", head)
    # The clone's own index takes in the user's files as they are now; the user's is only read.
    shutil.copyfile(index, clone / ".git" / "index")
    git(root, f"--git-dir={clone / '.git'}", f"--work-tree={root}", "add", "--update")
    git(clone, "checkout-index", "--all", "--force", "--index")
    try:
        with Config(str(clone / ".dvc")).edit("local") as settings:
            # Paths are absolute in what is read, and so lead to the same places.
            settings.update(Config(str(root / ".dvc")).read())
            settings["cache"].setdefault("dir", str(root / ".dvc" / "cache"))
    except ConfigError as error:
        raise InputError(f"{root / '.dvc' / 'config'}: {error}") from None
