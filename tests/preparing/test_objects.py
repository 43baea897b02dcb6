"""Mask files with one object each: read exactly as OpenCV reads them, and combined in order."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from helpers.annotations import coloured, disc, on_frame, write_png
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellular.base.errors import InputError
from cellular.imaging.images import read_image
from cellular.imaging.masks import object_mask
from cellular.preparing.objects import combine_masks, cut_out, load_mask_images, read_object


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def encode(filters: list[int], filtered: np.ndarray, colour: int = 2) -> bytes:
    """Return a PNG with these filtered bytes, (H, W, C) uint8, and these filters of its rows."""
    height, width, _ = filtered.shape
    rows = b"".join(
        bytes([kind]) + row.tobytes() for kind, row in zip(filters, filtered, strict=True)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


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
    assert np.array_equal(on_frame(read_object(path)), object_mask(read_image(path)))


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
    assert np.array_equal(on_frame(read_object(path)), object_mask(read_image(path)))


def test_masks_that_are_no_png(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", coloured(disc(30, 40)))
    path = tmp_path / "x.tif"
    assert np.array_equal(on_frame(read_object(path)), object_mask(read_image(path)))


@pytest.mark.parametrize("colour", [0, 255])
def test_an_object_in_opacity_alone_is_refused(tmp_path, colour):
    image = np.full((96, 96, 4), colour, np.uint8)
    image[..., 3] = disc(30, 40) * 255
    assert cv2.imwrite(str(tmp_path / "x.png"), image)
    with pytest.raises(InputError, match=r"x\.png: the object is drawn in opacity"):
        read_object(tmp_path / "x.png")


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


def objects_of(stack):
    return [cut_out(Path("x.png"), mask.shape, 0, mask) for mask in stack]


def test_later_object_wins_where_two_overlap():
    first = np.array([[1, 1, 0], [1, 1, 0]], bool)
    second = np.array([[0, 1, 1], [0, 0, 0]], bool)
    labels = combine_masks(objects_of([first, second]))
    assert labels.dtype == np.uint16
    assert labels.tolist() == [[1, 2, 2], [1, 1, 0]]


@given(arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))))
def test_each_pixel_bears_the_last_object_that_covers_it(stack):
    objects = objects_of(stack)
    assert [item.area for item in objects] == stack.sum(axis=(1, 2)).tolist()
    labels = combine_masks(objects)
    for y, x in np.ndindex(labels.shape):
        covering = np.flatnonzero(stack[:, y, x]) + 1
        assert labels[y, x] == (covering[-1] if covering.size else 0)


def test_nothing_to_combine_is_an_error():
    with pytest.raises(InputError, match="field_1: no masks"):
        combine_masks([], "field_1")


def test_more_objects_than_16_bits_hold_are_an_error():
    one = cut_out(Path("x.png"), (1, 1), 0, np.ones((1, 1), bool))
    assert combine_masks([one] * 65_535).tolist() == [[65_535]]
    with pytest.raises(InputError, match="field_1: 65,536 objects, at most 65,535"):
        combine_masks([one] * 65_536, "field_1")


@given(arrays(bool, (12, 6, 6)))
def test_a_class_folder_becomes_the_label_map_that_opencv_gives(tmp_path_factory, stack):
    folder = tmp_path_factory.mktemp("masks") / "field" / "fed"
    for number, mask in enumerate(stack):
        write_png(folder / f"cell_{number}.png", coloured(mask))
    expected = np.zeros((6, 6), np.uint16)
    for number in range(len(stack)):  # natural order: cell_2 before cell_10
        expected[cv2.imread(str(folder / f"cell_{number}.png")).any(axis=2)] = number + 1
    objects = load_mask_images(folder)
    assert np.array_equal(combine_masks(objects), expected)
    assert [item.name for item in objects[::11]] == [
        "field/fed/cell_0.png",
        "field/fed/cell_11.png",
    ]
    assert {item.class_name for item in objects} == {"fed"}


def test_all_masks_of_a_folder_that_cannot_be_used_are_reported_at_once(tmp_path):
    for number in range(4):
        write_png(tmp_path / f"{number}.png", coloured(disc(30, 40)))
    write_png(tmp_path / "2.png", coloured(disc(30, 40, side=64)))
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(InputError, match="2 faults") as error:
        load_mask_images(tmp_path)
    assert "1.png: no readable image" in str(error.value)
    assert "2.png: 64 x 64 pixels, but" in str(error.value)
