"""Members: images in a zip archive on a server, read by HTTP Range when needed, in memory only.

The archive's directory is read once. It says where each member lies, so that one request brings
members that lie side by side. CELLULAR's 6,240 fields are such an archive of 105 GB: the three
channels of a field are members of their own, and become one image.
"""

import bisect
import hashlib
import io
import logging
import posixpath
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import IO, Literal

import requests

from cellular.base.archives import DAMAGED, check_members
from cellular.base.errors import Faults, InputError
from cellular.fetching.archives import BUFFER, RemoteFile, copy_member, longest, reading
from cellular.fetching.datasets import RGB, WAVES, merged
from cellular.fetching.downloads import reaching, session
from cellular.fetching.remotes import is_local, resolve
from cellular.fetching.sources import SourceFile, catalogue
from cellular.imaging import microscopy
from cellular.imaging.microscopy import FORMATS, Image, Source

log = logging.getLogger(__name__)

# Bytes of a request: two fields of CELLULAR's, of 17 MB each. All 6,240 fields are 3,120 requests
# then, which Zenodo allows in 1.6 hours, and a connection that breaks loses no more than this.
REQUEST = 40_000_000
KEPT = 2 * REQUEST  # bytes in memory: threads may read the end of one request, and the next one
BRIDGED = 0.03  # of the bytes needed, for gaps between members; more would cost more than it saves
CHANNEL = re.compile(rf"(?P<field>.+)_(?P<wave>{'|'.join(WAVES)})\.(?i:tiff?)")
PIXEL_SIZE = catalogue().datasets["cellular"].pixel_size  # µm

Rendering = Literal["merged", "raw"]
NAMES = {"merged": ("red", "green", "blue"), "raw": ("mRFP", "EGFP", "transmitted")}  # of channels


@dataclass(frozen=True)
class Archive:
    """A zip archive, and where it is."""

    asked: str  # as the user named it
    address: str  # a URL, or a path on this machine
    version: str | None = None  # the server's ETag when the directory was read


@dataclass(frozen=True)
class Member:
    """A member of an archive."""

    entry: zipfile.ZipInfo
    extent: range  # the bytes from its local header to the next member's

    @property
    def path(self) -> PurePosixPath:
        """Its path in the archive; some programs write backslashes."""
        return PurePosixPath(self.entry.filename.replace("\\", "/").lstrip("/"))


Found = dict[str, tuple[Member, ...]]  # the members of each image


@dataclass(frozen=True)
class RemoteImage:
    """An image in an archive, as a `Source`: one member, or one for each channel."""

    name: str
    archive: Archive
    members: tuple[Member, ...]  # channels are in the order `RGB`
    rendering: Rendering
    pixel_size: float | None  # µm
    parts: tuple[range, ...] = ()  # of the archive, to ask for; neighbours lie in them, too

    def digest(self) -> str:
        """Return a SHA-256 of what the directory says of the members; nothing is fetched."""
        entries = [member.entry for member in self.members]
        told = [(entry.filename, entry.file_size, entry.CRC) for entry in entries]
        known = repr((told, self.rendering, self.pixel_size))
        return hashlib.sha256(known.encode()).hexdigest()

    def read(self) -> Image:
        """Return the image; what is fetched for its neighbours, too, is kept in memory for them.

        Raises
        ------
        InputError
            If the server cannot be reached or has another version of the archive by now, or a
            member is damaged or no image.
        """
        images = [self._member_image(member) for member in self.members]
        if len(images) == 1:
            return replace(images[0], pixel_size=self.pixel_size or images[0].pixel_size)
        planes = [image.pixels for image in images]
        pixels = merged(planes, f"{self.archive.address}: {self.name}", raw=self.rendering == "raw")
        return Image(pixels, NAMES[self.rendering], self.pixel_size)

    def _member_image(self, member: Member) -> Image:
        where = f"{self.archive.address}: {member.path}"
        part = next(part for part in self.parts if member.extent.start in part)
        with reading(where):
            try:
                content = _content(member, part, _recent.part(self.archive, part))
            except DAMAGED:  # perhaps on its way, which a second request tells
                content = _content(member, part, _recent.part(self.archive, part, again=True))
        try:
            return microscopy.read(Path(member.path), content=content)
        except InputError as error:
            raise InputError(f"{self.archive.address}: {error}") from None


def remote_fields(
    address: str,
    patterns: Sequence[str] = ("*",),
    *,
    rendering: Rendering = "merged",
    pixel_size: float | None = None,
) -> list[Source]:
    """Return the images in a zip archive, sorted by name; only its directory is fetched.

    If a field has members `<field>_w1.tif`, `_w2` and `_w3`, as CELLULAR's fields have, the fields
    are the images. Otherwise every image of `FORMATS` is. Names begin below the images' folder.

    Parameters
    ----------
    address : `remote://<remote>/<path>`, where DVC's configuration says what server or local folder
        the remote is, or a URL
    patterns : names of images, or patterns such as `Timepoint_001*_C03_*`
    rendering : of fields, "merged", the picture as CELLULAR's authors merged it, (H, W, 3) uint8,
        or "raw", mRFP, EGFP and transmitted light, (H, W, 3) in their own dtype
    pixel_size : µm, edge of a pixel; None is CELLULAR's for fields, and for others what their files
        say

    Raises
    ------
    InputError
        If the archive cannot be reached or read, a pattern matches no image, a field lacks a
        channel, or a member must not be unpacked.
    """
    archive, members = _directory(address)
    fields = _fields(members)
    found = _below_common_folder(fields or _single_images(members))
    if not found:
        raise InputError(f"{archive.address}: no images in it; expected {', '.join(FORMATS)}")
    names = _matching(found, patterns, archive.address)
    check_members(archive.address, [member.entry for name in names for member in found[name]])
    if fields:
        pixel_size = pixel_size or PIXEL_SIZE
        _check_channels(archive.address, {name: found[name] for name in names})
    return share_requests(
        [RemoteImage(name, archive, found[name], rendering, pixel_size) for name in names]
    )


def share_requests(sources: Sequence[Source]) -> list[Source]:
    """Return the sources with their requests planned for these sources only, in this order.

    Whoever chooses some of the images from `remote_fields`, such as those that are not finished,
    calls this, or the requests bring the neighbours that were left out. Other sources stay as they
    are.
    """
    planned = _planned([source for source in sources if isinstance(source, RemoteImage)])
    return [next(planned) if isinstance(source, RemoteImage) else source for source in sources]


def _planned(images: Sequence[RemoteImage]) -> Iterator[RemoteImage]:
    """Give the images with the parts to ask for, each for a run of at most `REQUEST` bytes."""
    runs: list[list[RemoteImage]] = []
    size = 0
    for image in images:
        own = sum(len(member.extent) for member in image.members)
        size += own
        if not runs or size > REQUEST or image.archive != runs[-1][-1].archive:
            runs.append([])
            size = own
        runs[-1].append(image)
    for run in runs:
        parts = _parts(member.extent for image in run for member in image.members)
        starts = [part.start for part in parts]
        for image in run:
            places = {bisect.bisect(starts, each.extent.start) - 1 for each in image.members}
            yield replace(image, parts=tuple(parts[place] for place in sorted(places)))


def _parts(extents: Iterable[range]) -> list[range]:
    """Return the parts of an archive to ask for; each extent lies in one of them."""
    parts: list[range] = []
    needed = 0
    for extent in sorted(extents, key=lambda extent: extent.start):
        needed += len(extent)
        both = range(parts[-1].start, max(parts[-1].stop, extent.stop)) if parts else extent
        if parts and len(both) <= (1 + BRIDGED) * needed:
            parts[-1] = both
        else:
            parts.append(extent)
            needed = len(extent)
    return parts


def _directory(address: str) -> tuple[Archive, list[Member]]:
    path = resolve(address)
    if is_local(path):
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file in the folder that stands in for {address}")
        with Path(path).open("rb") as file:
            return Archive(address, path), _members(path, file)
    source = _described(address)
    if source.licence:
        log.info("licence: %s; citation: %s", source.licence, source.citation)
    with reaching(path, address, source):
        remote = RemoteFile(_http(), path)
        members = _members(path, io.BufferedReader(remote, BUFFER))
    return Archive(address, path, remote.version), members


def _members(where: str, file: IO[bytes]) -> list[Member]:
    with reading(where), zipfile.ZipFile(file) as opened:
        entries = opened.infolist()
        ends = sorted({*(entry.header_offset for entry in entries), opened.start_dir})
        stops = [ends[bisect.bisect(ends, entry.header_offset)] for entry in entries]
    return [
        # Behind a member there may be bytes of no member, such as those of one that was deleted.
        Member(entry, range(start := entry.header_offset, min(stop, start + longest(entry))))
        for entry, stop in zip(entries, stops, strict=True)
    ]


def _described(address: str) -> SourceFile:
    """Return the catalogue's entry of an address, or one that says nothing but the address."""
    known = (file for file in catalogue().files.values() if file.url == address)
    return next(known, SourceFile(what="images", licence="", citation="", url=address))


def _fields(members: Sequence[Member]) -> Found:
    """Return the channels of each field in the order `RGB`; none if no field has all of them."""
    found: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        if named := CHANNEL.fullmatch(str(member.path)):
            found[named["field"]].append(member)
    fields = {field: tuple(sorted(each, key=_channel)) for field, each in found.items()}
    complete = any([*map(_channel, channels)] == [0, 1, 2] for channels in fields.values())
    return fields if complete else {}


def _channel(member: Member) -> int:
    """Return the place of a field's member in `RGB`."""
    named = CHANNEL.fullmatch(str(member.path))
    return RGB.index(named["wave"]) if named else -1


def _check_channels(where: str, fields: Found) -> None:
    Faults(
        f"{where}: {name}: the channels {', '.join(member.path.name for member in channels)}, "
        f"expected one of each: {', '.join(WAVES)}"
        for name, channels in fields.items()
        if [*map(_channel, channels)] != [0, 1, 2]
    ).raise_all(where)


def _single_images(members: Sequence[Member]) -> Found:
    """Return the images of one member each, without their endings if that tells them apart."""
    images = [
        member
        for member in members
        if member.path.suffix.lower() in FORMATS
        and not member.entry.is_dir()
        and not any(part.startswith((".", "__MACOSX")) for part in member.path.parts)
    ]
    bare = {member.path.with_suffix("") for member in images}
    found: Found = defaultdict(tuple)
    for member in images:
        path = member.path.with_suffix("") if len(bare) == len(images) else member.path
        found[str(path)] += (member,)
    return found


def _below_common_folder(found: Found) -> Found:
    paths = {path: PurePosixPath(path) for path in sorted(found)}
    folder = posixpath.commonpath([path.parent for path in paths.values()]) if paths else ""
    return {str(path.relative_to(folder)): found[key] for key, path in paths.items()}


def _matching(names: Iterable[str], patterns: Sequence[str], where: str) -> list[str]:
    """Return the names that match a pattern, in order."""
    names = list(names)
    matches = {
        pattern: {name for name in names if name == pattern or fnmatchcase(name, pattern)}
        for pattern in patterns
    }
    Faults(
        f"{where}: none of its {len(names):,} images matches {pattern!r}; they are named like "
        f"{names[0]}"
        for pattern, matched in matches.items()
        if not matched
    ).raise_all(where)
    chosen = set().union(*matches.values())
    return [name for name in names if name in chosen]


@cache
def _http() -> requests.Session:
    """Return this process's session."""
    return session()


@cache
def _opened(archive: Archive) -> RemoteFile:
    """Return an archive on a server, for this process; it must have the version that is known."""
    remote = RemoteFile(_http(), archive.address)
    if remote.version != archive.version:
        raise InputError(f"{archive.address}: changed since its directory was read; run again")
    return remote


class _Recent:
    """The parts of archives that this process has asked for last."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.parts: dict[tuple[Archive, range], bytes] = {}

    def part(self, archive: Archive, part: range, *, again: bool = False) -> bytes:
        """Return a part of an archive; `again` asks for it although it is in memory.

        One request at a time is sent, because threads often want the same part.
        """
        with self.lock:
            if again:
                self.parts.pop((archive, part), None)
            if (archive, part) not in self.parts:
                while sum(map(len, self.parts.values())) + len(part) > KEPT and self.parts:
                    del self.parts[next(iter(self.parts))]  # the oldest
                self.parts[archive, part] = _fetched(archive, part)
            return self.parts[archive, part]


_recent = _Recent()


def _fetched(archive: Archive, part: range) -> bytes:
    if is_local(archive.address):
        with Path(archive.address).open("rb") as file:
            file.seek(part.start)
            return file.read(len(part))
    with reaching(archive.address, archive.asked, _described(archive.asked)):
        return _opened(archive).fetch(part.start, len(part))


def _content(member: Member, part: range, fetched: bytes) -> bytes:
    """Return the bytes of a member that lies in a part of the archive; they are checked."""
    at = member.extent.start - part.start
    content = io.BytesIO()
    stream = io.BytesIO(memoryview(fetched)[at : at + len(member.extent)])
    copy_member(stream, member.entry, content)
    return content.getvalue()
