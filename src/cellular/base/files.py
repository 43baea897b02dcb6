"""Outputs that are complete or absent, and the folder of downloads."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from cellular.base.errors import InputError

# Environment variable with the repository whose clone an experiment runs in, if it runs in one.
REPOSITORY = "CELLULAR_REPOSITORY"
# Environment variable with the folder of saved states of training, if it is not in the cache.
STATES = "CELLULAR_STATES"
CHUNK = 1 << 20  # bytes that are read at once to be hashed
FULL = (errno.ENOSPC, errno.EDQUOT)


def cache_dir() -> Path:
    """Return the folder of downloads and unfinished runs: CELLULAR_CACHE, or the system's cache.

    All clones share it, and so do the temporary copies in which DVC runs experiments.
    """
    named = os.environ.get("CELLULAR_CACHE")
    folder = Path(named) if named else user_cache_path("cellular-experiments", appauthor=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: no folder for downloads can be made there ({error.strerror}); name another "
            "in CELLULAR_CACHE"
        ) from None
    return folder


def check_new(*outputs: Path, force: bool) -> None:
    """Raise `InputError` if one of the outputs exists, unless `force`."""
    for path in outputs:
        if path.exists() and not force:
            raise InputError(
                f"{path} exists already and would be overwritten; "
                "give another output, or --force to replace it"
            )


def check_apart(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise `InputError` if replacing an output could lose an input, or another output of the run.

    That is so if one of the two is, holds or lies in the other; links are followed. If a run only
    adds files to a folder, give those files, not the folder.
    """
    others = [(path, "which this run reads") for path in inputs]
    for output in outputs:
        faults = [
            f"{output} {relation} {path}, {what}"
            for path, what in others
            if (relation := _relation(output, path))
        ]
        if Path.cwd().is_relative_to(os.path.realpath(output)):
            faults.append(f"{output} holds the working folder")
        if faults:
            raise InputError(f"{faults[0]}; files would be lost; choose another output")
        others.append((output, "which this run writes, too"))


def _relation(output: Path, other: Path) -> str | None:
    mine, theirs = Path(os.path.realpath(output)), Path(os.path.realpath(other))
    if mine == theirs:
        return "is the same as"
    if theirs.is_relative_to(mine):
        return "holds"
    return "lies in" if mine.is_relative_to(theirs) else None


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a hidden path, for a file or a folder, which becomes `path` when the block succeeds.

    If the block fails, what was written is removed and `path` stays as it was. A kill leaves at
    most the hidden folder `.<name>.partial` beside `path`. The next run that writes `path` removes
    it, and gives an output that was being replaced its name again.

    Raises
    ------
    InputError
        If `path` cannot be written, the disk is full, or another process writes the same path now.
    """
    with together(path) as (staging,):
        yield staging


@contextmanager
def together(*paths: Path) -> Iterator[list[Path]]:
    """Do what `whole` does for several outputs of one run: all of them appear, or none.

    A kill in the moment in which they appear may leave some of them missing, never old beside new.
    """
    outputs = [Path(path) for path in paths]
    with ExitStack() as claims:
        homes = [claims.enter_context(_claimed(path)) for path in outputs]
        stagings = [home / path.name for home, path in zip(homes, outputs, strict=True)]
        with room(" and ".join(map(str, outputs)), "choose another output"):
            yield stagings
        with ExitStack() as undo:
            for home, staging, path in zip(homes, stagings, outputs, strict=True):
                # A file takes another's place in one step, but nothing takes a folder's. Of several
                # outputs, all old ones leave before the first new one comes: never are both there.
                if os.path.lexists(path) and (staging.is_dir() or len(outputs) > 1):
                    with _writable(path):
                        path.rename(_old(home, path))
            for staging, path in zip(stagings, outputs, strict=True):
                with _writable(path):
                    staging.replace(path)
                if len(outputs) > 1:
                    undo.callback(remove, path)
            undo.pop_all()


@contextmanager
def room(what: object, remedy: str) -> Iterator[None]:
    """Turn the system's error about a full disk while `what` is written into an `InputError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        reason = os.strerror(error.errno).lower()
        raise InputError(f"{what}: {reason}; make room, or {remedy}") from None


@contextmanager
def _claimed(path: Path) -> Iterator[Path]:
    """Give the empty hidden folder in which one process at a time prepares an output."""
    with _writable(path):
        home = path.with_name(f".{path.name}.partial")
        made = [home, *(folder for folder in home.parents if not folder.exists())]
        lock = FileLock(home / f"{path.name}.lock", timeout=0)
    try:
        with _writable(path):
            try:
                lock.acquire()
            except Timeout:
                raise InputError(
                    f"{path}: another process writes it now; wait until it has ended, or choose "
                    "another output"
                ) from None
            _restore(home, path)
            for left in home.iterdir():
                if left != Path(lock.lock_file):
                    remove(left)
        yield home
    finally:
        if lock.is_locked:
            _restore(home, path)
            shutil.rmtree(home, ignore_errors=True)
            lock.release()
        for folder in made:
            with suppress(OSError):  # it is not empty, as it should be after a success
                folder.rmdir()


def _old(home: Path, path: Path) -> Path:
    """Return the name that an output has from when it is replaced until all outputs are there."""
    return home / f"{path.name}.old"


def _restore(home: Path, path: Path) -> None:
    """Give an output its name again if a kill or an error came before its new version."""
    if os.path.lexists(_old(home, path)) and not os.path.lexists(path):
        _old(home, path).rename(path)


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Turn the system's error about a path that cannot be written into an `InputError`."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: the path has no last name, such as "."
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be written ({reason}); choose another output") from None


def write_json(path: Path, content: dict) -> None:
    """Write `content` as indented JSON, always with the same bytes; NaN is an error."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with whole(path) as staging:
        staging.write_text(text, encoding="utf-8")


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Return a file's hash as hexadecimal digits."""
    found = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


def digest_folder(folder: Path) -> str:
    """Return one sha256 for all files of a folder: their names, sorted, and their contents."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    lines = [f"{path.relative_to(folder).as_posix()} {digest(path)}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
