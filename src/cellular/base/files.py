"""Outputs that are complete or absent, and the folder of downloads."""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from platformdirs import user_cache_path

from cellular.base.errors import InputError


def cache_dir() -> Path:
    """Return the folder of downloads and unfinished runs: CELLULAR_CACHE, or the system's cache.

    All clones share it, and so do the temporary copies in which DVC runs experiments.
    """
    named = os.environ.get("CELLULAR_CACHE")
    folder = Path(named) if named else user_cache_path("cellular-experiments", appauthor=False)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_new(path: Path, force: bool) -> None:
    """Raise `InputError` if `path` exists, unless `force`."""
    if path.exists() and not force:
        raise InputError(
            f"{path} exists already and would be overwritten; "
            "give another output, or --force to replace it"
        )


def check_apart(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise `InputError` if replacing an output would delete an input or the working folder."""
    kept = [Path(path).resolve() for path in (*inputs, Path.cwd())]
    for output in outputs:
        for path in kept:
            if path.is_relative_to(Path(output).resolve()):
                raise InputError(
                    f"{output}: {path} is inside it and would be lost; choose another output"
                )


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a hidden path, for a file or a folder, which becomes `path` when the block succeeds.

    If the block fails, the hidden file or folder is removed and `path` stays as it was. A kill
    leaves at most the hidden `.<name>.partial` beside `path`, which the next run removes.

    Raises
    ------
    InputError
        If the disk is full.
    """
    path = Path(path)
    staging = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(staging)
    try:
        yield staging
        if staging.is_dir() and path.exists():
            # A folder cannot replace a folder in one step, so the old one is renamed first.
            aside = path.with_name(f".{path.name}.old.partial")
            remove(aside)
            path.rename(aside)
            staging.rename(path)
            remove(aside)
        else:
            staging.replace(path)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise InputError(
            f"{path}: no space left on its disk; make room, or choose a folder elsewhere"
        ) from None
    finally:
        with suppress(OSError):
            remove(staging)


def write_json(path: Path, content: dict) -> None:
    """Write `content` as indented JSON, always with the same bytes; NaN is an error."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with whole(path) as staging:
        staging.write_text(text, encoding="utf-8")
