"""Sources: the images that a user names, as files, folders and zip archives."""

import fnmatch
import functools
import logging
import mimetypes
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from cellular.base import files
from cellular.base.archives import DAMAGED, check_members
from cellular.base.errors import Faults, InputError
from cellular.imaging import microscopy
from cellular.imaging.images import TIFF

log = logging.getLogger(__name__)

# Files beside images that show what somebody has found in them: label maps of Cellpose and of this
# project, and Cellpose's other pictures.
FOUND = ("*_masks.*", "*_excluded.*", "*_flows.*", "*_outlines.*", "*_cp_output.*")
FOLDERS = ("masks", "__MACOSX")  # of label maps, and of what a Mac adds to a zip
OUTPUT = {"run.json", "images.csv"}  # a folder that holds both is an output of this program


@dataclass(frozen=True)
class File:
    """An image in a file of its own."""

    name: str
    path: Path
    axes: str | None = None
    channel_names: tuple[str, ...] = ()

    def digest(self) -> str:
        """Return the file's SHA-256, and how it is to be read if that was said.

        Raises
        ------
        InputError
            If it cannot be read.
        """
        try:
            return _as_read(files.digest(self.path), self)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from None

    def read(self) -> microscopy.Image:
        """Return the image, or raise `InputError`."""
        return microscopy.read(self.path, axes=self.axes, channel_names=self.channel_names)


@dataclass(frozen=True)
class Member:
    """An image in a zip archive; what is read of the archive is this member only."""

    name: str
    archive: Path
    member: str  # its name in the archive
    size: int
    check: int  # CRC-32
    axes: str | None = None
    channel_names: tuple[str, ...] = ()

    def digest(self) -> str:
        """Return its name, size and CRC-32, and how it is to be read if that was said."""
        return _as_read(f"{self.member} {self.size} {self.check:08x}", self)

    def read(self) -> microscopy.Image:
        """Return the image, or raise `InputError`."""
        with _reading(self.archive):
            changed = self.archive.stat().st_mtime_ns
            content = _archive(self.archive, changed, os.getpid()).read(self.member)
        return microscopy.read(
            self.archive / self.member,
            content=content,
            axes=self.axes,
            channel_names=self.channel_names,
        )


def _as_read(content: str, source: File | Member) -> str:
    how = f" {source.axes} {source.channel_names}" if source.axes or source.channel_names else ""
    return content + how


def find(
    paths: Sequence[Path],
    *,
    axes: str | None = None,
    channel_names: Sequence[str] = (),
) -> list[File | Member]:
    """Return the images in files, folders and all folders below them, and zip archives.

    What is hidden is left out, and so are label maps and the like beside images, folders named
    masks, and outputs of this program. Zip archives in folders are not opened.

    Parameters
    ----------
    axes, channel_names : see `cellular.imaging.microscopy.read`

    Returns
    -------
    list of File or Member
        Sorted by name, which is the path below the folder or in the archive, with slashes; of a
        file that was given itself it is the file's own name. The ending is left off, unless two
        images would have one name then.

    Raises
    ------
    InputError
        If a path is missing or of no format that is read, if there are no images, or two with one
        name, or if a member of an archive must not be read.
    """
    if axes is not None:
        microscopy.check_letters(axes)
    found: dict[str, File | Member] = {}
    faults = Faults()
    for path in map(Path, paths):
        with faults.collect():
            for source in _images(path):
                if source.name in found:
                    faults.append(
                        f"{path}: a second image named {source.name}; name the folder that holds "
                        "both, or segment one after the other, each to an output of its own"
                    )
                found[source.name] = source
    faults += [
        f"{name!r}: a name that cannot be printed; rename the file"
        for name in found
        if not name.isprintable()
    ]
    faults.raise_all("the images")
    if not found:
        raise InputError(
            f"{', '.join(map(str, paths))}: no images, expected files that end in "
            f"{', '.join(microscopy.FORMATS)}"
        )
    how: dict[str, Any] = {"axes": axes, "channel_names": tuple(channel_names)}
    sources = [replace(found[place], name=name, **how) for place, name in names(found).items()]
    return sorted(sources, key=lambda source: source.name)


def names(places: Iterable[str]) -> dict[str, str]:
    """Return a name for each path: without its ending, if no other path has that name.

    >>> list(names(["a/x.ome.tif", "y.png", "y.jpg"]).values())
    ['a/x', 'y.png', 'y.jpg']
    """
    short = {place: _without_ending(PurePosixPath(place)) for place in places}
    taken = Counter([*short, *short.values()])
    return {place: place if taken[name] > 1 else name for place, name in short.items()}


def _without_ending(place: PurePosixPath) -> str:
    bare = place.with_suffix("")
    is_ome = place.suffix.lower() in TIFF and bare.suffix.lower() == ".ome"
    return str(bare.with_suffix("") if is_ome else bare)


def _images(path: Path) -> Iterator[File | Member]:
    """Yield the images in a folder, an archive or a file, named by their paths there."""
    if path.is_dir():
        places = [PurePosixPath(each.relative_to(path)) for each in _files(path)]
        yield from (File(str(place), path / place) for place in _wanted(path, places))
    elif path.suffix.lower() == ".zip" and path.is_file():
        with _reading(path), zipfile.ZipFile(path) as opened:
            members = [(_place(each), each) for each in opened.infolist() if not each.is_dir()]
        wanted = set(_wanted(path, [place for place, _ in members]))
        members = [(place, each) for place, each in members if place in wanted]
        check_members(path, [each for _, each in members])
        for place, each in members:
            yield Member(str(place), path, each.filename, each.file_size, each.CRC)
    elif not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    elif path.suffix.lower() not in microscopy.FORMATS:
        formats = ", ".join((*microscopy.FORMATS, ".zip"))
        raise InputError(f"{path}: no image that can be read, expected a folder, {formats}")
    else:
        yield from (File(path.name, path) for _ in _wanted(path, [PurePosixPath(path.name)]))


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, without what is hidden, of label maps or an output."""
    for home, inside, listing in os.walk(folder):
        here = Path(home)
        if here != folder and OUTPUT.issubset(listing):
            inside.clear()
            continue
        inside[:] = [each for each in inside if not _is_apart(each)]
        yield from (here / each for each in listing)


def _place(member: zipfile.ZipInfo) -> PurePosixPath:
    return PurePosixPath(member.filename.replace("\\", "/"))  # which some programs write


def _is_apart(part: str) -> bool:
    """Tell whether a file or folder of this name is hidden, or one of label maps."""
    return part in FOLDERS or (part.startswith(".") and part != "..")


def _wanted(where: Path, places: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """Return the paths of images, sorted; a warning tells of other pictures that are left out."""
    wanted, found, others = [], [], []
    for place in sorted(places):
        if any(map(_is_apart, place.parts)):
            continue
        if any(fnmatch.fnmatchcase(place.name.lower(), pattern) for pattern in FOUND):
            found.append(place)
        elif place.suffix.lower() in microscopy.FORMATS:
            wanted.append(place)
        elif (mimetypes.guess_type(place.name)[0] or "").startswith("image/"):
            others.append(place)
    for left, why in ((found, "are named as label maps"), (others, "have formats not read here")):
        if left:
            log.warning(
                "%s: %d files left out, which %s, such as %s", where, len(left), why, left[0]
            )
    return wanted


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Turn what is raised by a damaged zip archive into an `InputError`."""
    try:
        yield
    except (*DAMAGED, OSError, KeyError) as error:
        raise InputError(
            f"{archive}: no readable zip, or damaged ({error}); fetch it again"
        ) from None


@functools.lru_cache(maxsize=1)
def _archive(path: Path, changed: int, process: int) -> zipfile.ZipFile:
    """Return an open zip archive, which stays open for the next of its members.

    The directory of 6,240 members takes 60 ms to read (2-core CPU (AMD EPYC, AVX2 only)). A forked
    process must not move the file's position of another, so `process` is its number.
    """
    return zipfile.ZipFile(path)
