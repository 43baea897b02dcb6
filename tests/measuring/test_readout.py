"""The read-out of a field: sensible tables, whatever the field."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cellular.imaging.microscopy import Image
from cellular.measuring import puncta, tables
from cellular.measuring.params import MeasureParams
from cellular.measuring.readout import field_of, measure

PARAMS = MeasureParams()
PER_CHANNEL = ("", "_area_um2", "_share", "_per_100um2", "_contrast")
COLUMNS = [
    *tables.COLUMNS,
    *(f"{value}_{colour}" for colour in ("red", "green") for value in ("mean", "median", "sum")),
    "ratio",
    *(f"{colour}_puncta{end}" for colour in ("red", "green") for end in PER_CHANNEL),
    *("double_positive", "red_only", "red_only_fraction"),
]
COUNTS = ["red_puncta", "green_puncta", "double_positive", "red_only"]


def read(red, green, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return measure(filtered(red, green, labels), labels)


def filtered(red, green, labels):
    channels = (np.asarray(channel, np.float32) for channel in (red, green))
    field = field_of(*channels, 0.1733, PARAMS, labels > 0)
    assert np.isfinite(list(field.quality.values())).all()
    return field


def check(reading, labels):
    """Check what holds for each field."""
    cells, found = reading.cells, reading.puncta
    assert list(cells.columns) == COLUMNS
    assert cells["label"].tolist() == np.unique(labels[labels > 0]).tolist()
    assert (cells[COUNTS].dtypes == np.int64).all() and (cells[COUNTS] >= 0).all(axis=None)
    assert (cells["double_positive"] + cells["red_only"] == cells["red_puncta"]).all()
    assert list(found.columns) == ["label", "channel", *puncta.COLUMNS]
    assert found.drop(columns=["label", "channel"]).dtypes.astype(str).to_dict() == puncta.COLUMNS
    for colour in ("red", "green"):
        own = found[found["channel"] == colour]
        number = own.groupby("label").size().reindex(cells["label"], fill_value=0)
        assert cells[f"{colour}_puncta"].tolist() == number.tolist()
        assert cells[f"{colour}_puncta_area_um2"].sum() == pytest.approx(own["area_um2"].sum())
        assert cells[f"{colour}_puncta_share"].between(0, 1).all()
    assert np.isfinite(found.select_dtypes("number")).all(axis=None)


@pytest.mark.parametrize("side", [1, 2, 12, 60])
@pytest.mark.parametrize("kind", ["zero", "saturated", "noise"])
@pytest.mark.parametrize("cells", ["none", "one", "all"])
def test_a_field_gets_a_table_though_it_is_flat_or_tiny_or_has_no_cells(side, kind, cells):
    labels = np.zeros((side, side), np.uint16)
    if cells == "one":
        labels[side // 4 : side // 2 + 1, side // 4 : side // 2 + 1] = 7
    if cells == "all":
        labels[:] = 3
    noise = np.random.default_rng(0).poisson(100, labels.shape)
    channel = {"zero": 0 * noise, "saturated": 0 * noise + 65_535, "noise": noise}[kind]
    reading = read(channel, channel, labels)
    check(reading, labels)
    assert reading.cells["red_puncta"].sum() == 0


@settings(max_examples=30)
@given(st.data())
def test_what_holds_for_each_field_holds_for_random_pixels(data):
    labels = data.draw(
        arrays(
            np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=25), elements=st.integers(0, 3)
        )
    )
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    channels = random.exponential(1000, (2, *labels.shape)) ** data.draw(st.integers(0, 2))
    check(read(*channels, labels), labels)


def test_brightness_is_above_the_background_of_the_field():
    labels = np.zeros((60, 60), np.uint16)
    labels[10:30, 10:30] = 2
    labels[35:55, 35:55] = 5
    red = 100 + 300 * (labels == 2) + 50 * (labels == 5)
    green = 40 + 100 * (labels == 2) + 200 * (labels == 5)
    reading = read(red, green, labels)
    cells = reading.cells.set_index("label")
    assert filtered(red, green, labels).quality["background_red"] == pytest.approx(100, abs=0.1)
    assert cells["median_red"].tolist() == pytest.approx([300, 50], abs=0.1)
    assert cells["ratio"].tolist() == pytest.approx([3, 0.25], rel=0.01)
    above = np.dstack([red - 100, green - 40]).astype(np.float32)
    expected = tables.table_of(labels, Image(above, ("red", "green")), 0.1733)
    pd.testing.assert_frame_equal(reading.cells[expected.columns], expected, rtol=1e-3)


def test_all_label_maps_see_the_same_puncta_of_a_field():
    labels = np.zeros((120, 120), np.uint16)
    labels[10:110, 10:110] = 1
    random = np.random.default_rng(0)
    red = random.poisson(200, labels.shape).astype(np.float32)
    y, x = np.ogrid[:120, :120]
    for row, column in ((30, 30), (30, 80), (80, 30)):
        red += 400 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * 1.5**2))
    field = filtered(red, red, labels)
    halves = np.where(x < 60, labels, 2 * labels)
    whole, parted = measure(field, labels).puncta, measure(field, halves).puncta
    assert len(whole) == 6 and parted["label"].tolist() == [1, 1, 1, 1, 2, 2]
    assert sorted(whole["area"]) == sorted(parted["area"])


def test_cells_that_are_no_brighter_than_the_background_have_no_ratio():
    labels = np.zeros((60, 60), np.uint16)
    labels[10:30, 10:30] = 1
    green = np.where(labels, 50, 100)
    assert read(100 + 10 * labels, green, labels).cells["ratio"].isna().all()


def test_without_shapes_the_means_and_counts_are_the_same():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, (40, 40)).astype(np.uint16) * 3
    field = filtered(random.poisson(300, labels.shape), random.poisson(200, labels.shape), labels)
    quick = measure(field, labels, shapes=False).cells
    pd.testing.assert_frame_equal(quick, measure(field, labels).cells[quick.columns])
