"""Archives: members read by name and verified, from a local file or over HTTP Range requests.

Only members that the caller names are unpacked. Each is checked before a byte of it is written, and
none can be written outside the folder that is unpacked to.
"""

import fnmatch
import hashlib
import io
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

import requests
from tqdm import tqdm

from cellular.base.archives import DAMAGED, check_members
from cellular.base.errors import Faults, InputError
from cellular.base.files import FULL, whole
from cellular.fetching.downloads import (
    CHUNK,
    TIMEOUT,
    check_response,
    check_space,
    one_at_a_time,
    retrying,
)

CONNECTIONS = 4  # at a time; more would be impolite to a public server
BUFFER = 1 << 16  # bytes per request while the directory of a remote archive is read
LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # ZIP's APPNOTE.TXT 6.3.10, section 4.3.7
SLACK = 1024  # bytes by which a local header may be longer than its entry in the directory suggests
Place = Callable[[PurePosixPath], PurePosixPath | None]  # see `unpack`


@contextmanager
def reading(archive: object) -> Iterator[None]:
    """Turn the exceptions of a damaged archive into an `InputError` that names the archive."""
    try:
        yield
    except requests.RequestException:
        raise
    except (*DAMAGED, OSError) as error:
        # The system's errors are no fault of the archive; those of bz2, gzip, seeking name no file.
        if isinstance(error, OSError) and (error.filename or error.errno in FULL):
            raise
        raise InputError(
            f"{archive}: no readable archive, or damaged ({error}); fetch it again"
        ) from None


def check_archive(archive: Path) -> None:
    """Raise `InputError` unless all members of a zip archive can be read and have their CRC."""
    with reading(archive), zipfile.ZipFile(archive) as opened:
        if damaged := opened.testzip():
            raise zipfile.BadZipFile(damaged)


def unpack(archive: Path, folder: Path, place: Place) -> None:
    """Write the members of a zip archive to `folder`, each where `place` puts it.

    Parameters
    ----------
    place : takes a member's path and returns its path below `folder`, or None to leave it out

    Raises
    ------
    InputError
        If no member is wanted, one must not be unpacked, two go to one place, or the archive is
        damaged.
    """
    targets: dict[Path, zipfile.ZipInfo] = {}
    with reading(archive), zipfile.ZipFile(archive) as opened:
        wanted = []
        for member in opened.infolist():
            if member.is_dir():
                continue
            below = place(PurePosixPath(member.filename))
            if below is None:
                continue
            wanted.append(member)
            if folder / below in targets:
                raise InputError(f"{archive}: two members are named {below}")
            targets[folder / below] = member
        if not wanted:
            raise InputError(f"{archive}: none of the wanted files is in it; is it the right file?")
        check_members(archive, wanted)
        folder.mkdir(parents=True, exist_ok=True)
        check_space(folder, sum(member.file_size for member in wanted))
        for target, member in tqdm(targets.items(), "unpack", unit="file", leave=False):
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(member) as source, target.open("xb") as copy:
                shutil.copyfileobj(source, copy)


def matching(pattern: str) -> Place:
    """Return a `place` for `unpack` that puts the members that match right into the folder."""
    return lambda path: (
        PurePosixPath(path.name) if fnmatch.fnmatchcase(str(path), pattern) else None
    )


def below(folder: str, archive: Path) -> Place:
    """Return a `place` for `unpack` that keeps the files below `folder`, at whatever depth it is.

    Top folders beginning with "__" or "." are left out: archives from a Mac repeat every folder in
    __MACOSX.

    Raises
    ------
    InputError
        If not exactly one folder of the archive has this name.
    """
    with reading(archive), zipfile.ZipFile(archive) as opened:
        paths = [PurePosixPath(name) for name in opened.namelist() if not name.endswith("/")]
    roots = {
        path.parts[: path.parts.index(folder) + 1]
        for path in paths
        if folder in path.parts[:-1] and not path.parts[0].startswith(("__", "."))
    }
    if len(roots) != 1:
        raise InputError(
            f"{archive}: {len(roots)} folders are named {folder}, expected one; "
            "is it the right file?"
        )
    (root,) = roots

    def place(path: PurePosixPath) -> PurePosixPath | None:
        if path.parts[: len(root)] != root or path.name.startswith("."):
            return None
        return PurePosixPath(*path.parts[len(root) :])

    return place


def read_member(archive: Path, name: str, sha256: str | None = None) -> bytes:
    """Return the bytes of one member of a tar archive.

    Raises
    ------
    InputError
        If there is no member of that name, or its SHA-256 is another one.
    """
    with reading(archive), tarfile.open(archive) as opened:
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


class RemoteFile(io.RawIOBase):
    """A file on an HTTP server, readable and seekable through Range requests.

    All parts must come from one version of the file: another ETag is an error.
    """

    def __init__(self, http: requests.Session, url: str):
        self.http, self.url, self.at = http, url, 0
        self.version: str | None = None
        with self.part(0, 1) as response:
            self.version = response.headers.get("ETag")
            size = response.headers.get("Content-Range", "").rpartition("/")[2]
        if not size.isdecimal():
            raise InputError(f"{url}: the server does not say how large it is; name a mirror")
        self.size = int(size)

    def part(self, start: int, length: int) -> requests.Response:
        """Request `length` bytes from `start`; the response is checked, its body not read yet."""
        response = self.http.get(
            self.url,
            headers={"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"},
            stream=True,
            timeout=TIMEOUT,
        )
        check_response(response, self.url)
        if response.status_code != 206:
            response.close()
            raise InputError(
                f"{self.url}: the server sends whole files only (no Range requests), and this one "
                "is too large for that; name a mirror with dvc remote modify --local"
            )
        if self.version and response.headers.get("ETag", self.version) != self.version:
            response.close()
            raise InputError(f"{self.url}: changed while it was read; run again")
        return response

    def fetch(self, start: int, length: int) -> bytes:
        """Return `length` bytes from `start`, also after a connection that broke."""

        def receive() -> bytes:
            with self.part(start, length) as response:
                return response.content

        return retrying(receive, self.url)

    def readable(self) -> bool:
        """Return True: `io` asks before it reads."""
        return True

    def seekable(self) -> bool:
        """Return True: `zipfile` asks before it seeks."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position and return it."""
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Read bytes into `buffer` from the current position on, and return their number."""
        length = min(len(buffer), self.size - self.at)
        if length <= 0:
            return 0
        content = self.fetch(self.at, length)
        buffer[: len(content)] = content
        self.at += len(content)
        return len(content)


def fetch_members(http: requests.Session, url: str, wanted: Iterable[str], folder: Path) -> None:
    """Fetch members of the zip archive at `url` to `folder`, without the rest of the archive.

    The archive's directory is read first (zip64 too), then the bytes of each wanted member, several
    members at a time. A member gets its name when its size and CRC are right; members that are in
    the folder already are kept.

    Raises
    ------
    InputError
        If a member is not in the archive, must not be unpacked, or its bytes are wrong.
    """
    wanted = sorted(set(wanted))
    remote = RemoteFile(http, url)
    with reading(url), zipfile.ZipFile(io.BufferedReader(remote, BUFFER)) as opened:
        directory: dict[str, list[zipfile.ZipInfo]] = {}
        for member in opened.infolist():
            directory.setdefault(member.filename, []).append(member)
    Faults(f"{name}: not in the archive" for name in wanted if name not in directory).raise_all(url)
    members = [member for name in wanted for member in directory[name]]
    check_members(url, members)
    folder.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder):
        missing = [each for each in members if not _is_whole(folder / each.filename, each)]
        check_space(folder, sum(each.file_size for each in missing))
        _fetch_all(remote, missing, folder)


def _fetch_all(remote: RemoteFile, members: Sequence[zipfile.ZipInfo], folder: Path) -> None:
    size = sum(member.compress_size for member in members)
    bar = tqdm(desc="fetch", total=size, unit="B", unit_scale=True, leave=False)

    def kept() -> bool:
        return any((folder / member.filename).exists() for member in members)

    def fetch(member: zipfile.ZipInfo) -> None:
        target = folder / member.filename
        with reading(f"{remote.url}: {member.filename}"):
            retrying(lambda: _fetch_member(remote, member, target), remote.url, kept)
        bar.update(member.compress_size)

    with bar, ThreadPoolExecutor(CONNECTIONS) as pool:
        calls = [pool.submit(fetch, member) for member in members]
        try:
            for call in calls:
                call.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _is_whole(path: Path, member: zipfile.ZipInfo) -> bool:
    if not path.is_file() or path.stat().st_size != member.file_size:
        return False
    check = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            check = zlib.crc32(chunk, check)
    return check == member.CRC


def _fetch_member(remote: RemoteFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Fetch and inflate one member; it gets its name once its size and CRC are right."""
    length = min(longest(member), remote.size - member.header_offset)
    with (
        remote.part(member.header_offset, length) as response,
        whole(target) as staging,
        staging.open("wb") as copy,
    ):
        copy_member(response.raw, member, copy)


def longest(member: zipfile.ZipInfo) -> int:
    """Return the most bytes that a member takes with its local header, by the directory."""
    header = LOCAL_HEADER.size + len(member.filename.encode()) + len(member.extra) + SLACK
    return header + member.compress_size


def copy_member(stream: Any, member: zipfile.ZipInfo, copy: IO[bytes]) -> None:
    """Inflate a member to `copy`, an empty file; its CRC and its size are checked.

    Parameters
    ----------
    stream : binary file at the member's local header; read to the member's end

    Raises
    ------
    One of `DAMAGED`, which `reading` turns into an `InputError`.
    """
    fields = LOCAL_HEADER.unpack(stream.read(LOCAL_HEADER.size))
    if fields[0] != b"PK\x03\x04":
        raise zipfile.BadZipFile("a member is not where the directory says")
    stream.read(fields[9] + fields[10])
    with zipfile.ZipExtFile(stream, "r", member) as source:
        shutil.copyfileobj(source, copy)
    if copy.tell() != member.file_size:
        raise zipfile.BadZipFile("a member is shorter than the directory says")
