"""Channels in colours: by hand, as CELLULAR's authors merged them, and of anybody's images."""

import cv2
import numpy as np
import pytest
import tifffile
import torch
from cellpose.metrics import average_precision
from helpers.annotations import ROOT, disc
from hydra.core.override_parser.overrides_parser import OverridesParser

from cellular.base.errors import InputError
from cellular.base.params import validate
from cellular.fetching.datasets import RGB, merge_channels
from cellular.fetching.params import DataParams
from cellular.imaging.images import read_image, read_labels, write_labels
from cellular.imaging.normalisation import limits
from cellular.imaging.rendering import MINMAX, PERCENTILES, render
from cellular.network.segmentation import load_model, segment_all
from cellular.network.settings import Settings

RAMP = np.array([[0, 25, 50, 100]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
def test_colours_are_added_up_as_calculated_by_hand(dtype):
    image = np.dstack([RAMP, RAMP[:, ::-1]]).astype(dtype)
    picture = render(image, ["red", "grey"], ["0..100", "25..125"])
    assert picture.dtype == np.uint8 and picture.shape == (1, 4, 3)
    assert picture[0, :, 1].tolist() == [191, 64, 0, 0]  # (100, 50, 25, 0 - 25) / 100, cut off
    assert picture[0, :, 0].tolist() == [191, 128, 128, 255]
    assert render(image, ["black", "cyan"], [MINMAX, "0..50"])[0].tolist() == [
        [0, 255, 255],
        [0, 255, 255],
        [0, 128, 128],
        [0, 0, 0],
    ]
    assert render(image + dtype(7), ["blue", "black"], [MINMAX, MINMAX])[0, :, 2].tolist() == [
        *(0, 64, 128, 255)
    ]


def test_the_default_range_is_cellposes_and_a_flat_channel_is_black():
    values = np.random.default_rng(0).integers(0, 60000, (50, 40, 1)).astype(np.uint16)
    low, high = limits(values)
    picture = render(values, ["green"], [PERCENTILES])[..., 1]
    assert (picture[values[..., 0] <= low] == 0).all()
    assert (picture[values[..., 0] >= high] == 255).all()
    for shown in (PERCENTILES, MINMAX):
        assert not render(np.full((3, 3, 1), 9), ["grey"], [shown]).any()


def channels_of(sample, field):
    return [sample / "channels" / f"{field}_{wave}.TIF" for wave in RGB]


@pytest.mark.slow
@pytest.mark.parametrize("time", [1, 2, 3, 4, 5])
def test_the_authors_merged_pictures_are_made_of_their_channels(sample, tmp_path, time):
    field = f"Timepoint_00{time}_220518-ST_C03_s3"
    merge_channels(channels_of(sample, field), tmp_path / "merged.tif")
    picture = read_image(tmp_path / "merged.tif").astype(np.float32)
    theirs = read_image(sample / "images" / f"{field}.jpg").astype(np.float32)
    smoothed = [cv2.blur(image, (4, 4)) for image in (picture, theirs)]
    assert abs(smoothed[0] - smoothed[1]).mean() <= 1.3  # measured: 1.05 to 1.09 grey levels
    assert 10 * np.log10(255**2 / ((picture - theirs) ** 2).mean()) >= 34  # dB; 34.5 to 35.2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "settings", "apart"),
    [
        ("pretrained", Settings(diameter=121), 0.04),  # measured: 0.379 and 0.360
        ("finetuned", Settings(), 0.02),  # measured: 0.550 and 0.559
    ],
)
def test_a_model_finds_the_same_cells_in_our_pictures_and_in_theirs(
    sample, pretrained, tmp_path, model, settings, apart
):
    weights = pretrained if model == "pretrained" else ROOT / "models/finetuned/cellular_finetuned"
    if not weights.exists():
        pytest.skip("the pipeline was not run here, so there are no fine-tuned weights")
    field = "Timepoint_005_220518-ST_C03_s3"
    merge_channels(channels_of(sample, field), tmp_path / "ours.tif")
    images = [tmp_path / "ours.tif", sample / "images" / f"{field}.jpg"]
    maps = segment_all(load_model(weights, torch.device("cpu")), map(read_image, images), settings)
    truth = read_labels(sample / "masks" / f"{field}.tif")
    ours, theirs = (average_precision(truth, found, threshold=[0.5])[0][0] for found in maps)
    assert abs(ours - theirs) <= apart


def own_folder(folder, channels):
    """Write two fields with this number of 16-bit channels, and their label maps."""
    for name in ("a", "b"):
        image = np.random.default_rng(len(name)).integers(0, 4095, (96, 96, channels), np.uint16)
        for part in ("images", "masks"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        planes = np.squeeze(np.moveaxis(image, -1, 0))
        tifffile.imwrite(folder / "images" / f"{name}.tif", planes, photometric="minisblack")
        write_labels(folder / "masks" / f"{name}.tif", disc(20, 20).astype(np.uint16))
    return folder


@pytest.mark.parametrize(
    "colours", [["magenta"], ["green", "grey"], ["blue", "red", "green", "black"]]
)
def test_images_of_ones_own_get_the_colours_that_are_asked_for(run_script, tmp_path, colours):
    folder = own_folder(tmp_path / "mine", len(colours))
    ranges = ["-5..4095", *[MINMAX] * (len(colours) - 1)]
    code, _, err = run_script(
        *("fetch_data", "--dataset", "local", "--path", folder, "--output_dir", tmp_path / "raw"),
        *("--colours", *colours, "--ranges", *ranges),
    )
    assert code == 0, err
    for name in ("a", "b"):
        picture = read_image(tmp_path / "raw" / "images" / f"{name}.tif")
        image = np.atleast_3d(read_image(folder / "images" / f"{name}.tif"))
        assert picture.dtype == np.uint8
        assert np.array_equal(picture, render(image, colours, ranges))


def test_images_with_another_number_of_channels_are_named(run_script, tmp_path):
    folder = own_folder(tmp_path / "mine", 2)
    code, _, err = run_script(
        *("fetch_data", "--dataset", "local", "--path", folder, "--output_dir", tmp_path / "raw"),
        *("--colours", "red", "green", "blue"),
    )
    assert code == 2 and not (tmp_path / "raw").exists()
    assert "2 faults in the data set local" in err
    assert "  a.tif: 2 channels, but data.colours has 3 (red, green, blue)" in err


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colours": ["pink"]}, "colours: expected colours among red, green, blue"),
        ({"colours": ["red"], "ranges": ["5..2"]}, "ranges: expected percentiles, minmax or <low>"),
        ({"colours": ["red"], "ranges": ["most"]}, "ranges: expected percentiles, minmax or <low>"),
        ({"ranges": [MINMAX]}, "1 ranges for 0 colours"),
        ({"rendering": "dark"}, "'merged' or 'raw'"),
    ],
)
def test_wrong_colours_and_ranges_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        validate(DataParams, values, "params.yaml")


def test_colours_and_ranges_can_be_written_as_dvc_reads_them():
    given = ["data.colours=[green,red,grey]", "data.ranges=[200..2000,-0.5..2500,minmax]"]
    read = {
        item.key_or_group: item.value() for item in OverridesParser.create().parse_overrides(given)
    }
    assert read["data.ranges"] == ["200..2000", "-0.5..2500", "minmax"]
    assert DataParams(colours=read["data.colours"], ranges=read["data.ranges"]).ranges
