"""prepare_data.py puts every object where it belongs, or reports every fault and writes nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import tifffile
from helpers.annotations import ROOT, coloured, disc, on_frame, write_png

from cellular.imaging.fields import load_pairs, read_classes, read_excluded
from cellular.imaging.images import read_labels
from cellular.preparing import preparation
from cellular.preparing.preparation import (
    copy_corresponding_files,
    create_directory,
    load_mask_images,
)

TRAIN, VALID, TEST = "a_ST_D01_s1", "a_ST_I06_s1", "a_ST_C03_s1"


@pytest.fixture
def prepare(annotations, run_script):
    def run(*arguments):
        return run_script(
            "prepare_data",
            *("-i", annotations.masks, "-o", annotations.out, "-c", annotations.images),
            *arguments,
        )

    return run


def labels_of(annotations, class_name, split, field):
    return read_labels(annotations.out / class_name / split / f"{field}_masks.png")


def test_all_has_exactly_the_objects_of_the_classes_that_are_not_excluded(annotations, prepare):
    annotations.three_splits()
    code, out, _ = prepare()
    assert code == 0 and "train 1 fields, 11 cells" in out
    for split, field in (("train", TRAIN), ("valid", VALID), ("test", TEST)):
        labels = labels_of(annotations, "all", split, field)
        objects = [
            on_frame(item)
            for class_name in ("fed", "unfed")
            for item in load_mask_images(annotations.masks / field / class_name)
        ]
        assert labels.max() == len(objects) == 11
        for number, mask in enumerate(objects, start=1):
            assert ((labels == number) == mask).all()
        assert labels_of(annotations, "Unidentified", split, field).max() == 2
        for class_name in ("all", "fed", "unfed", "Unidentified"):
            copy = annotations.out / class_name / split / f"{field}.png"
            assert copy.read_bytes() == (annotations.images / f"{field}.png").read_bytes()


def test_classes_and_excluded_cells_are_written_beside_the_label_map(annotations, prepare):
    annotations.three_splits()
    # A later object hides one of fed completely, which then has neither label nor class.
    hidden = disc(12, 12)
    annotations.object(TEST, "fed", "cell_9", hidden)
    annotations.object(TEST, "unfed", "cell_9", hidden)
    assert prepare()[0] == 0
    folder = annotations.out / "all" / "test"
    (pair,) = load_pairs(folder)
    assert pair.field == TEST
    assert read_classes(pair) == ["fed"] * 5 + ["unfed"] * 6
    excluded = read_excluded(pair, read_labels(pair.labels))
    first, second = map(on_frame, load_mask_images(annotations.masks / TEST / "Unidentified"))
    assert (excluded == (first | second)).all()
    (pair,) = load_pairs(annotations.out / "unfed" / "test")
    assert set(read_classes(pair)) == {"unfed"} and pair.excluded is not None
    (pair,) = load_pairs(annotations.out / "Unidentified" / "test")
    assert pair.excluded is None


def test_label_maps_without_classes_have_neither(annotations, prepare):
    annotations.three_splits()
    for field in (TRAIN, VALID, TEST):
        shutil.rmtree(annotations.masks / field)
        tifffile.imwrite(annotations.masks / f"{field}.tif", disc(30, 30).astype(np.uint16))
    assert prepare()[0] == 0
    (pair,) = load_pairs(annotations.out / "all" / "test")
    assert read_classes(pair) is None and read_excluded(pair, read_labels(pair.labels)) is None


def test_the_user_chooses_the_excluded_classes(annotations, prepare):
    annotations.three_splits()
    assert prepare("--exclude", "FED", "unidentified")[0] == 0
    assert labels_of(annotations, "all", "test", TEST).max() == 5


def test_several_formats_hold_the_same_labels(annotations, prepare):
    annotations.three_splits()
    assert prepare("-f", "png", "tif")[0] == 0
    folder = annotations.out / "all" / "test"
    assert np.array_equal(
        read_labels(folder / f"{TEST}_masks.png"), tifffile.imread(folder / f"{TEST}_masks.tif")
    )


def test_numbers_follow_natural_order(annotations, prepare):
    annotations.three_splits()
    shutil.rmtree(annotations.masks / TEST)
    for number, x in ((10, 20), (9, 45), (1, 70)):
        annotations.object(TEST, "fed", f"cell_{number}", disc(40, x))
    prepare()
    labels = labels_of(annotations, "all", "test", TEST)
    assert [labels[40, x] for x in (70, 45, 20)] == [1, 2, 3]


def test_dropped_objects_are_counted_and_named(annotations, prepare):
    annotations.three_splits()
    annotations.object(TRAIN, "fed", "cell_0_small", disc(12, 12, 3))  # hidden by cell_1
    annotations.object(TRAIN, "unfed", "nothing", np.zeros((96, 96), bool))
    code, _, err = prepare("--report", annotations.folder / "report.json")
    assert code == 0
    report = json.loads((annotations.folder / "report.json").read_text())
    assert report["splits"]["all"]["train"] == {"fields": 1, "cells": 11}
    assert report["dropped"] == {
        "cells_excluded": 6,
        "cells_hidden": 1,
        "empty_mask_files": 1,
        "fields_without_cells": 0,
        "overlap_pixels": int(disc(12, 12, 3).sum()),
    }
    assert report["names"]["hidden"] == [f"{TRAIN}/fed/cell_0_small.png"]
    assert report["names"]["empty"] == [f"{TRAIN}/unfed/nothing.png"]
    assert "nothing.png" in err and "cell_0_small.png" in err
    assert labels_of(annotations, "all", "train", TRAIN).max() == 11


def test_label_maps_of_whole_fields_are_renumbered(annotations, prepare):
    for field in (TRAIN, VALID, TEST):
        annotations.image(field)
        labels = disc(20, 20) * 7 + disc(60, 60) * 300
        tifffile.imwrite(annotations.masks / f"{field}.tif", labels.astype(np.uint32))
    assert prepare()[0] == 0
    labels = labels_of(annotations, "all", "valid", VALID)
    assert (labels == disc(20, 20) * 1 + disc(60, 60) * 2).all()


def test_a_field_of_excluded_cells_only_is_reported(annotations, prepare):
    annotations.three_splits()
    annotations.field("b_ST_D01_s1", Unidentified=2)
    code, _, err = prepare("--report", annotations.folder / "report.json")
    assert code == 0 and "b_ST_D01_s1: only excluded classes" in err
    report = json.loads((annotations.folder / "report.json").read_text())
    assert report["names"]["without_cells"] == ["b_ST_D01_s1"]


@pytest.mark.parametrize("name", sorted({*preparation.__all__} - {"process_masks"}))
def test_preparing_calls_the_functions_that_the_authors_script_has(
    annotations, prepare, monkeypatch, name
):
    annotations.three_splits()
    calls = []
    function = getattr(preparation, name)

    def counted(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs)

    monkeypatch.setattr(preparation, name, counted)
    assert prepare()[0] == 0 and calls


def test_fields_are_split_by_wells_and_the_report_tells_them(annotations, prepare):
    for well in ("C03", "C05", "C10", "I06"):
        annotations.field(f"Timepoint_001_220518-ST_{well}_s1", fed=6)
    split = ("--split_by", "well", "--test_groups", "I06", "C05")
    assert prepare(*split)[0] == 0
    report = json.loads((annotations.out / "prepare.json").read_text())
    plate = "220518-ST"
    wells = {"train": ["C10"], "valid": ["C03"], "test": ["C05", "I06"]}
    assert report["groups"] == {
        name: [f"{plate} {well}" for well in of] for name, of in wells.items()
    }
    for name, of in wells.items():
        fields = [pair.field for pair in load_pairs(annotations.out / "all" / name)]
        assert fields == [f"Timepoint_001_{plate}_{well}_s1" for well in of]
    code, _, err = prepare(*split, "C10", "--valid_groups", "C03", "--force")
    assert code == 2 and "split train stays empty: no field is left for it; change --test_g" in err


def test_names_that_do_not_tell_the_well_are_refused(annotations, prepare):
    annotations.three_splits()
    code, _, err = prepare("--split_by", "well", "--test_groups", "C03")
    assert code == 2 and "3 faults in the split by well" in err and not annotations.out.exists()


def test_two_runs_give_the_same_bytes(annotations, prepare):
    annotations.three_splits()

    def content():
        assert prepare("--force", "-f", "png", "tif")[0] == 0
        files = sorted(path for path in annotations.out.rglob("*") if path.is_file())
        return [(path, path.read_bytes()) for path in files]

    assert content() == content()


# --- bad input: one message, code 2, nothing written ---------------------------------------------


def spoil_missing_masks(a):
    shutil.rmtree(a.masks)
    return "no such folder of masks"


def spoil_missing_images(a):
    shutil.rmtree(a.images)
    return "no such folder of images"


def spoil_no_image(a):
    (a.images / f"{TEST}.png").rename(a.images / f"{TEST}0.png")  # ..._s10
    return f"{TEST}: no image in "


def spoil_no_masks(a):
    a.image("b_ST_D01_s1")
    return "b_ST_D01_s1.png: no masks for this image"


def spoil_cut_mask(a):
    path = a.masks / TEST / "fed" / "cell_3.png"
    path.write_bytes(path.read_bytes()[:-40])
    return "cell_3.png: no readable image, or cut short"


def spoil_cut_image(a):
    path = a.images / f"{TEST}.png"
    path.write_bytes(path.read_bytes()[:-400])
    return f"{TEST}.png: no readable image, or cut short"


def spoil_mask_size(a):
    write_png(a.masks / TEST / "fed" / "cell_3.png", coloured(disc(20, 20, 8, 64)))
    return "cell_3.png: 64 x 64 pixels, but"


def spoil_image_size(a):
    a.image(TEST, side=64)
    return f"but {a.images / TEST}.png has 64 x 64"


def spoil_no_objects(a):
    shutil.rmtree(a.masks / TEST / "fed")
    for path in (a.masks / TEST).rglob("*.png"):
        write_png(path, coloured(disc(0, 0) & False))
    return f"{TEST}: a field without objects"


def spoil_no_files(a):
    for path in (a.masks / TEST).rglob("*.png"):
        path.unlink()
    return f"{TEST}: no object in it, expected <class>/<name>.png"


def spoil_many_objects(a):
    shutil.rmtree(a.masks / TEST)
    write_png(a.images / f"{TEST}.png", np.zeros((300, 300), np.uint8))
    labels = np.arange(90_000, dtype=np.uint32).reshape(300, 300)
    tifffile.imwrite(a.masks / f"{TEST}.tif", labels)
    return "89,999 objects, at most 65,535"


def spoil_split(a):
    shutil.rmtree(a.masks / VALID)
    (a.images / f"{VALID}.png").unlink()
    return "split valid stays empty: no field has 'ST_I06'"


def spoil_binary(a):
    shutil.rmtree(a.masks / TEST)
    both = (disc(20, 20) | disc(60, 60)).astype(np.uint8) * 255
    tifffile.imwrite(a.masks / f"{TEST}.tif", both)
    return f"{TEST}.tif: a binary mask of cells and background"


def spoil_two_splits(a):
    a.field("b_ST_C03_ST_I06", fed=1)
    return "b_ST_C03_ST_I06: matches the validation pattern"


def spoil_existing_output(a):
    a.out.mkdir()
    (a.out / "mine.txt").write_text("precious")
    return "exists already"


def spoil_two_places(a):
    tifffile.imwrite(a.masks / f"{TEST}.tif", np.ones((96, 96), np.uint8))
    return "masks of one field in two places"


def spoil_reserved_class(a):
    a.object(TEST, "all", "cell_1", disc(20, 20))
    return "the name 'all' is taken"


def spoil_classes(a):
    shutil.rmtree(a.masks / TEST)
    labels = disc(20, 20) * 1 + disc(60, 60) * 1 + disc(20, 60) * 2 + disc(60, 20) * 2
    tifffile.imwrite(a.masks / f"{TEST}.tif", labels.astype(np.uint8))
    return f"{TEST}.tif: a mask of classes (2 of its 2 numbers"


def spoil_nan(a):
    (a.images / f"{TEST}.png").unlink()
    image = np.ones((96, 96), np.float32)
    image[0, 0] = np.nan
    tifffile.imwrite(a.images / f"{TEST}.tif", image)
    return f"{TEST}.tif: 1 of 9,216 values are NaN, infinite"


def spoil_stack(a):
    (a.images / f"{TEST}.png").unlink()
    tifffile.imwrite(
        a.images / f"{TEST}.tif",
        np.ones((3, 96, 96), np.uint8),
        imagej=True,
        metadata={"axes": "TYX"},
    )
    return f"{TEST}.tif: a stack of 3 time points (axis T)"


def spoil_narrow(a):
    shutil.rmtree(a.masks / TEST)
    write_png(a.images / f"{TEST}.png", np.zeros((3, 40_000), np.uint8))
    tifffile.imwrite(a.masks / f"{TEST}.tif", np.ones((3, 40_000), np.uint8))
    return f"{TEST}.png: 40000 x 3 pixels, expected at least 10 a side"


def spoil_opacity(a):
    image = np.dstack([coloured(disc(20, 20) & False), disc(20, 20) * np.uint8(255)])
    assert cv2.imwrite(str(a.masks / TEST / "fed" / "cell_3.png"), image)
    return "cell_3.png: the object is drawn in opacity"


def spoil_excluded(a):
    for field in (TRAIN, VALID, TEST):
        for name in ("fed", "unfed"):
            shutil.rmtree(a.masks / field / name)
    return (
        "split train stays empty: all cells of its fields are of the excluded classes Unidentified"
    )


SPOILS = [value for name, value in sorted(globals().items()) if name.startswith("spoil_")]


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__[6:])
def test_bad_input_gets_one_clear_error_and_leaves_nothing(annotations, prepare, spoil):
    annotations.three_splits()
    message = spoil(annotations)
    before = sorted(annotations.out.rglob("*")) if annotations.out.exists() else None
    code, out, err = prepare()
    assert (code, out) == (2, "")
    assert err.count("error: ") == 1 and message in err
    after = sorted(annotations.out.rglob("*")) if annotations.out.exists() else None
    assert after == before
    assert not list(annotations.folder.glob(".*partial"))


def test_all_faults_are_reported_at_once(annotations, prepare):
    annotations.three_splits()
    message = [spoil_cut_mask(annotations), spoil_no_masks(annotations)]
    annotations.image(TRAIN, side=64)
    code, _, err = prepare()
    assert code == 2 and "3 faults" in err
    assert all(fault in err for fault in [*message, "has 64 x 64"])


def test_force_replaces_an_output_but_a_fault_keeps_the_old_one(annotations, prepare):
    annotations.three_splits()
    assert prepare()[0] == 0
    kept = labels_of(annotations, "all", "test", TEST)
    path = annotations.masks / TEST / "fed" / "cell_3.png"
    content = path.read_bytes()
    path.write_bytes(content[:-40])
    assert prepare("--force")[0] == 2
    assert np.array_equal(labels_of(annotations, "all", "test", TEST), kept)
    path.write_bytes(content)
    path.rename(path.with_name("cell_99.png"))
    assert prepare("--force")[0] == 0
    assert not np.array_equal(labels_of(annotations, "all", "test", TEST), kept)


def test_unannotated_images_can_be_left_out(annotations, prepare):
    annotations.three_splits()
    annotations.image("b_ST_D01_s1")
    assert prepare("--skip_unannotated")[0] == 0
    assert not list(annotations.out.rglob("b_ST_D01_s1*"))


def test_an_image_is_copied_under_its_own_name_only(annotations, tmp_path):
    annotations.image("f_s10")
    annotations.image("f_s1")
    copied = copy_corresponding_files(annotations.images, create_directory(tmp_path / "x"), "f_s1")
    assert copied.name == "f_s1.png" and len(list((tmp_path / "x").iterdir())) == 1


@pytest.mark.parametrize(
    "outputs",
    [
        *(("-o", "."), ("-o", ".."), ("-o", "masks"), ("-o", "masks/out"), ("-o", "images/a/b")),
        *(("--flows_dir", "out"), ("--flows_dir", "out/flows"), ("--flows_dir", "masks/flows")),
        *(("--report", "out"), ("--report", "masks/report.json"), ("--report", "out/mine.json")),
    ],
    ids="-".join,
)
def test_an_output_that_is_holds_or_lies_in_an_input_or_another_output_is_refused(
    annotations, prepare, monkeypatch, outputs
):
    annotations.three_splits()
    monkeypatch.chdir(annotations.folder)
    before = sorted(annotations.folder.rglob("*"))
    code, _, err = prepare("--force", *outputs)
    assert code == 2 and "would be lost" in err
    assert sorted(annotations.folder.rglob("*")) == before


def test_a_test_field_that_is_too_small_to_train_on_is_still_a_test_field(annotations, prepare):
    annotations.three_splits()
    shutil.rmtree(annotations.masks / TEST)
    annotations.image(TEST, side=10)
    annotations.object(TEST, "fed", "cell_1", disc(5, 5, 2, side=10))
    flows = annotations.folder / "flows"
    code, _, err = prepare("--flows_dir", flows, "--cell_diameter", 5)
    assert code == 0, err
    assert labels_of(annotations, "all", "test", TEST).shape == (10, 10)
    assert (flows / "test" / f"{TEST}_flows.npy").is_file()


def test_without_flows_there_is_neither_label_map_nor_report(annotations, prepare):
    annotations.three_splits()
    shutil.rmtree(annotations.masks / VALID)
    annotations.image(VALID, side=20)
    annotations.object(VALID, "fed", "cell_1", disc(10, 10, 8, side=20))
    flows, report = annotations.folder / "flows", annotations.folder / "report.json"
    arguments = ("--flows_dir", flows, "--report", report)
    before = sorted(annotations.folder.rglob("*"))
    code, _, err = prepare(*arguments, "--cell_diameter", 5)
    assert code == 2 and f"{VALID}: 6 x 6 pixels at the size that cell_diameter asks for" in err
    assert sorted(annotations.folder.rglob("*")) == before
    assert prepare(*arguments)[0] == 0
    assert flows.is_dir() and report.is_file()


@pytest.mark.slow
def test_a_kill_while_flows_are_computed_leaves_no_output_and_the_next_run_goes(
    annotations, prepare
):
    annotations.three_splits()
    flows, report = annotations.folder / "flows", annotations.folder / "report.json"
    arguments = ("--flows_dir", flows, "--report", report)
    begun = annotations.folder / ".flows.partial" / "flows" / "train"
    running = subprocess.Popen(
        [
            *(sys.executable, ROOT / "src" / "prepare_data.py", "-i", annotations.masks),
            *("-o", annotations.out, "-c", annotations.images, *arguments),
        ],
        stderr=subprocess.DEVNULL,
    )
    while not begun.exists() and running.poll() is None:
        time.sleep(0.001)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert not any(path.exists() for path in (annotations.out, flows, report))
    assert prepare(*arguments)[0] == 0
    assert not list(annotations.folder.glob(".*partial"))


def test_a_report_that_exists_is_not_overwritten(annotations, prepare):
    annotations.three_splits()
    report = annotations.folder / "report.json"
    report.write_text("mine")
    assert prepare("--report", report)[0] == 2
    assert report.read_text() == "mine" and not annotations.out.exists()


def unusable_files(a):
    """Put what no layout has a place for into the folders, and return the paths."""
    field, fed = a.masks / TEST, a.masks / TEST / "fed"
    shutil.copytree(field / "unfed", fed / "deeper")
    (fed / "folder.png").mkdir()
    (fed / "gone.png").symlink_to("nowhere")
    (fed / "circle.png").symlink_to("circle.png")
    mask = coloured(disc(20, 20))
    files = [fed / "cell.bmp", fed / ".cell.png", fed / "cell.jpg", field / "beside.png"]
    files += [a.masks / "b_ST_D01_s1.bmp", a.images / "b_ST_D01_s1.bmp", a.images / ".x.png"]
    for path in files:
        assert cv2.imwrite(str(path), mask)
    shutil.copyfile(fed / "cell_1.png", fed / "cell_without_suffix")
    return [
        *(fed / name for name in ("deeper", "folder.png", "gone.png", "circle.png")),
        *files,
        fed / "cell_without_suffix",
    ]


def test_whatever_is_not_used_is_named_and_left_out_only_if_asked(annotations, prepare):
    annotations.three_splits()
    (annotations.masks / TEST / "fed" / ".DS_Store").touch()  # by the system, not by the user
    paths = unusable_files(annotations)
    code, _, err = prepare()
    assert code == 2 and f"{len(paths)} faults" in err
    assert "cell.jpg: not used, expected <name>.png or .tif (not .jpg, which changes" in err
    assert all(f"{path}: not used, expected" in err for path in paths)
    assert not annotations.out.exists()
    code, out, err = prepare("--skip_unused")
    assert code == 0 and "test 1 fields, 11 cells" in out
    assert all(f"{path}: not used" in err for path in paths)


def test_a_class_folder_may_be_a_link(annotations, prepare):
    annotations.three_splits()
    fed = annotations.masks / TEST / "fed"
    fed.rename(annotations.folder / "elsewhere")
    fed.symlink_to(annotations.folder / "elsewhere")
    assert "test 1 fields, 11 cells" in prepare()[1]


def test_classes_may_all_be_kept(annotations, prepare):
    annotations.three_splits()
    params = annotations.folder / "params.yaml"
    params.write_text("prepare: {exclude: []}")
    code, out, err = prepare("--params", params)
    assert code == 0 and "train 1 fields, 13 cells" in out, err


@pytest.mark.parametrize(
    "channels", [("--channels", 3, 1), ("--channels", 0, 0, "--channels", 2, 3)]
)
def test_channels_that_an_image_lacks_are_told_before_any_training(annotations, prepare, channels):
    annotations.three_splits()
    for field, shape in ((VALID, (96, 96)), (TEST, (96, 96, 2))):
        (annotations.images / f"{field}.png").unlink()
        image = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
        tifffile.imwrite(annotations.images / f"{field}.tif", image)
    code, _, err = prepare(*channels)
    assert code == 2 and f"{TEST}.tif: an image of 2 channels, without the channel 3" in err
    assert VALID not in err  # grey is seen in grey, whatever the channels
    assert "choose among 0 (grey) to 2" in err
    assert prepare("--channels", 0, 3)[0] == 0  # of grey there is no second channel


def test_a_class_needs_cells_in_the_test_fields_too(annotations, prepare):
    annotations.three_splits()
    annotations.object(TRAIN, "rare", "x", disc(80, 80))
    annotations.object(VALID, "rare", "x", disc(80, 80))
    code, _, err = prepare("--class_name", "rare")
    assert code == 2 and "no cell of the class 'rare' in the test split" in err


def test_a_channel_of_one_value_is_told_and_reported(annotations, prepare):
    annotations.three_splits()
    for field in (TRAIN, VALID, TEST):
        image = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
        image[..., 1:] = 255
        write_png(annotations.images / f"{field}.png", image)
    code, _, err = prepare("--channels", 1, 3)
    assert code == 0 and "channel 3 has one value only in 3 of 3 fields" in err
    report = json.loads((annotations.out / "prepare.json").read_text())
    assert report["names"]["blank_channels"] == [f"{field}: 3" for field in (TEST, TRAIN, VALID)]
