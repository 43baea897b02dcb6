"""Puncta: those that were planted are found, and what is none is not."""

import numpy as np
import pytest
from skimage.draw import disk

from benchmarks._planting import planted
from cellular.measuring.params import MeasureParams
from cellular.measuring.readout import field_of, measure

PIXEL_SIZE = 0.1733  # µm
PARAMS = MeasureParams()
SIDE = 300
CELLS = {1: (75, 75), 2: (75, 225), 4: (225, 75), 9: (225, 225)}
LEVEL = {1: 150, 2: 500, 4: 1500, 9: 4000}  # above a background of 300


def field_without_puncta(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both channels of four cells, brighter in their middle, and their label map."""
    random = np.random.default_rng(seed)
    labels = np.zeros((SIDE, SIDE), np.uint16)
    level = np.full((SIDE, SIDE), 300.0)
    for label, centre in CELLS.items():
        y, x = disk(centre, 60)
        labels[y, x] = label
        level[y, x] += LEVEL[label] * (1 - 0.5 * np.hypot(y - centre[0], x - centre[1]) / 60)
    channels = (random.normal(level, np.sqrt(2 * level)).astype(np.float32) for _ in range(2))
    return (*channels, labels)


def field_with(seed: int, **how) -> tuple:
    """Return red, green, label map and table of the spots that were planted in both."""
    red, green, labels = field_without_puncta(seed)
    how = {"counts": 12, "red_only": 0.7, "contrast": (1.5, 1.5), "seed": seed} | how
    red, green, spots = planted(red, green, labels, **how)
    return red, green, labels, spots


def read(red, green, labels):
    return measure(field_of(red, green, PIXEL_SIZE, PARAMS), labels)


def counts(reading) -> np.ndarray:
    return reading.cells[["red_puncta", "green_puncta", "red_only"]].to_numpy()


def distances(spots, puncta) -> np.ndarray:
    """Return the pixels from each spot to each punctum."""
    places = (table[["y", "x"]].to_numpy() for table in (spots, puncta))
    first, second = places
    return np.hypot(*(first[:, None] - second).transpose(2, 0, 1))


@pytest.mark.parametrize("seed", range(3))
def test_planted_puncta_are_found_where_they_are_and_no_others(seed):
    red, green, labels, spots = field_with(seed)
    puncta = read(red, green, labels).puncta
    apart = distances(spots, puncta[puncta["channel"] == "red"])
    assert (apart.min(axis=1) < 2).mean() >= 0.95
    assert (apart.min(axis=0) < 2).mean() >= 0.95


def test_most_puncta_in_clusters_are_told_apart():
    for seed in range(3):
        red, green, labels, spots = field_with(seed, crowded=True, sigma=(1.2, 1.8))
        found = read(red, green, labels).cells["red_puncta"].sum()
        assert 0.75 * len(spots) <= found <= len(spots)


def test_cells_without_puncta_have_at_most_one_in_ten():
    found = [counts(read(*field_without_puncta(seed)))[:, :2] for seed in range(10)]
    assert np.concatenate(found).mean(axis=0).max() <= 0.1


@pytest.mark.parametrize("red_only", [0.0, 0.3, 0.7, 1.0])
def test_the_fraction_of_puncta_that_are_red_only_is_recovered(red_only):
    truth, found = np.zeros(2), np.zeros(2)
    for seed in range(3):
        red, green, labels, spots = field_with(seed, red_only=red_only)
        cells = read(red, green, labels).cells
        truth += (~spots["double"]).sum(), len(spots)
        found += cells["red_only"].sum(), cells["red_puncta"].sum()
    assert abs(found[0] / found[1] - truth[0] / truth[1]) <= 0.05


def test_the_area_of_a_punctum_does_not_grow_with_its_brightness():
    areas = []
    for contrast in (1.5, 6.0):
        field = field_with(0, contrast=(contrast, contrast), sigma=(1.6, 1.6))
        areas.append(read(*field[:3]).puncta["area"].median())
    assert areas[0] == pytest.approx(areas[1], rel=0.1)


def test_twice_the_brightness_changes_no_count():
    red, green, labels, _ = field_with(1)
    expected = counts(read(red, green, labels))
    np.testing.assert_array_equal(counts(read(2 * red, green, labels)), expected)
    np.testing.assert_array_equal(counts(read(red, 2 * green, labels)), expected)


def test_an_offset_changes_no_count():
    red, green, labels, _ = field_with(1)
    expected = counts(read(red, green, labels))
    np.testing.assert_array_equal(counts(read(red + 1000, green + 500, labels)), expected)


def test_a_turn_by_90_degrees_changes_at_most_one_count_in_fifty():
    red, green, labels, _ = field_with(1)
    expected = counts(read(red, green, labels))
    turned = counts(read(*(np.rot90(image).copy() for image in (red, green, labels))))
    assert np.abs(turned - expected).sum() <= expected.sum() / 50


def test_a_cell_has_as_many_puncta_alone_as_among_others():
    red, green, labels, _ = field_with(1)
    among = read(red, green, labels).cells.set_index("label")
    random = np.random.default_rng(0)
    noise = random.normal(300, np.sqrt(600), labels.shape).astype(np.float32)
    for label in CELLS:
        own = labels == label
        alone = read(*(np.where(own, channel, noise) for channel in (red, green)), labels * own)
        for channel in ("red", "green"):
            column = f"{channel}_puncta"
            assert abs(alone.cells[column].item() - among.loc[label, column]) <= 1


def test_a_punctum_on_the_border_of_two_cells_belongs_to_one():
    labels = np.repeat([[1, 2]], 20, axis=1).repeat(40, axis=0).astype(np.uint16)
    y, x = np.mgrid[:40, :40]
    channel = 500 + 1000 * np.exp(-((y - 20) ** 2 + (x - 18) ** 2) / 2 / 1.5**2)
    channel = channel.astype(np.float32)
    reading = read(channel, channel, labels)
    assert reading.cells["red_puncta"].tolist() == [1, 0]
    assert reading.cells["double_positive"].tolist() == [1, 0]
