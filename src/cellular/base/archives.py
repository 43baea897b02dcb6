"""What can be wrong with an archive and its members, before a byte of them is used."""

import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import PurePosixPath

from cellular.base.errors import Faults
from cellular.base.files import CHUNK

ENCRYPTED = 0x1  # in the flags of a member
MOST_GROWTH = 1100  # of a harmless member; deflate reaches a factor of 1032
DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error),
    *(
        lzma.LZMAError,
        EOFError,
        RuntimeError,
        NotImplementedError,
        ValueError,
        OverflowError,
        IndexError,
    ),
)


def check_members(archive: object, members: Sequence[zipfile.ZipInfo]) -> None:
    """Raise one `InputError` that names every member that must not be unpacked.

    These are members whose paths leave the folder, links, encrypted members, members with the same
    name, and members that would grow more than a thousandfold.
    """
    faults, seen = Faults(), set()
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        escapes = not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]
        size, packed = member.file_size, member.compress_size
        checks = {
            "leads out of the folder": escapes,
            "is a link": stat.S_ISLNK(member.external_attr >> 16),
            "is encrypted": member.flag_bits & ENCRYPTED,
            "is there twice": member.filename in seen,
            f"grows from {packed:,} to {size:,} bytes": size > MOST_GROWTH * packed + CHUNK,
        }
        faults += [f"{archive}: {member.filename}: {what}" for what, bad in checks.items() if bad]
        seen.add(member.filename)
    faults.raise_all(archive)
