"""Crops: the pixels of Cellpose's own augmentation, but only a part of each field is read."""

import cv2
import numpy as np
import pytest
from cellpose.transforms import convert_image, normalize_img, random_rotate_and_resize
from hypothesis import given, settings
from hypothesis import strategies as st

from cellular.imaging.trainingset import encode, make_field, percentiles
from cellular.training.crops import Crops
from cellular.training.params import TrainParams

SIZE = 64


def field(shape, seed, *, channels=(0, 0), count=3, diameter=30.0, flows=None, labels=None):
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (count, *shape), np.uint8)
    if flows is None:
        flows = random.random((3, *shape), np.float32) * 2 - 1
    labels = np.zeros(shape, np.uint16) if labels is None else labels
    known = percentiles(image)
    return make_field(
        f"field{seed}", image, flows, labels, known, channels, cells=9, diameter=diameter
    )


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(20, 700),
    width=st.integers(20, 700),
    diameter=st.floats(5, 200),
    rescale=st.booleans(),
    channels=st.sampled_from([[0, 0], [2, 1], [3, 0]]),
)
def test_crops_are_those_of_cellpose(seed, height, width, diameter, rescale, channels):
    params = TrainParams(crop_size=SIZE, rescale=rescale, channels=channels)
    full = field((height, width), seed % 1000, channels=channels, diameter=diameter)
    crops = Crops([full], params, count=None)
    images, targets = crops.cut(crops.plan(seed))

    theirs = normalize_img(
        convert_image(full.image.transpose(1, 2, 0), channels=channels).transpose(2, 0, 1), axis=0
    )
    np.random.seed(seed)  # noqa: NPY002 - Cellpose's generator
    np.random.permutation(1)  # noqa: NPY002 - the order of the fields is drawn first
    expected, flows, _ = random_rotate_and_resize(
        [theirs],
        Y=[full.flows],
        rescale=np.array([diameter]) / 30.0 if rescale else np.ones(1, np.float32),
        scale_range=0.5 if rescale else 1.0,
        xy=(SIZE, SIZE),
    )
    assert np.array_equal(images, expected)
    assert np.array_equal(targets, flows)


@given(st.integers(0, 2**32 - 1))
def test_stored_flows_differ_from_exact_ones_by_half_a_unit_at_most(seed):
    angle = np.random.default_rng(seed).random((80, 80), np.float32) * 7
    exact = np.stack([np.ones((80, 80), np.float32), np.sin(angle), np.cos(angle)])
    params = TrainParams(crop_size=SIZE)
    pair = [
        Crops([field((80, 80), 1, flows=flows)], params, count=None)
        for flows in (exact, encode(exact))
    ]
    (_, precise), (_, stored) = (crops.cut(crops.plan(seed)) for crops in pair)
    assert np.array_equal(precise[:, 0], stored[:, 0])
    assert np.abs(precise - stored).max() <= np.sqrt(2) * 0.5 / 127 + 1e-6


def test_batches_follow_the_plan_in_order_and_are_shared_among_processes():
    params = TrainParams(crop_size=SIZE)
    crops = Crops([field((90, 120), seed) for seed in range(3)], params, count=10)
    plan = crops.plan(7)
    assert len(plan) == 10 and {crop.field for crop in plan} == {0, 1, 2}
    whole = list(crops.batches(7, size=4))
    assert [len(images) for images, _ in whole] == [4, 4, 2]
    for (images, targets), start in zip(whole, (0, 4, 8), strict=True):
        expected = crops.cut(plan[start : start + 4])
        assert np.array_equal(images, expected[0]) and np.array_equal(targets, expected[1])
    late = list(crops.batches(7, size=4, start=1))
    assert len(late) == 2 and np.array_equal(late[0][0], whole[1][0])
    for rank in (0, 1):
        for (part, _), (images, _) in zip(
            crops.batches(7, size=4, rank=rank, world=2), whole, strict=True
        ):
            assert np.array_equal(part, images[rank::2])


def squares(size, step):
    """A field on whose dark ground lie bright squares, 12 px wide: image and flows show cells."""
    labels = np.zeros((size, size), np.uint16)
    corners = [(y, x) for y in range(9, size - 12, step) for x in range(9, size - 12, step)]
    for number, (y, x) in enumerate(corners, start=1):
        labels[y : y + 12, x : x + 12] = number
    cell = (labels > 0).astype(np.float32)
    full = field((size, size), 1, count=1, flows=np.stack([cell, cell / 2, cell / 4]))
    image = (cell[None] * 200).astype(np.uint8)
    known = percentiles(image)
    cells = int(labels.max())
    return make_field("f", image, full.flows, labels, known, [0, 0], cells=cells, diameter=30.0)


@given(st.integers(0, 2**31))
def test_whole_cells_are_pasted_with_their_image_and_their_flows(seed):
    fields = [squares(200, 24)]
    plain = Crops(fields, TrainParams(crop_size=SIZE), count=6)
    pasting = Crops(fields, TrainParams(crop_size=SIZE, paste_cells=1), count=6)
    plan = plain.plan(seed)
    (before, _), (image, targets) = plain.cut(plan), pasting.cut(plan)
    assert np.array_equal(pasting.cut(plan)[0], image)  # the seed decides
    # Where there is a cell, pasted or not, the image is bright and the flows are its own; only
    # where a pasted cell ends on top of another, a thin line between the two is darker.
    cell = targets[:, 0] > 0.5
    inside = np.stack([cv2.erode(one.astype(np.uint8), np.ones((7, 7))) > 0 for one in cell])
    assert np.mean(image[:, 0][inside] > 0.7) > 0.9
    assert np.mean(np.hypot(targets[:, 1], targets[:, 2])[inside] > 0.5) > 0.9
    assert not np.array_equal(image, before)


def test_cells_are_pasted_on_the_part_of_the_crops_that_was_asked_for():
    fields = [squares(200, 24)]
    plain = Crops(fields, TrainParams(crop_size=SIZE), count=400)
    pasting = Crops(fields, TrainParams(crop_size=SIZE, paste_cells=0.3), count=400)
    before, after = (crops.cut(crops.plan(3))[0] for crops in (plain, pasting))
    changed = np.mean([not np.array_equal(*pair) for pair in zip(before, after, strict=True)])
    assert 0.2 < changed < 0.4


def test_nothing_is_pasted_where_no_cell_lies_whole_in_a_crop():
    labels = np.ones((90, 120), np.uint16)
    full = field((90, 120), 3, labels=labels)
    crops = Crops([full], TrainParams(crop_size=SIZE, paste_cells=1, scale_range=0), count=4)
    plain = Crops([full], TrainParams(crop_size=SIZE, scale_range=0), count=4)
    for pasted, as_is in zip(crops.cut(crops.plan(5)), plain.cut(plain.plan(5)), strict=True):
        assert np.array_equal(pasted, as_is)


def test_without_flip_no_crop_is_mirrored():
    crops = Crops([field((90, 120), 3)], TrainParams(crop_size=SIZE, flip=False), count=50)
    assert not any(crop.flip for crop in crops.plan(1))
    assert any(crop.flip for crop in Crops(crops.fields, TrainParams(crop_size=SIZE), 50).plan(1))


@pytest.mark.parametrize(("scale_range", "least", "most"), [(0.0, 1, 1), (0.2, 0.9, 1.1)])
def test_crops_have_random_sizes_within_the_scale_range(scale_range, least, most):
    params = TrainParams(crop_size=SIZE, scale_range=scale_range)
    crops = Crops([field((90, 120), 3, diameter=60.0)], params, count=50)
    scales = [np.sqrt(np.linalg.det(crop.matrix[:, :2])) for crop in crops.plan(1)]
    assert min(scales) >= least / 2 - 1e-5 and max(scales) <= most / 2 + 1e-5
