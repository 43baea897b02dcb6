"""Gamma correction, of a small example and of any image."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cellular.imaging.tones import correct, limits


def test_a_ramp_is_corrected_as_calculated_by_hand():
    ramp = np.arange(0, 101, dtype=np.uint8)[None].repeat(20, 0)  # percentiles 1 and 99: 1 and 99
    assert limits(ramp) == (1.0, 99.0)
    assert correct(ramp, 1.0) is ramp
    root = correct(ramp, 0.5)[0]
    assert root[1] == 0 and root[99] == 1
    assert root[1 + 98 // 4] == pytest.approx(0.5, abs=0.01)  # a quarter becomes a half
    assert root[0] == pytest.approx(-np.sqrt(1 / 98))  # below: mirrored, not cut off


@given(
    st.integers(0, 1000),
    st.integers(1, 4),
    st.floats(0.2, 3),
    st.floats(0.5, 200),
    st.floats(-500, 500),
)
def test_correction_ignores_gain_and_offset_and_keeps_the_order(
    seed, channels, gamma, gain, offset
):
    assume(gamma != 1)  # which leaves the image as it is, gain and offset included
    image = np.random.default_rng(seed).integers(0, 255, (12, 9, channels)).astype(np.float32)
    corrected = correct(image, gamma)
    assert corrected.shape == image.shape and corrected.dtype == np.float32
    assert np.allclose(correct(image * gain + offset, gamma), corrected, atol=0.02)
    for channel in range(channels):
        order = np.argsort(image[..., channel], axis=None)
        assert (np.diff(corrected[..., channel].ravel()[order]) >= 0).all()


def test_each_channel_is_corrected_alone_and_a_flat_one_becomes_zero():
    random = np.random.default_rng(0)
    image = random.integers(0, 255, (30, 40, 3), np.uint8)
    image[..., 1] = 7
    corrected = correct(image, 0.5)
    for channel in range(3):
        assert np.array_equal(corrected[..., channel], correct(image[..., channel], 0.5))
    assert not corrected[..., 1].any()
