"""One object a file: the short way to read it gives what the long way gives, for every filter."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from helpers.annotations import coloured, disc, write_png
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellular.base.errors import InputError
from cellular.imaging.images import read_image
from cellular.imaging.masks import combine_masks, object_mask
from cellular.preparing.objects import label_map, read_object


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def encode(filters: list[int], filtered: np.ndarray, colour: int = 2) -> bytes:
    """Return a PNG with these filtered bytes, (H, W, C) uint8; what they mean, the reader finds."""
    height, width, _ = filtered.shape
    rows = b"".join(
        bytes([kind]) + row.tobytes() for kind, row in zip(filters, filtered, strict=True)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def full(path):
    found = read_object(path)
    mask = np.zeros(found.frame, bool)
    mask[found.place] = found.mask
    return mask


@given(st.data())
def test_any_filtered_bytes_read_as_opencv_reads_them(tmp_path_factory, data):
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 5))
    filters = data.draw(st.lists(st.integers(0, 4), min_size=height, max_size=height))
    few = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 255])
    filtered = data.draw(arrays(np.uint8, (height, width, 3), elements=few))
    blank = data.draw(st.tuples(st.integers(0, 9), st.integers(0, 9)))
    filtered[: blank[0]] = 0
    filtered[height - min(blank[1], height) :] = 0
    path = tmp_path_factory.mktemp("png") / "x.png"
    path.write_bytes(encode(filters, filtered))
    assert np.array_equal(full(path), object_mask(read_image(path)))


IMAGES = {
    "colour": coloured(disc(30, 40)),
    "grey": disc(30, 40).astype(np.uint8),
    "16 bit": disc(30, 40).astype(np.uint16),
    "opaque": np.dstack([coloured(disc(30, 40)), np.full((96, 96), 255, np.uint8)]),
    "at the edges": coloured(disc(0, 0) | disc(95, 95)),
    "nothing": coloured(disc(0, 0) & False),
    "everything": coloured(disc(0, 0) | True),
}


@pytest.mark.parametrize("strategy", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("kind", IMAGES)
def test_masks_of_every_kind(tmp_path, kind, strategy):
    image = IMAGES[kind]
    image = image[..., [2, 1, 0, 3][: image.shape[2]]] if image.ndim == 3 else image
    path = tmp_path / "x.png"
    options = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_STRATEGY, strategy]
    assert cv2.imwrite(str(path), image, options)
    assert np.array_equal(full(path), object_mask(read_image(path)))


def test_masks_that_are_no_png(tmp_path):
    path = write_png(tmp_path / "x.jpg", coloured(disc(30, 40), (255, 255, 255)))
    assert np.array_equal(full(path), object_mask(read_image(path)))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.99])
def test_a_file_that_is_cut_short_is_refused_by_name(tmp_path, share):
    path = write_png(tmp_path / "x.png", coloured(disc(30, 40)))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"x\.png.*cut short"):
        read_object(path)


def test_a_changed_byte_is_refused(tmp_path):
    path = write_png(tmp_path / "x.png", coloured(disc(30, 40)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.png"):
        read_object(path)


@given(arrays(bool, (4, 6, 6)))
def test_label_maps_of_objects_are_those_of_full_frames(tmp_path_factory, stack):
    folder = tmp_path_factory.mktemp("masks")
    masks = [mask for mask in stack if mask.any()]
    if not masks:
        return
    objects = [
        read_object(write_png(folder / f"{number}.png", coloured(mask)))
        for number, mask in enumerate(masks)
    ]
    assert [found.area for found in objects] == [int(mask.sum()) for mask in masks]
    assert np.array_equal(label_map(objects, "x"), combine_masks(masks))
