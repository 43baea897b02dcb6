"""Segmentation: the label maps are those of Cellpose's own model, however tiles are batched."""

import numpy as np
import pytest
import torch
from cellpose import core
from cellpose.models import CellposeModel

from cellular.base.errors import InputError
from cellular.imaging.images import read_image
from cellular.imaging.matching import count_overlaps, match
from cellular.network.segmentation import load_model, segment, segment_all
from cellular.network.settings import Settings
from cellular.network.tiles import cut, join

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
DIAMETER = 121


@pytest.fixture(scope="module")
def images(sample):
    """Pieces of a real field: four sizes, one of them smaller than a tile, and one is grey."""
    image = read_image(sample / "images" / "Timepoint_005_220518-ST_C03_s3.jpg")
    grey = image[300:700, 300:700, 1]
    return [image[:500, :900], image[1024:1524, 768:1368], grey, image[600:1200, 100:900]]


@pytest.fixture
def model(pretrained):
    return load_model(pretrained, CPU)


@pytest.fixture
def plain(pretrained):
    return CellposeModel(pretrained_model=str(pretrained), device=CPU)


def same_cells(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the part of all cells that share 95 % of their union with a cell of the other map."""
    same = np.sum(match(count_overlaps(theirs, ours)).iou > 0.95)
    return same / max(int(ours.max()), int(theirs.max()))


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("shape", [(300, 420, 2), (90, 224, 2), (225, 100, 2)])
def test_tiles_are_cut_and_joined_as_cellpose_does(model, shape, augment):
    image = np.random.default_rng(0).random(shape, np.float32)
    expected, _ = core.run_net(model.net, image[None], rsz=0.8, augment=augment)
    tiles = cut(image, 0.8, augment)
    joined = join(tiles, core._forward(model.net, tiles.tiles)[0])
    assert joined.shape == expected.transpose(0, 3, 1, 2)[0].shape
    assert joined == pytest.approx(expected.transpose(0, 3, 1, 2)[0], abs=1e-4)


@pytest.mark.parametrize(("batch_size", "augment"), [(1, False), (3, True), (16, False)])
def test_label_maps_are_cellposes_however_tiles_are_batched(
    model, plain, images, batch_size, augment
):
    channels = [0, 0] if augment else [2, 1]
    images = images if not any(channels) else [image for image in images if image.ndim == 3]
    settings = Settings(
        diameter=DIAMETER, channels=channels, augment=augment, batch_size=batch_size, precision="32"
    )
    found = list(segment_all(model, images, settings))
    assert len(found) == len(images)
    for ours, image in zip(found, images, strict=True):
        theirs = plain.eval(
            image, channels=channels, diameter=DIAMETER, augment=augment, resample=False
        )[0]
        assert ours.shape == image.shape[:2] and ours.dtype == np.uint16 and ours.max() > 3
        # flows differ in the seventh digit, as rounding in convolutions depends on the batch size
        assert same_cells(ours, theirs) > 0.95


@pytest.mark.parametrize(("augment", "channels"), [(False, [0, 0]), (True, [2, 1])])
def test_with_resample_label_maps_are_exactly_cellposes(model, plain, images, augment, channels):
    image = images[1]
    settings = Settings(diameter=DIAMETER, resample=True, channels=channels, augment=augment)
    theirs = plain.eval(image, channels=channels, diameter=DIAMETER, augment=augment)[0]
    ours = segment(model, image, settings)
    assert ours.max() > 5 and np.array_equal(ours, theirs)


def test_half_precision_finds_the_same_cells(model, images):
    exact, coarse = (
        segment(model, images[3], Settings(diameter=DIAMETER, precision=precision))
        for precision in ("32", "bf16")
    )
    assert np.mean((exact > 0) == (coarse > 0)) > 0.99


def test_the_stored_diameter_is_used_when_none_is_given(model, images):
    image = images[0][:256, :256]
    by_default = segment(model, image, Settings(precision="32"))
    assert np.array_equal(by_default, segment(model, image, Settings(diameter=30, precision="32")))


def test_an_empty_image_has_no_cells(model):
    for image in (np.zeros((300, 300, 3), np.uint8), np.full((40, 50), 7, np.uint16)):
        assert not segment(model, image, Settings(diameter=DIAMETER)).any()


@pytest.mark.parametrize("resample", [False, True])
def test_an_image_that_vanishes_at_the_networks_scale_is_an_error(model, resample):
    settings = Settings(diameter=DIAMETER, resample=resample)
    with pytest.raises(InputError, match="an image of 50 x 3 pixels vanishes"):
        segment(model, np.zeros((3, 50), np.uint8), settings)


def test_without_images_there_are_no_label_maps(model):
    assert list(segment_all(model, [], Settings())) == []


def test_only_a_few_images_are_read_ahead(model, images):
    read = []

    def source():
        for number in range(12):
            read.append(number)
            yield images[2]

    masks = segment_all(model, source(), Settings(diameter=DIAMETER, augment=False))
    next(masks)
    assert len(read) < 9
    masks.close()


def test_an_error_in_reading_is_raised(model, images):
    def source():
        yield images[2]
        raise InputError("cut short")

    with pytest.raises(InputError, match="cut short"):
        list(segment_all(model, source(), Settings(diameter=DIAMETER)))
