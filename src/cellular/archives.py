"""Members of zip and tar archives: read by name, never unpacked as a whole, never run."""

import fnmatch
import hashlib
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from cellular.errors import InputError


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(f"{archive}: no readable archive, or damaged ({error})") from None


def extract_matching(archive: Path, pattern: str, folder: Path) -> list[Path]:
    """Write the members of a zip archive that match `pattern` to `folder`, under their last name.

    Only the last part of a member's name is used, so that none can leave `folder`.

    Returns
    -------
    list of Path
        The files, sorted.

    Raises
    ------
    InputError
        If no member matches, two have the same last name, or the archive is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with _reading(archive), zipfile.ZipFile(archive) as opened:
        members = [
            member
            for member in sorted(opened.infolist(), key=lambda member: member.filename)
            if fnmatch.fnmatchcase(member.filename, pattern) and not member.is_dir()
        ]
        if not members:
            raise InputError(f"{archive}: no member matches {pattern}")
        for member in members:
            target = folder / PurePosixPath(member.filename).name
            if target.exists():
                raise InputError(f"{archive}: two members are named {target.name}")
            with opened.open(member) as source, target.open("xb") as copy:
                shutil.copyfileobj(source, copy)
            written.append(target)
    return written


def read_member(archive: Path, name: str, sha256: str | None = None) -> bytes:
    """Return the bytes of one member of a tar archive.

    Raises
    ------
    InputError
        If there is none of that name, or its SHA-256 differs.
    """
    with _reading(archive), tarfile.open(archive) as opened:
        try:
            file = opened.extractfile(name)
        except KeyError:
            file = None
        if file is None:
            raise InputError(f"{archive}: no file {name} in it")
        content = file.read()
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise InputError(f"{archive}: {name} has sha256 {found}, expected {sha256}")
    return content
