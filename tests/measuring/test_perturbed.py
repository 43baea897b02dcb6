"""Perturbed label maps: by hand, and what holds for any map."""

import numpy as np
import pandas as pd
import pytest
from helpers.label_maps import label_maps
from hypothesis import given
from hypothesis import strategies as st
from skimage.segmentation import expand_labels

from cellular.measuring.perturbed import average_precision, bearing, merged, moved
from cellular.measuring.wells import READOUTS


def labels_of(*rows: str) -> np.ndarray:
    return np.array([[int(letter) for letter in row.replace(".", "0")] for row in rows], np.uint16)


def spaced(cells: int, gap: int = 3) -> np.ndarray:
    """Return a row of square cells of 5 x 5 pixels, numbered from 1, with gaps between them."""
    labels = np.zeros((11, cells * (5 + gap) + gap), np.uint16)
    for cell in range(cells):
        left = gap + cell * (5 + gap)
        labels[3:8, left : left + 5] = cell + 1
    return labels


def test_outwards_cells_grow_until_they_meet():
    labels = labels_of(".......", ".1...2.", ".......")
    assert (moved(labels, 1) == labels_of(".1...2.", "111.222", ".1...2.")).all()
    grown = moved(labels, 2)
    assert (grown[:, :3] == 1).all() and (grown[:, 4:] == 2).all()
    assert grown[:, 3].tolist() in ([0, 1, 0], [0, 2, 0])


def test_inwards_cells_lose_their_outlines_where_they_touch_too_and_may_vanish():
    labels = labels_of("........", ".111222.", ".111222.", ".111222.", "........", "3.......")
    inner = labels_of("........", "........", "..1..2..", "........", "........", "........")
    assert (moved(labels, -1) == inner).all()
    assert not moved(labels, -2).any()


def test_the_frame_of_the_image_is_no_outline():
    assert (moved(labels_of("111.", "111.", "111."), -1) == labels_of("11..", "11..", "11..")).all()
    assert (moved(labels_of("11", "11"), -1) == 1).all()


@given(label_maps, st.integers(-5, 5))
def test_moved_cells_contain_the_cell_or_lie_inside_and_never_overlap(labels, pixels):
    other = moved(labels, pixels)
    assert other.shape == labels.shape and other.dtype == labels.dtype
    if pixels >= 0:
        assert (other[labels > 0] == labels[labels > 0]).all()
        assert set(np.unique(other)) <= {0, *np.unique(labels)}
    if pixels <= 0:
        assert ((other == labels) | (other == 0)).all()
    if pixels == 0:
        assert (other == labels).all()


@given(label_maps, st.integers(0, 5))
def test_cells_cover_what_they_cover_if_scikit_image_expands_them(labels, pixels):
    assert ((moved(labels, pixels) > 0) == (expand_labels(labels, pixels) > 0)).all()


def test_moving_further_changes_more():
    labels = np.kron(np.arange(1, 5).reshape(2, 2), np.ones((30, 30))).astype(np.uint16)
    labels[28:32] = 0
    areas = [np.count_nonzero(moved(labels, pixels)) for pixels in range(-5, 3)]
    assert areas == sorted(set(areas))


def test_touching_cells_are_merged_before_others():
    labels = labels_of("22..5.", "44....", ".....9")
    assert (merged(labels, 0.5, seed=0) == labels_of("22..5.", "22....", ".....9")).all()
    assert (merged(labels, 1, seed=0) == labels_of("22..5.", "22....", ".....5")).all()


def test_of_cells_that_touch_none_neighbours_are_merged():
    """In a row, only cells next to each other are neighbours."""
    labels = spaced(6)
    for seed in range(10):
        kept = np.unique(merged(labels, 1 / 3, seed))[1:]
        (gone,) = {1, 2, 3, 4, 5, 6} - set(kept.tolist())
        assert np.unique(merged(labels, 1 / 3, seed)[labels == gone]).tolist() == [gone - 1]


@pytest.mark.parametrize("share, pairs", [(0, 0), (0.1, 0), (0.2, 1), (0.4, 2), (0.5, 2), (0.6, 3)])
def test_the_share_is_that_of_cells_in_merged_pairs(share, pairs):
    labels = spaced(10)
    assert np.unique(merged(labels, share, seed=1))[1:].size == 10 - pairs


def test_a_larger_share_merges_the_same_pairs_and_more():
    labels = spaced(20)
    few, many = (merged(labels, share, seed=3) for share in (0.3, 0.6))
    assert (many[few != labels] == few[few != labels]).all() and (many != few).any()


def test_the_seed_decides_which_pairs():
    labels = spaced(20)
    maps = [merged(labels, 0.3, seed).tobytes() for seed in (0, 0, 1, 2, 3)]
    assert maps[0] == maps[1] and len(set(maps)) > 1


@given(label_maps, st.floats(0, 1), st.integers(0, 9))
def test_merging_keeps_the_foreground_and_makes_pairs(labels, share, seed):
    other = merged(labels, share, seed)
    assert other.dtype == labels.dtype and ((other > 0) == (labels > 0)).all()
    members = {label: np.unique(labels[other == label]) for label in np.unique(other[other > 0])}
    for label, own in members.items():
        assert own.size <= 2 and own[0] == label
    cells = np.unique(labels[labels > 0]).size
    in_pairs = sum(own.size for own in members.values() if own.size == 2)
    assert in_pairs <= share * cells + 1


def test_average_precision_by_hand():
    """Cells 1 and 2 are one predicted cell, 3 is found, and 4 has no partner: 1 / (4 + 3 - 1)."""
    truth, predicted = labels_of("1122.33..4.."), labels_of("11111777..99")
    assert average_precision(truth, predicted) == pytest.approx(1 / 6)


def measure(labels: np.ndarray) -> pd.DataFrame:
    """Return a table of cells whose read-outs are all the cell's area."""
    areas = np.bincount(labels.ravel())[1:]
    return pd.DataFrame(dict.fromkeys(READOUTS, areas[areas > 0].astype(float)))


def test_bearing_says_what_each_error_does_to_means():
    rows = bearing(spaced(4), measure, seed=0, moves=(-1, 1), shares=(0.5, 1))
    assert rows["readout"].tolist() == [*READOUTS] * 5
    ratio = rows[rows["readout"] == "ratio"].drop(columns="readout")
    assert list(ratio.itertuples(index=False, name=None)) == [
        ("moved", 0, 1, 25, 0),
        ("moved", -1, 0, 9, -16),
        ("moved", 1, 1, 45, 20),
        ("merged", 0.5, pytest.approx(3 / 4), pytest.approx(100 / 3), pytest.approx(25 / 3)),
        ("merged", 1, pytest.approx(2 / 4), 50, 25),
    ]


def test_without_cells_nothing_is_known():
    rows = bearing(np.zeros((4, 4), np.uint16), measure, seed=0)
    assert rows[["ap50", "mean", "difference"]].isna().all(axis=None)
