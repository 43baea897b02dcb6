"""Quality of a field: background, shift between channels, focus."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellular.measuring.quality import background_of, focus_of, shift_of


def texture(side: int = 128) -> np.ndarray:
    noise = np.random.default_rng(0).normal(1000, 300, (side, side)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 1)


@given(st.floats(0, 1000), st.floats(0.1, 0.4))
def test_the_background_is_that_of_the_pixels_outside_though_cells_were_missed(level, missed):
    random = np.random.default_rng(0)
    labels = np.zeros((100, 100), np.uint16)
    labels[:40] = 1
    smooth = random.normal(level, 5, labels.shape)
    smooth[:40] += 800
    bright = random.random(labels.shape) < missed  # pixels of cells that the label map lacks
    smooth[bright] += random.uniform(100, 2000, bright.sum())
    assert background_of(smooth, labels) == pytest.approx(level, abs=6)


def test_the_background_of_a_field_that_cells_fill_is_that_of_its_darkest_large_part():
    smooth = np.full((10, 10), 40.0)
    smooth[:3] = np.linspace(100, 900, 30).reshape(3, 10)
    assert background_of(smooth, np.ones((10, 10), np.uint16)) == 40


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -3), (-1, 4)])
def test_a_shift_is_found(down, right):
    first = texture()
    second = np.roll(first, (down, right), axis=(0, 1))
    before = first.copy(), second.copy()
    assert shift_of(first, second) == pytest.approx((down, right), abs=0.1)
    np.testing.assert_array_equal((first, second), before)


@pytest.mark.parametrize("side", [1, 2, 12, 64])
def test_a_flat_channel_is_not_shifted(side):
    flat = np.full((side, side), 65_535, np.float32)
    assert shift_of(flat, flat) == shift_of(flat, texture(side)) == (0, 0)


def test_focus_is_less_where_the_channel_is_blurred_and_does_not_depend_on_brightness():
    sharp = texture()
    assert focus_of(cv2.GaussianBlur(sharp, (0, 0), 3), 100) < focus_of(sharp, 100) / 2
    assert focus_of(2 * sharp, 200) == pytest.approx(focus_of(sharp, 100))


def test_a_field_that_is_no_brighter_than_its_background_has_no_focus():
    assert focus_of(np.full((20, 20), 7, np.float32), 7) == 0
