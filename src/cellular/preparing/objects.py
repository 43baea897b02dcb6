"""Objects: masks of single cells, cut out of their frames, and the label maps made from them.

A field of CELLULAR has about 260 mask files, each a colour PNG of the full frame that shows one
cell. Decoding such a file whole takes 20 ms, nearly all of it spent on empty rows. Therefore the
rows are inflated (by libdeflate, in imagecodecs), the band of rows that holds the object is found
in the filtered bytes, and OpenCV decodes that band alone, as a PNG of its own, in 1 ms. The result
is exact: the filters of a PNG refer at most to the row above, and the row above the band is empty,
which is how the specification defines the row above the first one (PNG, second edition, W3C 2003,
section 9.2).
"""

import math
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import imagecodecs
import numpy as np

from cellular.base.errors import Faults, InputError
from cellular.imaging.images import MOST_OBJECTS, read_image
from cellular.imaging.masks import check_size, mask_files, object_mask

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">IIBBBBB")
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # samples per pixel, by colour type; not of palettes


@dataclass(frozen=True)
class CellObject:
    """An object, cut out of its frame, the full field."""

    path: Path  # of its mask file
    frame: tuple[int, int]  # height and width of the field
    top: int  # first row and column of the mask in the frame
    left: int
    mask: np.ndarray  # (h, w) bool; (0, 0) if the file shows no object

    @property
    def name(self) -> str:
        """The mask file's name in messages: <field>/<class>/<file>."""
        return "/".join(self.path.parts[-3:])

    @property
    def class_name(self) -> str:
        """The object's class, the folder of its mask file."""
        return self.path.parent.name

    @property
    def area(self) -> int:
        """Number of pixels of the object; 0 if the file shows none."""
        return int(np.count_nonzero(self.mask))

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of the frame that the mask covers."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def load_mask_images(folder: Path) -> list[CellObject]:
    """Read the mask files of a class folder, one object each, in natural order of their names.

    Raises
    ------
    InputError
        One error that lists every file that cannot be read or differs in size from the first.
    """
    found: list[CellObject] = []
    faults = Faults()
    for path in mask_files(folder):
        with faults.collect():
            found.append(read_object(path))
            check_size(path, found[-1].frame, found[0].path, found[0].frame)
    faults.raise_all(folder)
    return found


def combine_masks(objects: Sequence[CellObject], name: object = "masks") -> np.ndarray:
    """Combine objects of one frame into a label map: the first gets 1, the second 2, and so on.

    Parameters
    ----------
    name : what errors call the objects

    Returns
    -------
    (H, W) uint16, 0 where no object is. Where objects overlap, the later one wins.

    Raises
    ------
    InputError
        If there is no object, or more than 65,535.
    """
    if not objects:
        raise InputError(f"{name}: no masks to combine; expected at least one")
    if len(objects) > MOST_OBJECTS:
        raise InputError(
            f"{name}: {len(objects):,} objects, at most {MOST_OBJECTS:,} fit 16 bits; "
            "cut the field into smaller ones"
        )
    labels = np.zeros(objects[0].frame, np.uint16)
    for number, item in enumerate(objects, start=1):
        labels[item.place][item.mask] = number
    return labels


def read_object(path: Path) -> CellObject:
    """Read a mask file with one object on a full frame: any channel above 0 is the object.

    Raises
    ------
    InputError
        If the file cannot be read or is cut short, or if the object is drawn in opacity alone.
    """
    found = None
    if path.suffix.lower() == ".png":
        # Whatever is wrong with the file: reading it whole gives the error that says so.
        damaged = (imagecodecs.DeflateError, struct.error, ValueError, cv2.error)
        with suppress(*damaged, MemoryError, OverflowError):
            found = _from_png(path.read_bytes())
    if found is None:
        mask = object_mask(read_image(path))
        height, width = mask.shape
        found = (height, width), 0, mask
    item = cut_out(path, *found)
    if item.area in (0, math.prod(item.frame)) and _has_shape_in_opacity(read_image(path)):
        raise InputError(
            f"{path}: the object is drawn in opacity (alpha) alone, expected it in colour on "
            "black; save the mask without transparent parts"
        )
    return item


def _has_shape_in_opacity(image: np.ndarray) -> bool:
    """Tell whether the last of two or four channels has several values."""
    return image.ndim == 3 and image.shape[2] in (2, 4) and len(np.unique(image[..., -1])) > 1


def cut_out(path: Path, frame: tuple[int, int], top: int, band: np.ndarray) -> CellObject:
    """Return the object in a band of a frame: (h, W) bool, whose first row is `top`."""
    columns = np.flatnonzero(band.any(axis=0))
    rows = np.flatnonzero(band.any(axis=1))
    if not columns.size:
        return CellObject(path, frame, 0, 0, np.zeros((0, 0), bool))
    mask = band[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return CellObject(path, frame, top + int(rows[0]), int(columns[0]), mask)


def _from_png(content: bytes) -> tuple[tuple[int, int], int, np.ndarray] | None:
    """Return the frame, the first row and the pixels of the object's band.

    None if the file must be decoded whole, because it is damaged or of an unusual kind.
    """
    chunks = _chunks(content)
    if chunks is None:
        return None
    (width, height, depth, colour, *method), data = chunks
    if colour not in CHANNELS or depth not in (8, 16) or method != [0, 0, 0]:
        return None
    stride = 1 + width * CHANNELS[colour] * depth // 8
    filtered = np.frombuffer(imagecodecs.deflate_decode(data, out=height * stride), np.uint8)
    if filtered.size != height * stride:
        return None
    filtered = filtered.reshape(height, stride)
    used = np.flatnonzero(filtered[:, 1:].any(axis=1))
    if not used.size:
        return (height, width), 0, np.zeros((0, width), bool)
    top, bottom = int(used[0]), int(used[-1]) + 1
    band = _decode(filtered[top:bottom], width, depth, colour)
    if band[-1].any() and bottom < height and filtered[bottom, 0] > 1:
        # Below the band, all filtered bytes are 0. With filters 0 and 1 they make an empty row;
        # the others repeat the row above, so the band extends to the first row with 0 or 1.
        empty = np.flatnonzero(filtered[bottom:, 0] <= 1)
        bottom = bottom + int(empty[0]) if empty.size else height
        band = _decode(filtered[top:bottom], width, depth, colour)
    return (height, width), top, band


def _chunks(content: bytes) -> tuple[tuple, bytes] | None:
    """Return a PNG's header and compressed data; None if it is damaged, transparent or animated."""
    if content[:8] != SIGNATURE:
        return None
    header, data, at = None, [], 8
    while at + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, at)
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + size]
        (check,) = struct.unpack_from(">I", content, at + 8 + size)
        if zlib.crc32(body, zlib.crc32(kind)) != check or kind in (b"tRNS", b"acTL"):
            return None
        if kind == b"IHDR":
            header = HEADER.unpack(body)
        elif kind == b"IDAT":
            data.append(body)
        elif kind == b"IEND":
            return (header, b"".join(data)) if header else None
        at += 12 + size
    return None


def _decode(filtered: np.ndarray, width: int, depth: int, colour: int) -> np.ndarray:
    """Decode filtered rows of a PNG, of which the first has an empty row above: (rows, width) bool.

    Raises
    ------
    ValueError
        If OpenCV cannot decode them.
    """

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(body, zlib.crc32(kind))
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    header = HEADER.pack(width, len(filtered), depth, colour, 0, 0, 0)
    data = zlib.compress(filtered.tobytes(), 0)  # level 0: it is read only once
    small = SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    image = cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError("band cannot be decoded")
    return object_mask(image)
