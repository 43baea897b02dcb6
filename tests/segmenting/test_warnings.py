"""Warnings: what is odd is said with its measure, and nothing is said of what is not."""

import numpy as np
import pandas as pd
import pytest

from cellular.imaging.microscopy import Image
from cellular.models.folders import Seen
from cellular.segmenting.warnings import warnings_of

SEEN = Seen(channels=[1, 3], brightness=(0.4, 0.6), saturated=0.02, diameter=40, pixel_size=0.5)
RAMP = np.arange(10_000, dtype=np.float32).reshape(100, 100)  # its median is in the middle
CELLS = pd.DataFrame({"diameter": [38.0, 40.0, 50.0]})
FLAT_TOP = np.minimum(RAMP, 8999)  # a tenth of the pixels, and the one below


def test_nothing_is_said_of_an_image_like_the_training_images():
    assert warnings_of(Image(RAMP), 0.5, CELLS, SEEN) == []
    assert warnings_of(Image(RAMP), None, CELLS, SEEN) == []
    assert warnings_of(Image(np.dstack([RAMP] * 3)), 0.5, CELLS, SEEN) == []


@pytest.mark.parametrize(
    ("pixels", "pixel_size", "cells", "warning"),
    [
        (RAMP * 0 + 7, 0.5, CELLS, "empty: all pixels have one value"),
        (RAMP, 0.5, CELLS[:0], "empty: no cells found"),
        (
            FLAT_TOP,
            0.5,
            CELLS,
            "saturated: 10.0% of the pixels have the highest value, above 4.0%",
        ),
        (
            np.dstack([RAMP] * 2),
            0.5,
            CELLS,
            "unlike the training images: 2 channels, there 1 or 3",
        ),
        (
            RAMP**4,
            0.5,
            CELLS,
            "unlike the training images: brightness 0.07, there 0.40 to 0.60 (median between the "
            "1st and 99th percentile)",
        ),
        (RAMP, 0.5, CELLS * 3, "unlike the training images: cells of 120 px, there 40 px"),
        (
            RAMP,
            5.0,
            CELLS,
            "unlike the training images: 5 µm a pixel, there 0.5; for cells as "
            "large as those, give "
            "--diameter 4",
        ),
    ],
)
def test_what_is_odd_is_said_once(pixels, pixel_size, cells, warning):
    assert warnings_of(Image(pixels), pixel_size, cells, SEEN) == [warning]


def test_a_model_that_does_not_say_what_it_has_seen_is_compared_to_nothing():
    assert warnings_of(Image(np.dstack([RAMP**4] * 2)), 5.0, CELLS * 9, None) == []
    (warning,) = warnings_of(Image(FLAT_TOP), None, CELLS, None)
    assert warning == "saturated: 10.0% of the pixels have the highest value, above 1.0%"
