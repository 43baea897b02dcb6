"""Polygons of cells: valid, and exactly as large as the mask."""

import numpy as np
import pytest
import shapely
from helpers.label_maps import label_maps
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from shapely.geometry import MultiPolygon
from skimage.measure import label as connected_components

from cellular.imaging.images import read_labels
from cellular.segmenting.polygons import polygons_of

# Many holes, pieces, and pieces and holes that meet at corners.
torn = arrays(
    np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 5])
)


def shape_of(pieces: list) -> MultiPolygon:
    return MultiPolygon([(piece[0], piece[1:]) for piece in pieces])


def as_lists(polygons: dict) -> dict:
    return {
        label: [[ring.tolist() for ring in piece] for piece in pieces]
        for label, pieces in polygons.items()
    }


@given(st.one_of(label_maps, torn))
def test_polygons_are_valid_and_cover_the_pixels_of_their_cell(labels):
    found = polygons_of(labels)
    assert list(found) == sorted(set(np.unique(labels).tolist()) - {0})
    y, x = np.indices(labels.shape) + 0.5
    for label, pieces in found.items():
        shape = shape_of(pieces)
        assert shape.is_valid
        assert shape.area == np.count_nonzero(labels == label)
        assert np.array_equal(shapely.contains_xy(shape, x, y), labels == label)
        assert len(pieces) == connected_components(labels == label, connectivity=1).max()


@given(label_maps)
def test_outer_rings_go_one_way_and_holes_the_other(labels):
    for pieces in polygons_of(labels).values():
        for outer, *holes in pieces:
            assert shapely.LinearRing(outer).is_ccw  # as numbers; clockwise on the screen
            assert not any(shapely.LinearRing(hole).is_ccw for hole in holes)


@pytest.mark.parametrize(
    "rows, expected",
    [
        (["1"], {1: [[[[0, 0], [1, 0], [1, 1], [0, 1]]]]}),
        (["11"], {1: [[[[0, 0], [2, 0], [2, 1], [0, 1]]]]}),
        (
            ["10", "11"],
            {1: [[[[0, 0], [1, 0], [1, 1], [2, 1], [2, 2], [0, 2]]]]},
        ),
        (
            ["10", "01"],  # two pieces that meet at a corner
            {
                1: [
                    [[[0, 0], [1, 0], [1, 1], [0, 1]]],
                    [[[1, 1], [2, 1], [2, 2], [1, 2]]],
                ]
            },
        ),
        (
            ["111", "101", "111"],
            {
                1: [
                    [
                        [[0, 0], [3, 0], [3, 3], [0, 3]],
                        [[1, 1], [1, 2], [2, 2], [2, 1]],
                    ]
                ]
            },
        ),
        (["00"], {}),
    ],
)
def test_corners_lie_between_pixels(rows, expected):
    labels = np.array([list(map(int, row)) for row in rows], np.uint16)
    assert as_lists(polygons_of(labels)) == expected


def test_polygons_of_real_cells(sample):
    labels = read_labels(sample / "masks" / "Timepoint_003_220518-ST_C03_s3.tif")
    areas = np.bincount(labels.ravel())
    for label, pieces in polygons_of(labels).items():
        shape = shape_of(pieces)
        assert shape.is_valid and shape.area == areas[label]


def test_a_mask_of_noise_with_thousands_of_pieces_and_holes():
    noise = np.random.default_rng(0).integers(0, 2, (300, 300), np.uint16)
    (pieces,) = polygons_of(noise).values()
    assert shape_of(pieces).area == noise.sum()
