"""Archives: members read by name and checked, from a whole file or over HTTP Range requests.

Nothing is unpacked as it comes: the members that are wanted are named, each is checked before a
byte of it is written, and none can leave the folder that it is unpacked to.
"""

import fnmatch
import hashlib
import io
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import requests
from tqdm import tqdm

from cellular.base.errors import Faults, InputError
from cellular.base.files import whole
from cellular.fetching.downloads import CHUNK, TIMEOUT, check_response, check_space, retrying

CONNECTIONS = 4  # at most, at a time: what a public server may be asked for
BUFFER = 1 << 16  # of the reader of a remote directory, which is read from its end
LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # APPNOTE.TXT 6.3.10, section 4.3.7
SLACK = 1024  # a local header's extra field may be longer than the directory's copy of it
ENCRYPTED = 0x1
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


@contextmanager
def reading(archive: object) -> Iterator[None]:
    """Turn what a damaged archive raises into an `InputError` that names it."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError,
            NotImplementedError, struct.error) as error:  # fmt: skip
        raise InputError(f"{archive}: no readable archive, or damaged ({error})") from None


def check_members(archive: object, members: Sequence[zipfile.ZipInfo]) -> None:
    """Raise one `InputError` that names every member that must not be unpacked.

    These are paths that leave the folder, links, names that come twice, encrypted members, and
    such as would grow more than a thousandfold.
    """
    faults, seen = Faults(), set()
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            faults.append(f"{member.filename}: leads out of the folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            faults.append(f"{member.filename}: is a link")
        if member.flag_bits & ENCRYPTED:
            faults.append(f"{member.filename}: is encrypted")
        if member.filename in seen:
            faults.append(f"{member.filename}: is there twice")
        if member.file_size > 1100 * member.compress_size + CHUNK:  # deflate reaches 1032 : 1
            faults.append(f"{member.filename}: grows from {member.compress_size:,} to "
                          f"{member.file_size:,} bytes")  # fmt: skip
        seen.add(member.filename)
    Faults(f"{archive}: {fault}" for fault in faults).raise_all(archive)


def unpack(
    archive: Path, folder: Path, place: Callable[[PurePosixPath], PurePosixPath | None]
) -> list[Path]:
    """Write the members of a zip archive to `folder`, each where `place` puts it.

    Parameters
    ----------
    place : takes a member's path and returns its path below `folder`, or None to leave it out

    Returns
    -------
    list of Path
        The files, sorted.

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
            raise InputError(f"{archive}: nothing that is wanted is in it")
        check_members(archive, wanted)
        folder.mkdir(parents=True, exist_ok=True)
        check_space(folder, sum(member.file_size for member in wanted))
        for target, member in tqdm(targets.items(), "unpack", unit="file", leave=False):
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(member) as source, target.open("xb") as copy:
                shutil.copyfileobj(source, copy)
    return sorted(targets)


def matching(pattern: str) -> Callable[[PurePosixPath], PurePosixPath | None]:
    """Return a `place` for `unpack`: what matches goes right into the folder."""

    def place(path: PurePosixPath) -> PurePosixPath | None:
        return PurePosixPath(path.name) if fnmatch.fnmatchcase(str(path), pattern) else None

    return place


def names(archive: Path) -> list[PurePosixPath]:
    """Return the paths of all files in a zip archive, sorted."""
    with reading(archive), zipfile.ZipFile(archive) as opened:
        return sorted(
            PurePosixPath(member.filename) for member in opened.infolist() if not member.is_dir()
        )


def read_member(archive: Path, name: str, sha256: str | None = None) -> bytes:
    """Return the bytes of one member of a tar archive.

    Raises
    ------
    InputError
        If there is none of that name, or its SHA-256 differs.
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
    """A file behind an HTTP server that answers Range requests, to be read and sought in.

    All parts must be of one version: a part with another ETag is an error.
    """

    def __init__(self, http: requests.Session, url: str):
        self.http, self.url, self.at = http, url, 0
        self.version: str | None = None
        with self.part(0, 1) as response:
            self.version = response.headers.get("ETag")
            self.size = int(response.headers["Content-Range"].rpartition("/")[2])

    def part(self, start: int, length: int) -> requests.Response:
        """Ask for `length` bytes from `start`; the answer is checked but not read yet."""
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

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be sought in."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place."""
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the current place, or as much of it as the rest of the file does."""
        length = min(len(buffer), self.size - self.at)
        if length <= 0:
            return 0

        def receive() -> bytes:
            with self.part(self.at, length) as response:
                return response.content

        content = retrying(receive, self.url)
        buffer[: len(content)] = content
        self.at += len(content)
        return len(content)


def fetch_members(http: requests.Session, url: str, wanted: Iterable[str], folder: Path) -> None:
    """Fetch members of a zip archive behind `url` to `folder`, without the rest of it.

    The archive's directory is read (zip64 too), then the bytes of each wanted member, several at a
    time. A member gets its name when its size and CRC are right; one that is there is kept.

    Raises
    ------
    InputError
        If a member is not in the archive or must not be unpacked, or its bytes are wrong.
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
    missing = [member for member in members if not _is_whole(folder / member.filename, member)]
    check_space(folder, sum(member.file_size for member in missing))

    bar = tqdm(
        desc="fetch", total=sum(member.compress_size for member in missing), unit="B",
        unit_scale=True, leave=False,
    )  # fmt: skip

    def kept() -> bool:
        return any((folder / member.filename).exists() for member in members)

    def fetch(member: zipfile.ZipInfo) -> None:
        target = folder / member.filename
        with reading(f"{url}: {member.filename}"):
            retrying(lambda: _fetch_member(remote, member, target), url, kept)
        bar.update(member.compress_size)

    with bar, ThreadPoolExecutor(CONNECTIONS) as pool:
        waiting = [pool.submit(fetch, member) for member in missing]
        try:
            for done in waiting:
                done.result()
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
    """Fetch, inflate and check one member; it gets its name when it is whole."""
    name = f"{remote.url}: {member.filename}"
    if member.compress_type not in (STORED, DEFLATED):
        raise InputError(f"{name}: compression {member.compress_type} is not supported")
    header = LOCAL_HEADER.size + len(member.filename.encode()) + len(member.extra) + SLACK
    length = min(header + member.compress_size, remote.size - member.header_offset)
    with remote.part(member.header_offset, length) as response, whole(target) as staging:
        chunks = response.iter_content(CHUNK)
        start = b""
        while len(start) < min(header, length):
            try:
                start += next(chunks)
            except StopIteration:
                raise requests.ConnectionError("body too short") from None
        fields = LOCAL_HEADER.unpack_from(start)
        if fields[0] != b"PK\x03\x04":
            raise InputError(f"{name}: no member stands where the directory says")
        data = LOCAL_HEADER.size + fields[9] + fields[10]
        inflate = zlib.decompressobj(-zlib.MAX_WBITS) if member.compress_type == DEFLATED else None
        left, size, check = member.compress_size, 0, 0
        with staging.open("wb") as file:
            chunk = start[data:]
            while left:
                chunk = chunk[:left]
                left -= len(chunk)
                # One byte more than declared is enough to know that it is too long.
                room = member.file_size - size + 1
                content = inflate.decompress(chunk, room) if inflate else chunk
                size += len(content)
                if size > member.file_size:
                    raise InputError(f"{name}: longer than the {member.file_size:,} bytes declared")
                check = zlib.crc32(content, check)
                file.write(content)
                if left:
                    chunk = next(chunks, b"")
                    if not chunk:
                        raise requests.ConnectionError("body too short")
        if size != member.file_size or check != member.CRC:
            raise InputError(f"{name}: its bytes are damaged (size or CRC); run again")
