"""Pictures: grey levels between two percentiles, and colours at the end of the palette."""

import io

import numpy as np
import pytest
from PIL import Image

from cellular.imaging.pictures import BRIGHTEST, encode, grey, palette_image, percentiles, plane


def test_the_plane_is_the_mean_of_the_channels():
    image = np.dstack([np.full((2, 3), 10), np.full((2, 3), 20)]).astype(np.uint8)
    assert plane(image).tolist() == [[15] * 3] * 2
    assert plane(image[..., 0]).tolist() == [[10] * 3] * 2


def test_percentiles_are_those_of_every_eighth_pixel():
    image = np.full((64, 64), 255, np.uint8)
    image[::8, ::8] = np.arange(64).reshape(8, 8)
    assert percentiles(image) == pytest.approx((0.63, 62.37))


def test_grey_levels_rise_from_black_to_below_white_and_are_clipped():
    levels = grey(np.array([[-5, 10, 11, 60, 110, 999]]), (10, 110), greys=250)[0].tolist()
    assert levels == sorted(levels)
    assert levels[0] == levels[1] == 0 < levels[2]
    assert levels[-2] == levels[-1] == pytest.approx(BRIGHTEST * 249, abs=3)


def test_an_image_of_one_value_is_black():
    assert not grey(np.full((2, 2), 7.0), (7, 7), greys=250).any()


def test_a_png_keeps_greys_and_colours():
    picture = palette_image(np.array([[0, 253, 254, 255]], np.uint8), [(1, 2, 3), (4, 5, 6)])
    read = Image.open(io.BytesIO(encode(picture)))
    assert read.mode == "P"
    colours = np.asarray(read.convert("RGB"))[0].tolist()
    assert colours == [[0, 0, 0], [255, 255, 255], [1, 2, 3], [4, 5, 6]]
