"""Channels of fields: in files of their own or in one image, and the label maps beside them."""

import numpy as np
import pytest
import tifffile
from helpers.reporter import PIXEL_SIZE, channels_of, labels_of, write_annotated, write_channels

from cellular.base.errors import InputError
from cellular.measuring.channels import UnknownChannels, find_channels, find_labels
from cellular.measuring.params import MeasureParams
from cellular.segmenting.sources import find

FIELD = "Timepoint_001_220518-ST_C03_s3"
PARAMS = MeasureParams()


def test_a_field_has_a_file_for_each_channel(tmp_path):
    red, green = channels_of(3, 1)
    for field in ("b", "a"):
        write_channels(tmp_path, field, (red, green))
    (tmp_path / "a_w3.TIF").write_bytes((tmp_path / "a_w1.TIF").read_bytes())  # transmitted light
    found = find_channels(find([tmp_path]), PARAMS)
    assert list(found) == ["a", "b"]
    one, two, size = found["a"].read(PARAMS, PIXEL_SIZE)
    assert np.array_equal(one, red) and np.array_equal(two, green)
    assert one.dtype == two.dtype == np.float32 and size == PIXEL_SIZE


@pytest.mark.parametrize(
    "params", [MeasureParams(red="2", green="3"), MeasureParams(red="mRFP", green="egfp")]
)
def test_an_image_holds_both_channels_by_name_or_number(params, tmp_path):
    red, green = channels_of(3, 1)
    planes = np.stack([np.zeros_like(red), red, green])
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "mRFP", "EGFP"]}}
    metadata |= {"PhysicalSizeX": 0.2, "PhysicalSizeY": 0.2}
    tifffile.imwrite(tmp_path / "a.ome.tif", planes, metadata=metadata)
    one, two, size = find_channels(find([tmp_path]), params)["a"].read(params)
    assert np.array_equal(one, red) and np.array_equal(two, green) and size == 0.2


def test_channels_by_number_are_never_files_with_such_an_end(tmp_path):
    red, green = channels_of(3, 1)
    params = MeasureParams(red="1", green="2")
    for number in (1, 2, 3):
        metadata = {"axes": "CYX", "PhysicalSizeX": 0.2, "PhysicalSizeY": 0.2}
        path = tmp_path / f"img_{number}.ome.tif"
        tifffile.imwrite(path, np.stack([red, green]), metadata=metadata)
    found = find_channels(find([tmp_path]), params)
    assert list(found) == ["img_1", "img_2", "img_3"]
    assert np.array_equal(found["img_3"].read(params)[1], green)


def test_a_pixel_larger_than_any_punctum_is_an_error(tmp_path):
    write_channels(tmp_path, "a", channels_of(3, 1))
    with pytest.raises(InputError, match=r"a pixel of 170 µm is larger.*give the edge"):
        find_channels(find([tmp_path]), PARAMS)["a"].read(PARAMS, 170)


def test_what_cannot_be_known_is_told_as_such(tmp_path):
    red, green = channels_of(3, 1)
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([red, green, green]), photometric="rgb")
    fields = find_channels(find([tmp_path]), PARAMS)
    with pytest.raises(UnknownChannels, match=r"no channel 'w2', there are .*measure.red"):
        fields["a"].read(PARAMS, PIXEL_SIZE)
    with pytest.raises(UnknownChannels, match=r"how large a pixel is.*data.pixel_size"):
        fields["a"].read(MeasureParams(red="1", green="2"))
    tifffile.imwrite(tmp_path / "a.tif", red)
    with pytest.raises(UnknownChannels, match="one channel, expected files a_w2 and a_w1"):
        find_channels(find([tmp_path]), PARAMS)["a"].read(PARAMS, PIXEL_SIZE)


def test_channels_that_do_not_fit_are_one_error(tmp_path):
    red, green = channels_of(3, 1)
    write_channels(tmp_path, "a", (red, green[:100]))
    with pytest.raises(InputError, match="a: red has 128 x 128 pixels, green 128 x 100"):
        find_channels(find([tmp_path]), PARAMS)["a"].read(PARAMS, PIXEL_SIZE)
    write_channels(tmp_path, "a", (red.astype(np.float32) - 500, green.astype(np.float32)))
    with pytest.raises(InputError, match=r"a_w2: -4.* is the lowest value, expected"):
        find_channels(find([tmp_path]), PARAMS)["a"].read(PARAMS, PIXEL_SIZE)
    (tmp_path / "a_w1.TIF").unlink()
    with pytest.raises(InputError, match="a_w1: not there; expected a file for each"):
        find_channels(find([tmp_path]), PARAMS)


def test_label_maps_are_found_by_the_names_that_programs_give_them(tmp_path):
    write_annotated(tmp_path / "prepared", FIELD, labels_of())
    assert list(find_labels(tmp_path / "prepared")) == [FIELD]
    predicted = tmp_path / "predictions" / f"pred_{FIELD}.png"
    predicted.parent.mkdir()
    predicted.write_bytes((tmp_path / "prepared" / f"{FIELD}_masks.png").read_bytes())
    assert find_labels(tmp_path / "predictions") == {FIELD: predicted}
    nested = tmp_path / "segmented" / "labels" / "day 1" / "a.ome.tif"
    nested.parent.mkdir(parents=True)
    tifffile.imwrite(nested, labels_of())
    tifffile.imwrite(tmp_path / "segmented" / "other.tif", labels_of())
    assert find_labels(tmp_path / "segmented") == {"day 1/a": nested}
    with pytest.raises(InputError, match="no label maps"):
        find_labels(tmp_path / "nothing")
