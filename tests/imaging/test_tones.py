"""Gamma correction, of a small example and of any image."""

import numpy as np
import pytest
from cellpose.transforms import convert_image, normalize_img
from hypothesis import given
from hypothesis import strategies as st

from cellular.imaging.tones import correct, limits


def test_a_ramp_is_corrected_as_calculated_by_hand():
    ramp = np.arange(0, 101, dtype=np.uint8)[None].repeat(20, 0)  # percentiles 1 and 99: 1 and 99
    assert limits(ramp) == (1.0, 99.0)
    assert correct(ramp, 1.0) is ramp
    root = correct(ramp, 0.5)[0]
    assert root[1] == 1 and root[99] == 99  # the percentiles keep their values
    assert root[1 + 98 // 4] == pytest.approx(1 + 98 / 2, abs=1)  # a quarter becomes a half
    assert root[0] == pytest.approx(1 - 98 * np.sqrt(1 / 98))  # below: mirrored, not cut off


@given(
    st.integers(0, 1000),
    st.integers(1, 4),
    st.floats(0.2, 3),
    st.floats(0.5, 200),
    st.floats(-500, 500),
)
def test_correction_keeps_gain_and_offset_and_the_order(seed, channels, gamma, gain, offset):
    image = np.random.default_rng(seed).integers(0, 255, (12, 9, channels)).astype(np.float32)
    corrected = correct(image, gamma)
    assert corrected.shape == image.shape and corrected.dtype == np.float32
    expected = corrected * gain + offset
    assert np.allclose(correct(image * gain + offset, gamma), expected, atol=gain / 10)
    for channel in range(channels):
        order = np.argsort(image[..., channel], axis=None)
        assert (np.diff(corrected[..., channel].ravel()[order]) >= 0).all()


def test_each_channel_is_corrected_alone_and_a_flat_one_stays_flat():
    random = np.random.default_rng(0)
    image = random.integers(0, 255, (30, 40, 3), np.uint8)
    image[..., 1] = 7
    corrected = correct(image, 0.5)
    for channel in range(3):
        assert np.array_equal(corrected[..., channel], correct(image[..., channel], 0.5))
    assert (corrected[..., 1] == 7).all()


@pytest.mark.parametrize("channels", [[0, 0], [2, 3], [1, 0]])
def test_a_gamma_near_1_shows_the_network_what_1_does(channels):
    random = np.random.default_rng(0)
    image = random.integers(0, [100, 1000, 60000], (64, 64, 3)).astype(np.uint16)

    def shown(gamma):
        return normalize_img(convert_image(correct(image, gamma), channels), normalize=True)

    apart = [np.abs(shown(gamma) - shown(1.0)).max() for gamma in (1.1, 1.01, 1.001, 0.999)]
    assert apart[0] > apart[1] > apart[2] and max(apart[2:]) < 0.001
    assert np.array_equal(shown(1.0), normalize_img(convert_image(image, channels)))
