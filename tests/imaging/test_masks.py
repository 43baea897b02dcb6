"""Objects become label maps: nothing lost unnoticed, the same numbers on every machine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellular.base.errors import InputError
from cellular.imaging.masks import (
    areas,
    combine_masks,
    mask_files,
    object_mask,
    pixels_lost,
    relabel,
)

stacks = arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6)))


def test_later_object_wins_where_two_overlap():
    first = np.array([[1, 1, 0], [1, 1, 0]])
    second = np.array([[0, 1, 1], [0, 0, 0]])
    labels = combine_masks([first, second])
    assert labels.dtype == np.uint16
    assert labels.tolist() == [[1, 2, 2], [1, 1, 0]]
    assert pixels_lost([4, 2], labels).tolist() == [1, 0]


def test_nothing_to_combine_is_told():
    with pytest.raises(InputError, match="no masks"):
        combine_masks([])


@given(stacks)
def test_each_pixel_bears_the_last_object_that_covers_it(stack):
    labels = combine_masks(stack)
    for y, x in np.ndindex(labels.shape):
        covering = np.flatnonzero(stack[:, y, x]) + 1
        assert labels[y, x] == (covering[-1] if covering.size else 0)


@given(stacks)
def test_pixels_lost_and_pixels_left_are_all_pixels(stack):
    labels = combine_masks(stack)
    sizes = stack.sum(axis=(1, 2))
    assert (pixels_lost(sizes, labels) + areas(labels, len(stack)) == sizes).all()


@pytest.mark.parametrize(
    "pixel", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 1, 255)], ids=["red", "green", "blue", "rgba"]
)
def test_any_channel_above_zero_is_the_object(pixel):
    image = np.zeros((2, 2, len(pixel)), np.uint8)
    image[0, 1] = pixel
    assert object_mask(image).tolist() == [[False, True], [False, False]]


def test_opacity_is_no_object():
    image = np.zeros((2, 2, 4), np.uint8)
    image[..., 3] = 255
    assert not object_mask(image).any()


def test_files_are_taken_in_natural_order(tmp_path):
    for name in ("cell_10.png", "cell_9.png", "cell_1.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in mask_files(tmp_path)] == [
        "cell_1.png",
        "cell_9.png",
        "cell_10.png",
    ]


@given(arrays(np.int32, (5, 5), elements=st.integers(0, 300)))
def test_relabelled_objects_keep_their_pixels_and_order(labels):
    dense = relabel(labels)
    values = np.unique(labels[labels > 0])
    assert dense.max() == len(values)
    for number, value in enumerate(values, start=1):
        assert ((dense == number) == (labels == value)).all()


def test_more_objects_than_16_bits_hold_is_an_error():
    labels = np.arange(65_537, dtype=np.uint32).reshape(1, -1)
    with pytest.raises(InputError, match=r"x\.tif: 65,536 objects, at most 65,535"):
        relabel(labels, "x.tif")
