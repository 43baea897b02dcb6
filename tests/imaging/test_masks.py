"""A mask shows one object; a label map numbers several without gaps."""

import numpy as np
import pytest
from cellpose.utils import diameters
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellular.base.errors import InputError
from cellular.imaging.masks import (
    SMALLEST_DIAMETER,
    check_cells,
    mask_files,
    median_diameter,
    object_mask,
    relabel,
)


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


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.uint32, np.uint64, np.float32])
def test_masks_of_any_number_format_and_background_below_zero(dtype):
    image = np.zeros((2, 2, 3), dtype)
    image[0, 1, 2] = 1
    if np.dtype(dtype).kind == "i":
        image[1] = -1
    assert object_mask(image).tolist() == [[False, True], [False, False]]


def test_mask_files_are_in_natural_order(tmp_path):
    names = ("cell_10.png", "cell_9.png", "cell_1.png", ".hidden.png", "notes.txt", "cell.jpg")
    for name in names:
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


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_numbers_above_32_bits_stay_apart(dtype):
    labels = np.array([[0, 1, 2**32, 2**32 + 1, 2**40]], dtype)
    assert relabel(labels).tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0, 0, 0], "no object in it"),
        ([7, 0, 7], r"a binary mask of cells and background \(only the value 7\)"),
        ([1, 0, 1, 2, 0, 2], r"a mask of classes \(2 of its 2 numbers are on separate pieces\)"),
        ([1, 0, 1, 2, 0, 2, 0, 3], r"a mask of classes \(2 of its 3 numbers"),
    ],
)
def test_label_maps_whose_numbers_are_not_cells_are_refused(row, message):
    with pytest.raises(InputError, match=rf"x\.tif: {message}"):
        check_cells("x.tif", np.array([row], np.uint8))


@pytest.mark.parametrize("row", [[7], [1, 0, 1, 2], [300, 0, 9, 0, 2]])
def test_some_cells_may_be_of_several_pieces(row):
    check_cells("x.tif", np.array([row], np.uint16))


@given(arrays(np.uint16, (40, 40), elements=st.integers(1, 4)))
def test_the_median_diameter_is_cellposes(labels):
    labels[:8] = 0  # Cellpose takes the first number for the background, whatever it is
    assert median_diameter(labels) == max(diameters(labels)[0], SMALLEST_DIAMETER)


@pytest.mark.parametrize(("value", "diameter"), [(0, SMALLEST_DIAMETER), (1, 40 / np.sqrt(np.pi))])
def test_there_is_a_diameter_without_cells_and_without_background(value, diameter):
    assert median_diameter(np.full((20, 20), value, np.uint16)) == pytest.approx(diameter)
