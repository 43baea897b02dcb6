"""segment.py: a folder of all kinds of images becomes label maps, outlines and tables."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile
from helpers.annotations import write_png
from helpers.mixed import BROKEN, write_mixed
from helpers.results import images_of, results, times
from PIL import Image as Picture
from roifile import roiread
from shapely.geometry import shape
from skimage.measure import regionprops_table

from cellular.imaging.images import read_image, read_labels
from cellular.imaging.microscopy import read
from cellular.segmenting.outputs import files_of

pytestmark = pytest.mark.slow
EMPTY = "empty: all pixels have one value"


@pytest.fixture(scope="module")
def mixed(corners, tmp_path_factory):
    """Images of many kinds: a folder, and more.zip beside it. Do not change it."""
    folder = tmp_path_factory.mktemp("mixed") / "images"
    write_mixed(folder, corners)
    return folder


@pytest.fixture(scope="module")
def finished(mixed, model):
    """What a run makes of them, and its last message. Do not change it."""
    from cellular.base.errors import PartlyDone
    from segment import main

    output = mixed.with_name("segmented")
    with pytest.raises(PartlyDone) as partly:
        main(
            [
                *map(str, (mixed, mixed.with_name("more.zip"), "--model", model)),
                "--output",
                str(output),
            ]
        )
    return output, str(partly.value)


@pytest.fixture
def again(finished, tmp_path):
    """A copy of the images and of what was made of them, and a command that goes on with it."""
    output, _ = finished
    shutil.copytree(output.parent, tmp_path / "copy")
    return tmp_path / "copy"


def segment(run_script, folder, model, *more):
    images = folder / "images", folder / "more.zip"
    return run_script("segment", *images, "--model", model, "--output", folder / "segmented", *more)


def good(output):
    return [name for name, row in images_of(output).items() if not row["error"]]


def test_all_images_are_told_and_the_broken_one_at_the_end(finished):
    output, message = finished
    rows = images_of(output)
    assert len(rows) == 31 + 1 and list(rows) == sorted(rows)
    assert {"deep/er/nested", "Präparat 5 µ", "twin.png", "twin.jpg", "in a/zip"} <= set(rows)
    assert [name for name, row in rows.items() if row["error"]] == [BROKEN]
    assert "broken.png: no readable image, or cut short" in rows[BROKEN]["error"]
    assert message.count("\n") == 1 and "in 31 images" in message
    assert "1 could not be segmented" in message and rows[BROKEN]["error"] in message
    assert all(float(row["seconds"]) >= 0 for row in rows.values())
    assert not [*output.rglob("*.partial")]


def test_every_file_of_an_image_shows_the_same_cells(finished):
    output, _ = finished
    rows = images_of(output)
    for name in good(output):
        files = files_of(output, name)
        labels = tifffile.imread(files["labels"])
        areas = dict(enumerate(np.bincount(labels.ravel())[1:].tolist(), 1))
        assert labels.dtype == np.uint16 and len(areas) == int(rows[name]["cells"])
        assert labels.shape == (int(rows[name]["height"]), int(rows[name]["width"]))
        if areas:
            rois = roiread(files["rois"])
            assert [roi.name for roi in rois] == [str(label) for label in areas]
        features = json.loads(files["geojson"].read_text("utf-8"))["features"]
        shapes = {int(each["properties"]["name"]): shape(each["geometry"]) for each in features}
        assert all(map(shapely.is_valid, shapes.values()))
        assert {label: outline.area for label, outline in shapes.items()} == areas
        assert Picture.open(files["overlay"]).size == labels.shape[::-1]


def median(mask, image):
    return np.median(image[mask])


def test_the_tables_are_scikit_images(finished, mixed):
    output, _ = finished
    cells = pd.read_csv(output / "cells.csv")
    assert list(cells["image"].drop_duplicates()) == [
        name for name, row in images_of(output).items() if row["cells"] not in ("", "0")
    ]
    shape = ("label", "centroid", "area", "perimeter", "eccentricity", "solidity")
    for name, path in {"colour": "colour.png", "ome/two": "ome/two.ome.tif"}.items():
        labels, image = read_labels(files_of(output, name)["labels"]), read(mixed / path)
        known = regionprops_table(
            labels,
            image.pixels,
            properties=(*shape, "intensity_mean"),
            extra_properties=[median],
        )
        mine = cells[cells["image"] == name]
        columns = {"centroid-0": "y", "centroid-1": "x"}
        for number, channel in enumerate(image.names):
            columns |= {f"intensity_mean-{number}": f"mean_{channel}"}
            columns |= {f"median-{number}": f"median_{channel}"}
        for column, values in known.items():
            ours = mine[columns.get(column, column)]
            assert np.allclose(ours, values, rtol=1e-7, atol=1e-7), column


def test_pixel_sizes_and_channels_are_those_of_the_files(finished):
    output, _ = finished
    rows = images_of(output)
    assert rows["ome/named"]["channels"] == "dye 1; dye 2; dye 3"
    assert rows["imagej"]["channels"] == "red; green; blue"
    assert rows["channels first"]["channels"] == "channel_1; channel_2; channel_3"
    sizes = {name: row["pixel_size_um"] for name, row in rows.items()}
    assert (sizes["ome/named"], sizes["imagej"], sizes["colour"]) == ("0.5", "0.25", "")
    with tifffile.TiffFile(files_of(output, "imagej")["labels"]) as labels:
        assert 'PhysicalSizeX="0.25"' in labels.ome_metadata
    cells = pd.read_csv(output / "cells.csv").set_index("image")
    named = cells.loc["ome/named"]
    assert np.allclose(named["area_um2"], named["area"] / 4)
    assert named["mean_dye 2"].notna().all() and named["mean_green"].isna().all()
    assert cells.loc["colour", "area_um2"].isna().all()


def test_the_same_pixels_give_the_same_cells_in_every_format(finished):
    output, _ = finished
    for names in (
        ("colour.8", "colour.16", "channels first", "imagej", "ome/named", "ome/two", "ome/seven"),
        ("grey 8", "grey 16", "big-endian", "ome/one"),
        ("a name with spaces", "deep/er/nested", "twin.png", "dots.in.it", "plan.json"),
    ):
        maps = [read_labels(files_of(output, name)["labels"]) for name in names]
        assert maps[0].max() > 1
        for name, labels in zip(names, maps, strict=True):
            assert np.mean((labels > 0) == (maps[0] > 0)) > 0.99, name


def test_what_is_odd_about_an_image_is_said(finished):
    output, _ = finished
    rows = {name: row["warnings"] for name, row in images_of(output).items()}
    assert rows["dark"] == rows["flat"] == EMPTY
    assert rows["tiny"].startswith("empty: no cells found")
    assert "saturated: 6" in rows["bright"]
    assert "unlike the training images: 1 channel, there 3" in rows["grey"]


def test_run_json_says_which_model_and_settings(finished, model):
    run = json.loads((finished[0] / "run.json").read_text("utf-8"))
    assert run["settings"]["channels"] == [2, 1] and run["settings"]["diameter"] == 40
    settings = json.loads((model / "settings.json").read_text())
    assert run["weights_sha256"] == settings["weights"]["sha256"]
    assert run["command"].startswith("src/segment.py ") and "torch" in run["versions"]


def test_only_the_broken_image_is_done_again_until_it_is_mended(again, model, run_script):
    output = again / "segmented"
    # The paths of images are other ones here, and what is in them is the same.
    before, known = times(output), results(output)
    code, out, err = segment(run_script, again, model)
    assert (code, out) == (1, "") and "broken.png: no readable image" in err.splitlines()[-1]
    changed = {name for name, time in times(output).items() if before[name] != time}
    assert changed == {f".done/records/{BROKEN}.json"}
    assert {**results(output), "images.csv": ""} == {**known, "images.csv": ""}

    shutil.copy(again / "images/colour.png", again / "images/broken.png")
    code, out, err = segment(run_script, again, model)
    assert code == 0 and "in 32 images" in out, err
    mended, colour = files_of(output, BROKEN), files_of(output, "colour")
    assert mended["labels"].read_bytes() == colour["labels"].read_bytes()


def test_an_image_is_done_again_if_it_or_one_of_its_files_changed(again, model, run_script):
    output = again / "segmented"
    before = times(output)
    files_of(output, "grey")["rois"].unlink()
    shutil.copy(again / "images/tiny.png", again / "images/wide.png")
    assert segment(run_script, again, model)[0] == 1
    after = times(output)
    changed = {name for name, time in after.items() if before[name] != time}
    assert set(after) == set(before)
    assert {name.split("/")[-1].split(".")[0] for name in changed} == {"grey", "wide", BROKEN}


def test_an_image_that_broke_leaves_nothing_of_its_former_self(again, model, run_script):
    (again / "images/colour.png").write_bytes(b"")
    assert segment(run_script, again, model)[0] == 1
    output = again / "segmented"
    assert not any(path.exists() for path in files_of(output, "colour").values())
    assert "colour," not in (output / "cells.csv").read_text("utf-8")


def test_other_settings_need_force_and_then_replace_everything(again, model, run_script):
    output = again / "segmented"
    before = results(output)
    code, _, err = segment(run_script, again, model, "--flow_threshold", 0.1)
    assert code == 2 and "settings.flow_threshold is 0.4, not 0.1" in err
    assert results(output) == before
    assert segment(run_script, again, model, "--batch_size", 1)[0] == 1  # decides nothing
    few = again / "few"
    few.mkdir()
    shutil.copy(again / "images/colour.png", few)
    arguments = few, "--model", model, "--output", output, "--flow_threshold", 0.1, "--force"
    code, _, err = run_script("segment", *arguments)
    assert code == 0, err
    assert list(images_of(output)) == ["colour"]


def test_cells_are_those_of_eval_py(pieces, model, run_script, tmp_path):
    code, _, err = run_script(
        *("eval", "--test_dir", pieces / "valid", "--model_path", model),
        *("--output_dir", tmp_path / "scores", "--precision", "32", "--device", "cpu"),
    )
    assert code == 0, err
    arguments = ("--model", model, "--output", tmp_path / "out", "--precision", "32")
    code, _, err = run_script("segment", pieces / "valid", *arguments, "--device", "cpu")
    assert code == 0, err
    (name,) = images_of(tmp_path / "out")
    scored = read_image(tmp_path / f"scores/images/pred_{name}.png")
    assert np.array_equal(read_labels(files_of(tmp_path / "out", name)["labels"]), scored)
    assert scored.max() > 5


def test_what_the_user_says_of_pixels_and_channels_holds(corners, model, run_script, tmp_path):
    write_png(tmp_path / "images/x.png", corners[0])
    names = ("--channel-names", "a", "b", "c", "--pixel_size", 0.1)
    arguments = ("--model", model, "--output", tmp_path / "out", *names)
    code, _, err = run_script("segment", tmp_path / "images", *arguments)
    assert code == 0, err
    (row,) = images_of(tmp_path / "out").values()
    assert (row["channels"], row["pixel_size_um"]) == ("a; b; c", "0.1")


WRONG = {
    "no such folder": ("{t}/none", "none: no such file or folder"),
    "a folder without images": ("{t}/nothing", "nothing: no images, expected"),
    "no images named": ("", "give images"),
    "no model": ("{i} --model {t}/none", "none: no model there"),
    "a broken model": ("{i} --model {t}/bad", "bad: not weights"),
    "no such device": ("{i} --device tpu", "device 'tpu' is unknown"),
    "a diameter that no image fits": ("{i} --diameter 1", "images would be resized by"),
    "output in the images": ("{i} --output {i}/out", "lies in .*/images, which this run reads"),
    "output is a file": ("{i} --output {t}/bad", "bad: something else is there"),
    "output is another folder": ("{i} --output {t}/other", "other: something else is there"),
    "output below a file": ("{i} --output {t}/bad/out", "[Nn]ot a directory|cannot be written"),
    "shard 0": ("{i} --shard 0/2", "expected i/n with i from 1 to n, found '0/2'"),
    "a word": ("{i} --shard x", "expected i/n with i from 1 to n, found 'x'"),
    "shard 3 of 2": ("{i} --shard 3/2", "expected i/n with i from 1 to n, found '3/2'"),
    "merge of images": ("{i} --merge", "--merge joins what is in --output"),
    "nothing to merge": ("--merge", "out: no shard has ended there"),
    "axes": ("{i} --axes CZ", "axes 'CZ': expected one Y and one X"),
    "fields of a folder": ("{i} --fields x", "--fields chooses among the images of remote://"),
    "one name twice": ("{i} {t}/again/images", "a second image named|images of this name"),
    "a long name": ("{t}/long", "a name of more than 230 bytes"),
    "no batch": ("{i} --batch_images 0", "expected a whole number from 1 on, found '0'"),
    "no pixel size": ("{i} --pixel_size -1", "expected a number above 0, found '-1'"),
    "a wrong parameter": ("{i} --cellprob_threshold 9", "cellprob_threshold.*less than or equal"),
    "no scheduler": ("{i} --scheduler tcp://127.0.0.1:9", "no scheduler of Dask answers there"),
    "no address": ("{i} --scheduler nowhere", "no scheduler of Dask answers there"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    arguments, message, corners, model, run_script, tmp_path
):
    write_png(tmp_path / "images/x.png", corners[0])
    write_png(tmp_path / "again/images/x.png", corners[1])
    write_png(tmp_path / "long" / f"{'x' * 240}.png", corners[1])
    (tmp_path / "nothing").mkdir()
    (tmp_path / "bad").write_text("no weights")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    words = arguments.format(t=tmp_path, i=tmp_path / "images").split()
    for flag, value in (("--model", model), ("--output", tmp_path / "out")):
        words += [] if flag in words else [flag, str(value)]
    code, out, err = run_script("segment", *words)
    assert (code, out) == (2, "")
    *_, last = err.split("error: ")
    assert last.count("\n") == 1
    assert re.search(message, last), err
    assert sorted(tmp_path.rglob("*")) == before
