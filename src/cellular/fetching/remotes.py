"""Remotes: DVC's configuration says where `remote://<name>/<path>` in the catalogue leads.

The address of each remote is only in .dvc/config, so that `dvc remote modify --local <name> url
...` replaces it, for all of its files, by a mirror or a local folder.
"""

import os
from pathlib import Path

from dvc.config import Config, ConfigError

from cellular.base.errors import InputError
from cellular.base.files import REPOSITORY

ROOT = Path(__file__).resolve().parents[3]
PREFIX = "remote://"


def repository() -> Path:
    """Return the root of the user's repository, also from within a copy that an experiment runs in.

    Copies lack what git does not track: `.dvc/config.local`, which names the mirrors of this
    machine, and files of the user's.
    """
    return Path(os.environ.get(REPOSITORY, os.environ.get("DVC_ROOT", ROOT)))


def user_path(path: str) -> Path:
    """Return a path that the user gave; a relative one starts at the repository's root.

    DVC runs experiments in temporary copies of the repository, where the relative path still means
    the user's file.
    """
    try:
        return repository() / Path(path).expanduser()
    except RuntimeError:  # such as ~nobody/cells
        raise InputError(f"{path}: no user has this name; write the path in full") from None


def resolve(url: str) -> str:
    """Return the address or the local path that a catalogue address leads to.

    Raises
    ------
    InputError
        If `url` names a remote that is not configured.
    """
    if not url.startswith(PREFIX):
        return url
    name, _, path = url.removeprefix(PREFIX).partition("/")
    try:
        remotes = Config(str(repository() / ".dvc"))["remote"]
    except ConfigError as error:
        raise InputError(f"{repository() / '.dvc/config'}: {error}") from None
    if name not in remotes:
        raise InputError(
            f"{url}: no remote {name!r} is configured; known: {', '.join(sorted(remotes))}. "
            f"Add it with: dvc remote add {name} <address or folder>"
        )
    return f"{remotes[name]['url'].rstrip('/')}/{path}"


def remote_of(url: str) -> str:
    """Return the name of the remote in a catalogue address, or "" if it names none."""
    return url.removeprefix(PREFIX).partition("/")[0] if url.startswith(PREFIX) else ""


def is_local(address: str) -> bool:
    """Tell whether an address is a path on this machine."""
    return "://" not in address
