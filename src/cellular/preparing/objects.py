"""Objects: one cell's mask, cut out of a full frame that is empty but for it.

A field of CELLULAR has some 260 mask files, each a colour PNG of the full frame with one cell on
it. Decoding such a file whole takes 20 ms, of which all but 1 ms go to rows that are empty. So the
rows are inflated (libdeflate, in imagecodecs), the band of rows that holds the object is found in
the filtered bytes, and only the band is decoded, by OpenCV, as a PNG of its own. That is exact: a
PNG's filters look no further than one row up, and the row above the band is empty, which is what
the specification says stands above a first row (PNG, second edition, W3C 2003, section 9.2).
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import imagecodecs
import numpy as np

from cellular.base.errors import InputError
from cellular.imaging.images import MOST_OBJECTS, read_image
from cellular.imaging.masks import object_mask

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">IIBBBBB")
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # colour type: samples a pixel; palettes go the long way


@dataclass(frozen=True)
class CellObject:
    """An object and its place: `mask`, (h, w) bool, with its corner at (`top`, `left`)."""

    frame: tuple[int, int]  # height and width of the image that it was cut out of
    top: int
    left: int
    mask: np.ndarray

    @property
    def area(self) -> int:
        """The object's pixels; 0 if the mask is empty."""
        return int(np.count_nonzero(self.mask))

    @property
    def place(self) -> tuple[slice, slice]:
        """Where the mask lies in its frame."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def read_object(path: Path) -> CellObject:
    """Read a mask file with one object on a full frame: any channel above 0 is the object.

    Raises
    ------
    InputError
        If the file cannot be read or is cut short.
    """
    found = None
    if path.suffix.lower() == ".png":
        try:
            found = _from_png(path.read_bytes())
        except (imagecodecs.DeflateError, struct.error, ValueError, cv2.error):
            found = None  # whatever is wrong with it, the long way says it
    if found is None:
        mask = object_mask(read_image(path))
        found = mask.shape, 0, mask
    frame, top, band = found
    columns = np.flatnonzero(band.any(axis=0))
    rows = np.flatnonzero(band.any(axis=1))
    if not columns.size:
        return CellObject(frame, 0, 0, np.zeros((0, 0), bool))
    mask = band[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return CellObject(frame, top + int(rows[0]), int(columns[0]), mask)


def _from_png(content: bytes) -> tuple[tuple[int, int], int, np.ndarray] | None:
    """Return frame, first row and rows of the object's band; None if it must go the long way."""
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
        # Below, all filtered bytes are 0. Filters 0 and 1 make an empty row of that; the others
        # repeat the row above, so the band goes on to the first row that has one of those two.
        empty = np.flatnonzero(filtered[bottom:, 0] <= 1)
        bottom = bottom + int(empty[0]) if empty.size else height
        band = _decode(filtered[top:bottom], width, depth, colour)
    return (height, width), top, band


def _chunks(content: bytes) -> tuple[tuple, bytes] | None:
    """Return a PNG's header and its compressed data; None if it is not whole or not plain."""
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
    """Decode filtered rows of a PNG, with nothing above the first: (rows, width) bool."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(body, zlib.crc32(kind))
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    header = HEADER.pack(width, len(filtered), depth, colour, 0, 0, 0)
    data = zlib.compress(filtered.tobytes(), 0)  # stored: it is read once, right away
    small = SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    image = cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError("band cannot be decoded")
    return object_mask(image)


def label_map(objects: Sequence[CellObject], field: str) -> np.ndarray:
    """Return the label map of objects of one frame: the first gets 1; later ones win.

    Returns
    -------
    (H, W) uint16, as `cellular.imaging.masks.combine_masks` gives of the full frames

    Raises
    ------
    InputError
        If `field` has more than 65,535 objects.
    """
    if len(objects) > MOST_OBJECTS:
        raise InputError(f"{field}: {len(objects):,} objects, at most {MOST_OBJECTS:,} fit 16 bits")
    labels = np.zeros(objects[0].frame, np.uint16)
    for number, placed in enumerate(objects, start=1):
        labels[placed.place][placed.mask] = number
    return labels
