"""Tables of cells: the values of scikit-image, for any label map."""

import numpy as np
import pandas as pd
import pytest
from helpers.label_maps import label_maps
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.measure import regionprops_table

from cellular.imaging.images import read_image, read_labels
from cellular.imaging.microscopy import Image
from cellular.measuring.tables import COLUMNS, table_of

# Columns of `table_of`, and what scikit-image calls them.
SAME = {
    "label": "label",
    "y": "centroid-0",
    "x": "centroid-1",
    "area": "area",
    "diameter": "equivalent_diameter_area",
    "perimeter": "perimeter",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
}
larger_label_maps = arrays(
    np.uint32,
    array_shapes(min_dims=2, max_dims=2, max_side=15),
    elements=st.sampled_from([0, 3, 70_000]),
    fill=st.sampled_from([0, 70_000]),
)


def median(mask: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    return np.median(pixels[mask], axis=0)


def total(mask: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    return pixels[mask].sum(axis=0, dtype=float)


def check(labels: np.ndarray, image: Image) -> None:
    """Compare a table with the one that scikit-image makes of the same label map."""
    pixels = np.atleast_3d(image.pixels)
    table = table_of(labels, image, None)
    properties = {name.split("-")[0] for name in SAME.values()} | {"bbox", "intensity_mean"}
    expected = regionprops_table(
        labels.astype(np.int64), pixels, properties, extra_properties=(median, total)
    )
    for ours, theirs in SAME.items():
        # Of a nearly round cell, eccentricity is the root of a difference of rounded numbers.
        np.testing.assert_allclose(table[ours], expected[theirs], rtol=1e-9, atol=1e-7)
    for number, name in enumerate(image.names):
        for ours, theirs in (("mean", "intensity_mean"), ("median", "median"), ("sum", "total")):
            found = table[f"{ours}_{name}"]
            np.testing.assert_allclose(found, expected[f"{theirs}-{number}"], rtol=1e-9)
    height, width = labels.shape
    top, left, bottom, right = (expected[f"bbox-{side}"] for side in range(4))
    touching = (top == 0) | (left == 0) | (bottom == height) | (right == width)
    assert table["touches_border"].tolist() == touching.tolist()


@given(st.data(), st.one_of(label_maps, larger_label_maps).filter(np.any))
def test_the_values_are_those_of_scikit_image(data, labels):
    channels = data.draw(st.integers(1, 4))
    seed = data.draw(st.integers(0, 99))
    values = np.random.default_rng(seed).integers(0, 60_000, (*labels.shape, channels))
    kind = data.draw(st.sampled_from([np.uint8, np.uint16, np.float64]))
    check(labels, Image(values.astype(kind)))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_the_values_of_real_cells_are_those_of_scikit_image(sample, kind):
    field = "Timepoint_003_220518-ST_C03_s3"
    labels = read_labels(sample / "masks" / f"{field}.tif")[:900, 600:1500]
    pixels = read_image(sample / "images" / f"{field}.jpg")[:900, 600:1500]
    check(labels, Image(pixels.astype(kind) * (kind(1) if kind is np.uint8 else kind(200))))


def test_a_rectangle_and_a_pixel():
    labels = np.array(
        [
            [0, 0, 0, 0, 0],
            [0, 2, 2, 2, 0],
            [0, 2, 2, 2, 0],
            [0, 0, 0, 0, 9],
        ],
        np.uint16,
    )
    brightness = np.arange(20).reshape(4, 5).astype(np.uint8)
    image = Image(np.stack([brightness, brightness + 100], axis=-1), ("GFP", "RFP"))
    table = table_of(labels, image, 0.5)

    assert table["label"].tolist() == [2, 9]
    assert table[["y", "x"]].to_numpy().tolist() == [[1.5, 2.0], [3.0, 4.0]]
    assert table["area"].tolist() == [6, 1]
    assert table["area_um2"].tolist() == [1.5, 0.25]
    assert table["diameter"].tolist() == pytest.approx([(24 / np.pi) ** 0.5, (4 / np.pi) ** 0.5])
    assert table["diameter_um"].tolist() == (table["diameter"] / 2).tolist()
    assert table["perimeter"].tolist() == [6, 0]  # through the centres of the outer pixels
    assert table["perimeter_um"].tolist() == [3, 0]
    assert table["solidity"].tolist() == [1, 1]
    assert table["touches_border"].tolist() == [False, True]
    assert table["mean_GFP"].tolist() == [9.5, 19]
    assert table["median_GFP"].tolist() == [9.5, 19]  # of 6, 7, 8, 11, 12 and 13
    assert table["sum_RFP"].tolist() == [657, 119]


def test_without_a_pixel_size_the_columns_in_micrometres_are_empty():
    table = table_of(np.eye(3, dtype=np.uint16), Image(np.ones((3, 3))), None)
    assert table[["area_um2", "diameter_um", "perimeter_um"]].isna().all(axis=None)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_an_image_without_cells_has_the_same_columns_of_the_same_types(shape):
    image = Image(np.ones(shape, np.uint8))
    empty = table_of(np.zeros((4, 5), np.uint16), image, None)
    table = table_of(np.ones((4, 5), np.uint16), image, 0.2)
    assert len(empty) == 0
    assert empty.dtypes.equals(table.dtypes)
    assert list(empty)[: len(COLUMNS)] == list(COLUMNS)
    pd.testing.assert_frame_equal(pd.concat([empty, table], ignore_index=True), table)


def test_channels_of_one_name_are_numbered():
    image = Image(np.dstack([np.full((2, 2), 5), np.full((2, 2), 7)]), ("DAPI", "DAPI"))
    table = table_of(np.ones((2, 2), np.uint16), image, None)
    assert table[["sum_DAPI_1", "sum_DAPI_2"]].to_numpy().tolist() == [[20, 28]]


def test_a_label_map_of_70_000_cells():
    labels = np.zeros((530, 530), np.uint32)
    labels[::2, ::2] = np.arange(1, 265**2 + 1).reshape(265, 265)
    table = table_of(labels, Image(labels.astype(float)), None)
    assert table["label"].tolist() == list(range(1, 265**2 + 1))
    assert (table["area"] == 1).all()
    assert (table["sum_channel_1"] == table["label"]).all()
