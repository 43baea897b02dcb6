"""A mask shows one object; a label map numbers several without gaps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellular.base.errors import InputError
from cellular.imaging.masks import mask_files, object_mask, relabel


@pytest.mark.parametrize(
    "pixel", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 1, 255)], ids=["red", "green", "blue", "rgba"]
)
def test_any_channel_above_zero_is_the_object(pixel):
    image = np.zeros((2, 2, len(pixel)), np.uint8)
    image[0, 1] = pixel
    assert object_mask(image).tolist() == [[False, True], [False, False]]


def test_opacity_alone_is_no_object():
    image = np.zeros((2, 2, 4), np.uint8)
    image[..., 3] = 255
    assert not object_mask(image).any()


def test_mask_files_are_in_natural_order(tmp_path):
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


def test_more_objects_than_16_bits_hold_are_an_error():
    labels = np.arange(65_537, dtype=np.uint32).reshape(1, -1)
    with pytest.raises(InputError, match=r"x\.tif: 65,536 objects, at most 65,535"):
        relabel(labels, "x.tif")
