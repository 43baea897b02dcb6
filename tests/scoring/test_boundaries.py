"""Outlines and their distances, compared with brute force."""

import math

import numpy as np
from helpers import reference
from helpers.label_maps import pairs
from hypothesis import given, settings

from cellular.scoring.boundaries import contact, outline_hits, outlines


@settings(max_examples=500)
@given(pairs)
def test_outlines_and_their_neighbours_are_those_of_brute_force(pair):
    truth, predicted = pair
    edge = reference.outline(truth)
    assert set(map(tuple, np.argwhere(outlines(truth)).tolist())) == edge
    other = reference.outline(predicted)
    hits = outline_hits(truth, predicted, (1.0, 2.0, 2.5))
    for found, labels, own, against in (
        (hits[0], truth, edge, other),
        (hits[1], predicted, other, edge),
    ):
        for label in range(1, labels.max() + 1):
            mine = [place for place in own if labels[place] == label]
            assert found.pixels[label - 1] == len(mine)
            for number, tolerance in enumerate((1.0, 2.0, 2.5)):
                near = sum(any(math.dist(p, q) <= tolerance for q in against) for p in mine)
                assert found.near[number, label - 1] == near


def test_contact_is_the_part_of_the_outline_that_touches_others():
    labels = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [0, 0, 0, 0]], np.uint16)
    # in each cell, 2 pixels touch the other cell, and 2 the background below; one touches both
    assert contact(labels).tolist() == [2 / 3, 2 / 3]
    assert contact(np.array([[1, 0, 2]], np.uint16)).tolist() == [0, 0]
    assert contact(np.ones((3, 3), np.uint16)).tolist() == [0]


def test_outlines_on_excluded_pixels_do_not_count():
    truth, predicted = np.zeros((2, 8, 8), np.uint16)
    predicted[1:4, 1:4] = 1
    excluded = np.zeros((8, 8), bool)
    excluded[1:4, 1:3] = True
    _, of_prediction = outline_hits(truth, predicted, (2.0,), excluded)
    assert of_prediction.pixels.tolist() == [3]
