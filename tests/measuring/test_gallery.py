"""The gallery: which cells are shown, and how."""

import numpy as np
import pandas as pd
import pytest

from cellular.measuring.gallery import LINE, SIDE, choose, picture


def cells_of(counts, areas, border=()):
    return pd.DataFrame(
        {
            "field": "a",
            "label": range(1, len(counts) + 1),
            "red_puncta": counts,
            "area_um2": np.array(areas, float),
            "touches_border": [number in border for number in range(1, len(counts) + 1)],
        }
    )


def test_cells_with_most_and_fewest_puncta_are_chosen_and_each_once():
    chosen = choose(cells_of([5, 9, 1, 0, 7, 2], [9] * 6), count=2)
    assert chosen["label"].tolist() == [2, 5, 4, 3]
    assert chosen["kind"].tolist() == ["most", "most", "fewest", "fewest"]
    assert choose(cells_of([5, 9, 1], [9] * 3), count=2)["label"].tolist() == [2, 1, 3]


def test_cells_at_the_border_and_fragments_are_left_out():
    chosen = choose(cells_of([9, 4, 0, 0, 3], [9, 9, 1, 9, 9], border=[1, 4]), count=1)
    assert chosen["label"].tolist() == [2, 5]


def test_of_equal_cells_the_larger_one_comes_first_in_any_order_of_rows():
    cells = cells_of([3, 3, 3, 3], [5, 8, 8, 2])
    first = choose(cells, count=1)
    assert first["label"].tolist() == [2, 3]
    pd.testing.assert_frame_equal(choose(cells[::-1], count=1), first)


def test_no_cells_make_an_empty_gallery():
    assert choose(cells_of([], [])).empty


@pytest.fixture
def field():
    random = np.random.default_rng(0)
    red, green = random.uniform(100, 200, (2, 300, 400)).astype(np.float32)
    labels = np.zeros((300, 400), np.uint16)
    labels[100:180, 150:250] = 7
    puncta = pd.DataFrame(
        {
            "label": [7, 7, 7, 3],
            "channel": ["red", "red", "green", "red"],
            "y": [120.0, 160.0, 140.0, 130.0],
            "x": [170.0, 230.0, 200.0, 210.0],
            "double": [False, True, False, False],
        }
    )
    return red, green, labels, puncta


def halves(image):
    pixels = np.asarray(image)
    middle = (pixels.shape[1] - 2) // 2
    return pixels[:, :middle], pixels[:, -middle:]


def test_a_picture_shows_the_cell_without_and_with_its_red_puncta(field):
    red, green, labels, puncta = field
    plain, marked = halves(picture(red, green, labels, 7, puncta))
    assert plain.shape == marked.shape == (SIDE, SIDE, 3)
    assert (plain == LINE).all(axis=2).sum() == 2 * (80 + 100) - 4  # its outline
    rows, columns = np.nonzero((plain != marked).any(axis=2))
    top, left = 139 - SIDE // 2, 199 - SIDE // 2  # of the window, whose middle is the cell's
    near = [np.hypot(rows + top - y, columns + left - x) < 8 for y, x in ((120, 170), (160, 230))]
    assert (near[0] | near[1]).all() and near[0].any() and near[1].any()


def test_a_double_punctum_has_another_shape_than_a_red_one(field):
    red, green, labels, puncta = field
    marks = []
    for double in (False, True):
        one = puncta.head(1).assign(double=double)
        plain, marked = halves(picture(red, green, labels, 7, one))
        marks.append((plain != marked).any(axis=2).sum())
    assert marks[0] != marks[1] and min(marks) > 0


@pytest.mark.parametrize("box", [np.s_[0:50, 0:60], np.s_[20:280, 10:390], np.s_[299:, 399:]])
def test_large_cells_and_those_in_a_corner_fit_into_a_picture(field, box):
    red, green, labels, puncta = field
    labels = np.zeros_like(labels)
    labels[box] = 2
    plain, _ = halves(picture(red, green, labels, 2, puncta))
    assert max(plain.shape) == SIDE


def test_a_field_that_is_smaller_than_a_picture_and_a_flat_one_are_drawn():
    flat = np.full((30, 40), 5, np.float32)
    labels = np.zeros((30, 40), np.uint8)
    labels[5:20, 5:20] = 1
    puncta = pd.DataFrame({"label": [], "channel": [], "y": [], "x": [], "double": []})
    plain, marked = halves(picture(flat, flat, labels, 1, puncta))
    assert plain.shape == (30, 40, 3) and (plain == marked).all()
