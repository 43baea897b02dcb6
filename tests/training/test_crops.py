"""Crops: the pixels of Cellpose's own augmentation, but only a part of each field is read."""

import numpy as np
import pytest
from cellpose.transforms import convert_image, normalize_img, random_rotate_and_resize
from hypothesis import given, settings
from hypothesis import strategies as st

from cellular.imaging.trainingset import encode, make_field, percentiles
from cellular.training.crops import Crops
from cellular.training.params import TrainParams

SIZE = 64


def field(shape, seed, *, channels=(0, 0), count=3, diameter=30.0, flows=None):
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (count, *shape), np.uint8)
    if flows is None:
        flows = random.random((3, *shape), np.float32) * 2 - 1
    return make_field(
        f"field{seed}", image, flows, percentiles(image), channels, cells=9, diameter=diameter
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


def test_brightness_and_noise_depend_on_the_seed_and_change_images_alone():
    full = field((90, 120), 3)
    plain = Crops([full], TrainParams(crop_size=SIZE), count=4)
    images, targets = plain.cut(plain.plan(5))
    for change in ({"brightness": 0.5}, {"noise": 0.2}):
        crops = Crops([full], TrainParams(crop_size=SIZE, **change), count=4)
        other, same = crops.cut(crops.plan(5))
        again, _ = crops.cut(crops.plan(5))
        assert np.array_equal(targets, same) and np.array_equal(other, again)
        assert not np.allclose(images, other)
    bright = Crops([full], TrainParams(crop_size=SIZE, brightness=0.5), count=4)
    lit = images > 0.1  # the factor cannot be measured in dark pixels
    factors = [
        np.unique((b / np.where(i, i, 1))[i > 0.1].round(3))
        for i, b in zip(images, bright.cut(bright.plan(5))[0], strict=True)
    ]
    assert lit.any() and all(len(found) == 1 for found in factors)  # one factor for each crop
    assert all(np.exp(-0.5) - 1e-3 <= found[0] <= np.exp(0.5) + 1e-3 for found in factors)


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
