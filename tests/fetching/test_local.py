"""A folder of one's own becomes what prepare expects, in each layout, or is one clear error."""

import json
import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from cellpose.io import masks_flows_to_seg
from helpers.annotations import coloured, disc, write_png
from hypothesis import given, settings
from hypothesis import strategies as st

from cellular.base.errors import InputError
from cellular.base.files import REPOSITORY
from cellular.fetching.datasets import fetch_dataset
from cellular.fetching.local import read_seg, recognise
from cellular.fetching.params import DataParams
from cellular.fetching.sources import catalogue
from cellular.imaging.images import read_labels
from cellular.preparing.params import PrepareParams
from cellular.preparing.preparation import process_masks

LABELS = (disc(20, 20) * 1 + disc(60, 60) * 2).astype(np.uint16)

IMAGES = {
    "grey.png": np.full((96, 96), 7, np.uint8),
    "grey.tif": np.full((96, 96), 700, np.uint16),
    "colour.jpg": np.full((96, 96, 3), 7, np.uint8),
    "two.tif": np.full((2, 96, 96), 700, np.uint16),
    "first.tif": np.full((3, 96, 96), 700, np.uint16),
}


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, image, photometric="minisblack", **options)
    else:
        assert cv2.imwrite(str(path), image)


def as_paper(folder, field, image, suffix):
    save(folder / "images" / f"{field}{suffix}", image)
    for number, mask in enumerate((LABELS == 1, LABELS == 2)):
        write_png(folder / "masks" / field / "fed" / f"{number}.png", coloured(mask))


def as_labels(folder, field, image, suffix):
    save(folder / "images" / f"{field}{suffix}", image)
    save(folder / "masks" / f"{field}.tif", LABELS, compression="lzw")


def as_cellpose(folder, field, image, suffix):
    save(folder / f"{field}{suffix}", image)
    save(folder / f"{field}_masks.png", LABELS)


def as_cellpose_img(folder, field, image, suffix):
    save(folder / f"{field}_img{suffix}", image)
    save(folder / f"{field}_masks.tif", LABELS)
    save(folder / f"{field}_flows.tif", np.zeros((96, 96), np.float32))


def as_seg(folder, field, image, suffix):
    save(folder / f"{field}{suffix}", image)
    flows = [np.zeros((96, 96, 3), np.uint8), np.zeros((2, 96, 96)), np.zeros((96, 96))]
    masks_flows_to_seg(image, LABELS, [*flows, np.zeros(0)], str(folder / f"{field}{suffix}"))


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("write", [as_paper, as_labels, as_cellpose, as_cellpose_img, as_seg])
def test_layouts_are_recognised_and_prepared(tmp_path, write, name):
    folder, raw = tmp_path / "mine", tmp_path / "raw"
    for field in ("a_x", "b_valid", "c_test"):
        write(folder, field, IMAGES[name], f".{name.split('.')[1]}")
    fetch_dataset("local", raw, DataParams(path=str(folder)))
    params = PrepareParams(val_pattern="valid", test_pattern="test")
    report = process_masks(raw / "masks", tmp_path / "out", raw / "images", params)
    assert [of["cells"] for of in report["splits"]["all"].values()] == [2, 2, 2]
    labels = read_labels(tmp_path / "out" / "all" / "test" / "c_test_masks.png")
    assert np.array_equal(labels, LABELS)


def binary(folder):
    as_cellpose(folder, "x", IMAGES["grey.png"], ".png")
    save(folder / "x_masks.png", (LABELS > 0).astype(np.uint8) * 255)
    return r"x_masks\.png: a binary mask of cells and background \(only the value 255\)"


def alone(folder):
    as_cellpose(folder, "x", IMAGES["grey.png"], ".png")
    save(folder / "y.png", IMAGES["grey.png"])
    return r"y\.png: no masks beside it"


def two_images(folder):
    as_cellpose(folder, "x", IMAGES["grey.png"], ".png")
    save(folder / "x_img.tif", IMAGES["grey.tif"])
    return r"x\.png and .*x_img\.tif: 2 files of one field"


def two_masks(folder):
    as_labels(folder, "x", IMAGES["grey.png"], ".png")
    save(folder / "masks" / "x_masks.png", LABELS)
    return r"x\.tif and .*x_masks\.png: 2 files of one field"


def nothing_known(folder):
    save(folder / "y.png", IMAGES["grey.png"])
    return "no layout that is known; name one with data.layout"


def two_layouts(folder):
    as_cellpose(folder, "x", IMAGES["grey.png"], ".png")
    as_seg(folder, "x", IMAGES["grey.png"], ".png")
    return r"files in several layouts \(cellpose, seg\)"


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil_was_run",)


def evil_seg(folder):
    as_seg(folder, "x", IMAGES["grey.png"], ".png")
    np.save(folder / "x_seg.npy", np.array({"masks": Evil()}, object))
    assert b"system" in pickle.dumps(Evil())
    return r"x_seg\.npy: .*system, which is not run"


def seg(folder, masks):
    save(folder / "x.png", IMAGES["grey.png"])
    np.save(folder / "x_seg.npy", {"masks": masks})
    return folder / "x_seg.npy"


def negative_seg(folder):
    seg(folder, LABELS.astype(np.int32) - 1)
    return r"x_seg\.npy: holds -1, expected labels from 0 on"


def empty_seg(folder):
    seg(folder, LABELS * 0)
    return r"x_seg\.npy: no object in it"


def objects_seg(folder):
    seg(folder, LABELS.astype(object))
    return r"x_seg\.npy: .*its masks are of the type O8"


def huge_seg(folder):
    path = seg(folder, LABELS)
    content = path.read_bytes()
    size, bigger = b"K\x60K\x60\x86", b"K\xffK\xff\x86"  # 96 x 96 and 255 x 255
    assert content.count(size) == 1
    path.write_bytes(content.replace(size, bigger))
    return r"x_seg\.npy: .*it has 9,216 values for masks of shape \(255, 255\)"


def jpeg_masks(folder):
    as_labels(folder, "x", IMAGES["grey.png"], ".png")
    save(folder / "masks" / "y.jpg", LABELS.astype(np.uint8))
    return r"masks/y\.jpg: not used, expected <field>\.png or \.tif .*; move it elsewhere"


def hidden_image(folder):
    as_paper(folder, "x", IMAGES["grey.png"], ".png")
    save(folder / "images" / ".y.png", IMAGES["grey.png"])
    return r"images/\.y\.png: not used"


def other_picture(folder):
    as_cellpose(folder, "x", IMAGES["grey.png"], ".png")
    save(folder / "y.bmp", IMAGES["grey.png"])
    return r"y\.bmp: not used; move it elsewhere"


def broken_link(folder):
    as_paper(folder, "x", IMAGES["grey.png"], ".png")
    (folder / "masks" / "x" / "fed" / "2.png").symlink_to("nowhere")
    return r"fed/2\.png: not used"


def cut_seg(folder):
    as_seg(folder, "x", IMAGES["grey.png"], ".png")
    path = folder / "x_seg.npy"
    path.write_bytes(path.read_bytes()[:-1000])
    return r"x_seg\.npy: the masks of Cellpose's GUI cannot be read"


@pytest.mark.parametrize(
    "spoil",
    [
        *(binary, alone, two_images, two_masks, nothing_known, two_layouts, jpeg_masks),
        *(hidden_image, other_picture, broken_link, evil_seg, cut_seg, negative_seg, empty_seg),
        *(objects_seg, huge_seg),
    ],
)
def test_unusable_data_is_an_error(tmp_path, spoil, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine"
    message = spoil(folder)
    with pytest.raises(InputError, match=message):
        fetch_dataset("local", tmp_path / "raw", DataParams(path=str(folder)))
    assert not (tmp_path / "raw").exists() and not (tmp_path / "evil_was_run").exists()


@pytest.mark.parametrize("layout", ["paper", "labels", "cellpose", "seg"])
@pytest.mark.parametrize("write", [as_paper, as_labels, as_cellpose, as_seg])
def test_a_layout_that_is_named_must_fit(tmp_path, write, layout):
    folder = tmp_path / "mine"
    write(folder, "x", IMAGES["grey.png"], ".png")
    named = DataParams(path=str(folder), layout=layout)
    if write.__name__ == f"as_{layout}" or (write, layout) == (as_labels, "paper"):
        assert fetch_dataset("local", tmp_path / "raw", named)["images"] == 1
    else:
        with pytest.raises(InputError):
            fetch_dataset("local", tmp_path / "raw", named)
        assert not (tmp_path / "raw").exists()


def test_a_class_folder_that_is_a_link_is_followed(tmp_path):
    as_paper(tmp_path / "mine", "x", IMAGES["grey.png"], ".png")
    fed = tmp_path / "mine" / "masks" / "x" / "fed"
    fed.rename(tmp_path / "elsewhere")
    fed.symlink_to(tmp_path / "elsewhere")
    assert fetch_dataset("local", tmp_path / "raw", DataParams(path=str(tmp_path / "mine"))) == {
        "images": 1,
        "masks": 2,
    }


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_numbers_of_cells_above_32_bits_do_not_wrap(tmp_path, dtype):
    folder = tmp_path / "mine"
    seg(folder, LABELS.astype(dtype) * 2**32)
    fetch_dataset("local", tmp_path / "raw", DataParams(path=str(folder)))
    assert np.array_equal(read_labels(tmp_path / "raw" / "masks" / "x.tif"), LABELS)


@settings(max_examples=200)
@given(st.data())
def test_changed_bytes_of_a_seg_file_are_an_error_or_labels(tmp_path_factory, data):
    path = seg(tmp_path_factory.mktemp("seg"), LABELS)
    content = bytearray(path.read_bytes())
    places = st.integers(0, 400) | st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.none() | st.integers(0, len(content)))])
    try:
        assert read_seg(path).ndim == 2
    except InputError as error:
        assert str(error).startswith(str(path))


def test_a_single_cell_is_not_taken_for_a_binary_mask(tmp_path):
    save(tmp_path / "mine" / "x.png", IMAGES["grey.png"])
    save(tmp_path / "mine" / "x_masks.png", (LABELS == 1).astype(np.uint8))
    assert recognise(tmp_path / "mine") == "cellpose"
    fetch_dataset("local", tmp_path / "raw", DataParams(path=str(tmp_path / "mine")))


def test_local_needs_a_path(tmp_path):
    with pytest.raises(InputError, match=r"needs data\.path"):
        fetch_dataset("local", tmp_path / "raw")


@pytest.mark.parametrize("variable", ["DVC_ROOT", REPOSITORY])  # DVC's copies, and the grid's
def test_a_relative_path_starts_at_the_root_of_the_repository(variable, tmp_path, monkeypatch):
    if variable == REPOSITORY:
        monkeypatch.setenv("DVC_ROOT", str(tmp_path / "clone"))  # DVC sets it in every stage
    monkeypatch.setenv(variable, str(tmp_path / "repository"))
    local = DataParams(path="mine")
    with pytest.raises(InputError) as error:
        fetch_dataset("local", tmp_path / "raw", local)
    assert f"data.path 'mine': there is no folder {tmp_path}/repository/mine" in str(error.value)
    assert "a relative path starts at the repository's root" in str(error.value)
    as_cellpose(tmp_path / "repository" / "mine", "x", IMAGES["grey.png"], ".png")
    assert fetch_dataset("local", tmp_path / "raw", local) == {"images": 1, "masks": 1}
    with pytest.raises(InputError, match="would be lost"):
        fetch_dataset("local", tmp_path / "repository", local, force=True)


@pytest.mark.slow
def test_real_images_named_as_cellpose_does_go_through_all_stages(run_script, pretrained, tmp_path):
    """Drosophila Kc167 cells of the scellseg archive: prepared, trained on, and scored."""
    import tarfile

    from cellular.fetching.downloads import fetch

    archive = fetch("scellseg", catalogue().files["scellseg"], Path.stat)
    folder = tmp_path / "kc167"
    folder.mkdir()
    with tarfile.open(archive) as opened:
        for member in opened.getmembers():
            if "/contrast_data/Kc167/" in member.name and member.isfile():
                (folder / member.name.rsplit("/", 1)[1]).write_bytes(
                    opened.extractfile(member).read()
                )
    raw, prepared = tmp_path / "raw", tmp_path / "prepared"
    assert (
        run_script("fetch_data", "--dataset", "local", "--path", folder, "--output_dir", raw)[0]
        == 0
    )
    code, out, err = run_script(
        *("prepare_data", "-i", raw / "masks", "-c", raw / "images", "-o", prepared),
        *("-v", "102", "-t", "103"),
    )
    assert code == 0 and "train 3 fields" in out, err
    code, _, err = run_script(
        *("train", "--train_dir", prepared / "all/train", "--valid_dir", prepared / "all/valid"),
        *("--experiments_dir", tmp_path, "--experiment_name", "kc167", "--model_type", pretrained),
        *("--n_epochs", 2, "--crop_size", 112, "--learning_rate", "1e-3", "--cell_diameter", 30),
    )
    assert code == 0, err
    code, out, err = run_script(
        *("eval", "--test_dir", prepared / "all/test", "--output_dir", tmp_path / "scores"),
        *("--model_path", tmp_path / "kc167/models/kc167"),
    )
    assert code == 0 and "AP@0.5" in out, err
    scores = json.loads((tmp_path / "scores/test_eval.json").read_text())
    assert scores["objects"]["average_precision"]["0.5"] > 0.3
