"""Normalisation, of a ramp that one can calculate by hand, and as Cellpose does it."""

import numpy as np
import pytest
from cellpose.transforms import normalize_img

from cellular.imaging.normalisation import limits, normalised


def test_a_ramp_is_normalised_as_calculated_by_hand():
    ramp = np.arange(0, 101, dtype=np.uint8)
    assert limits(ramp) == (1.0, 99.0)
    shown = normalised(ramp, *limits(ramp))
    assert shown.dtype == np.float32 and (shown[1], shown[50], shown[99]) == (0, 0.5, 1)
    assert shown[0] == pytest.approx(-1 / 98)  # not cut off


@pytest.mark.parametrize("width", [0, 0.0005, 0.002, 60000])
def test_channels_are_normalised_or_black_as_in_cellpose(width):
    plane = width * np.random.default_rng(0).random((64, 64), np.float32)
    expected = normalize_img(plane[..., None], normalize=True)[..., 0]
    assert normalised(plane, *limits(plane)) == pytest.approx(expected, abs=1e-4)
    assert expected.any() == (width > 0.001)
