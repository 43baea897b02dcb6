"""cellular.segment: arrays in, label maps and a table out."""

import numpy as np
import pandas as pd
import pytest
from helpers.annotations import write_png
from hypothesis import given
from hypothesis import strategies as st

import cellular
from cellular.base.errors import InputError
from cellular.imaging.images import read_labels
from cellular.measuring.tables import COLUMNS
from cellular.models.folders import open_model
from cellular.models.params import ModelParams
from cellular.network.segmentation import load_model, segment
from cellular.segmenting.inputs import seen_planes
from cellular.segmenting.outputs import files_of

slow = pytest.mark.slow


@slow
def test_arrays_give_what_a_folder_gives(corners, model, run_script, tmp_path):
    for number, corner in enumerate(corners[:2]):
        write_png(tmp_path / f"images/{number}.png", corner)
    output = tmp_path / "out"
    options = ("--model", model, "--output", output, "--pixel_size", 0.5)
    code, _, err = run_script("segment", tmp_path / "images", *options)
    assert code == 0, err
    maps, cells = cellular.segment(corners[:2], model, pixel_size=0.5)
    for number, labels in enumerate(maps):
        assert np.array_equal(labels, read_labels(files_of(output, str(number))["labels"]))
    known = pd.read_csv(output / "cells.csv")
    assert list(cells) == list(known) and len(cells) == sum(labels.max() for labels in maps) > 5
    assert np.allclose(cells.to_numpy(float), known.to_numpy(float), rtol=1e-7)


@slow
def test_one_image_several_and_none(corners, model):
    (labels,), cells = cellular.segment(corners[0], model)
    assert set(cells["image"]) == {0} and list(cells["label"]) == [*range(1, labels.max() + 1)]
    stacked, both = cellular.segment(np.stack([corners[0], corners[0] * 0]), model)
    assert np.array_equal(stacked[0], labels) and not stacked[1].any()
    pd.testing.assert_frame_equal(both, cells)
    maps, none = cellular.segment([], model)
    assert maps == [] and list(none) == ["image", *COLUMNS] and not len(none)


@slow
def test_cells_are_those_of_the_network_alone(corners, model):
    opened = open_model(model)
    settings = ModelParams(**opened.defaults).settings()
    import torch

    network = load_model(opened.weights, torch.device("cpu"))
    for image in (corners[0], corners[0][..., 1], corners[1].astype(np.float64) / 255):
        (labels,), _ = cellular.segment(image, model, device="cpu")
        assert np.array_equal(labels, segment(network, image, settings))
    grey = ModelParams(**opened.defaults | {"channels": [0, 0]}).settings()
    (labels,), _ = cellular.segment(corners[0], model, channels=[0, 0], device="cpu")
    assert np.array_equal(labels, segment(network, corners[0], grey))


@slow
@pytest.mark.parametrize(
    ("image", "settings", "message"),
    [
        (np.zeros((50, 50)), {"chanels": [0, 0]}, "chanels: no such parameter; known here"),
        (np.zeros((50, 50)), {"flow_threshold": "wide"}, "flow_threshold: .*valid number"),
        (np.zeros((50, 50)), {"device": "tpu"}, "device 'tpu' is unknown"),
        (np.zeros((3, 50, 50)), {}, r"image 0: shape \(3, 50, 50\), expected \(H, W\)"),
        (np.zeros(50), {}, r"image 0: shape \(50,\)"),
        (np.full((50, 50), np.nan), {}, "image 0: 2,500 of 2,500 values are NaN"),
        (np.zeros((50, 50, 2)), {"channels": [3, 0]}, "image 0: 2 channels, without channel 3"),
        (np.zeros((5, 50)), {}, "image 0: 50 x 5 pixels, expected 10 a side"),
        (np.zeros((50, 50)), {"diameter": 200}, None),
        (np.zeros((10, 10)), {"diameter": 9000}, "image 0: .* vanishes when it is scaled"),
    ],
)
def test_what_cannot_be_segmented(image, settings, message, model):
    if message is None:
        cellular.segment(image, model, **settings)
        return
    with pytest.raises(InputError, match=message):
        cellular.segment(image, model, **settings)


@given(st.integers(1, 9), st.sampled_from([(0, 0), (1, 0), (2, 1), (3, 0), (1, 3)]))
def test_the_network_sees_the_channels_that_were_chosen(count, channels):
    image = np.arange(12 * 10 * count, dtype=np.uint16).reshape(12, 10, count)
    first, second = channels
    if max(channels) > count:
        with pytest.raises(InputError, match=f"{count} channels, without channel"):
            seen_planes("x", image, channels)
        return
    seen = seen_planes("x", image, channels)
    if not first:
        assert np.array_equal(seen, image.mean(axis=2))
    elif not second:
        assert np.array_equal(seen, image[..., first - 1])
    else:
        assert np.array_equal(seen, np.dstack([image[..., first - 1], image[..., second - 1]]))
