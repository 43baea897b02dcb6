"""Clones of the repository: experiments run in them, so that a kill leaves the user's as it is.

`dvc exp run --temp` runs in a copy as well. But it first writes the parameters into the user's own
files, and stashes what is not committed: a kill at that moment would leave them so. And two at once
may take each other's entry of the stash.
"""

import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO

from dvc.config import Config, ConfigError

from cellular.base.errors import InputError
from cellular.base.files import REPOSITORY

HOME = Path(".dvc") / "tmp" / "workers"  # of the clones; git and DVC ignore it
PATIENCE = 60  # seconds that a command has to save its state before it is killed
# Who commits experiments if git does not know the user.
NOBODY = {"user.name": "cellular", "user.email": "cellular@localhost"}
SNAPSHOT = "snapshot"  # file in a clone's .git: the index of the user's files at its beginning


def git(folder: Path, *arguments: str) -> str:
    """Return what a git command prints; `InputError` if it fails."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"git {' '.join(arguments)} failed in {folder}: {done.stderr.strip()}")
    return done.stdout


class Clone:
    """A clone with the user's files as they were when it was opened, committed or not.

    It is kept when it is closed, with its data, for the next command that needs one.
    """

    def __init__(self, root: Path, folder: Path):
        """Bring the clone in `folder`, which may be there from an earlier command, up to date."""
        self.root, self.folder = root, folder
        self._busy = folder.with_suffix(".busy")  # the running command's process group, if any
        self._end_orphan()
        for left in (folder / ".git").glob("*.lock"):  # git that was killed leaves them
            left.unlink()
        self.head = git(root, "rev-parse", "HEAD").strip()
        if not (folder / ".git" / SNAPSHOT).exists():
            shutil.rmtree(folder, ignore_errors=True)
            git(root, "clone", "--quiet", "--shared", "--no-checkout", str(root), str(folder))
        self._take_files()
        self._take_settings()

    def _end_orphan(self) -> None:
        """End what a killed process left running here, and remove the clone that it worked in."""
        group = self._busy.read_text() if self._busy.exists() else ""
        if not group:
            return
        with self._busy.open("a") as lock:
            if not _locked(lock):  # the number may be that of another program by now otherwise
                _end(int(group))
        shutil.rmtree(self.folder, ignore_errors=True)
        self._busy.unlink()

    def _take_files(self) -> None:
        """Give the clone the user's files as they are now; only read the user's index."""
        root, own = self.root, self.folder / ".git"
        objects, index = (
            root / git(root, "rev-parse", "--git-path", name).strip()
            for name in ("objects", "index")
        )
        # What --shared writes, unless the repository is a shallow clone itself.
        (own / "objects" / "info" / "alternates").write_text(f"{objects}\n")
        for key, fallback in NOBODY.items():
            value = git(root, "config", "--default", fallback, key).strip()
            git(self.folder, "config", key, value)
        before = git(self.folder, "ls-files", "-z") if (own / "index").exists() else ""
        shutil.copyfile(index, own / "index")
        git(root, f"--git-dir={own}", f"--work-tree={root}", "add", "--update")
        for name in set(before.split("\0")) - set(git(self.folder, "ls-files", "-z").split("\0")):
            (self.folder / name).unlink(missing_ok=True)  # of an earlier version
        shutil.copyfile(own / "index", own / SNAPSHOT)
        self.restore()

    def _take_settings(self) -> None:
        """Give the clone the user's settings of DVC, and the user's cache."""
        local = self.folder / ".dvc" / "config.local"
        local.unlink(missing_ok=True)
        try:
            with Config(str(self.folder / ".dvc")).edit("local") as settings:
                # Paths are absolute in what is read, and so lead to the same places.
                settings.update(Config(str(self.root / ".dvc")).read())
                settings["cache"].setdefault("dir", str(self.root / ".dvc" / "cache"))
        except ConfigError as error:
            raise InputError(f"{self.root / '.dvc' / 'config'}: {error}") from None

    def restore(self) -> None:
        """Undo what a command did to the files that git tracks; DVC's data stay."""
        own = self.folder / ".git"
        shutil.copyfile(own / SNAPSHOT, own / "index")
        git(self.folder, "update-ref", "--no-deref", "HEAD", self.head)
        git(self.folder, "checkout-index", "--all", "--force", "--index")

    def run(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] = MappingProxyType({}),
        output: IO | None = None,
        watch: Callable[[], None] = lambda: None,
    ) -> bool:
        """Run a command in the clone; return whether it succeeded.

        Parameters
        ----------
        environment : variables that the command gets besides this process's
        output : takes what it prints (default: standard error)
        watch : called five times a second. Whatever it raises ends the command, and so does Ctrl-C:
            the command is asked to end, and killed after a minute
        """
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        variables = os.environ | {"PATH": path, REPOSITORY: str(self.root)}
        with self._busy.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**variables, **environment},
                stdout=output or sys.stderr,
                stderr=output or sys.stderr,
                start_new_session=True,  # so that it and all that it starts can be ended together
                pass_fds=[lock.fileno()],
            )
            try:
                lock.write(str(process.pid))
                lock.flush()
                while process.poll() is None:
                    watch()
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(0.2)
                if process.returncode < 0:  # killed; what it had started would go on here
                    _end(process.pid)
            except BaseException:
                _end(process.pid, process)
                self.restore()
                raise
            finally:
                lock.truncate(0)
        return not process.returncode

    def reference(self, experiment: str) -> str:
        """Return where git has an experiment that begins at the commit of this clone."""
        # Where DVC keeps experiments: https://dvc.org/doc/user-guide/experiment-management
        return f"refs/exps/{self.head[:2]}/{self.head[2:]}/{experiment}"

    def send_home(self, reference: str) -> None:
        """Copy a reference, with its commits, into the user's repository."""
        # A fetch would replace FETCH_HEAD, which the user may be about to merge.
        names = f"{reference}:{reference}"
        git(self.folder, "push", "--quiet", "--no-verify", "--force", str(self.root), names)


@contextmanager
def a_clone(root: Path) -> Iterator[Clone]:
    """Open a clone that no other process uses, made if need be."""
    home = root / HOME
    home.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = home / f"{os.uname().nodename.partition('.')[0]}-{number}"
        with folder.with_suffix(".lock").open("w") as lock:  # freed by the kernel if we are killed
            if _locked(lock):
                yield Clone(root, folder)
                return


def _locked(file: IO) -> bool:
    """Lock an open file if nobody else has; return whether it is ours."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end(group: int, leader: subprocess.Popen | None = None) -> None:
    """End a process group: training saves its state; after a minute all are killed."""
    deadline = time.monotonic() + PATIENCE
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        while time.monotonic() < deadline:
            if leader:
                leader.poll()  # takes it out of the group once it has ended
            os.killpg(group, 0)
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)
    if leader:
        leader.wait()
