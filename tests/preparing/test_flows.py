"""Flows are Cellpose's own, stored as int8, and opened without reading them."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from cellpose.dynamics import labels_to_flows
from cellpose.transforms import convert_image, normalize_img
from cellpose.utils import diameters
from helpers.annotations import disc
from hypothesis import given, settings
from hypothesis import strategies as st

from cellular.base.errors import InputError
from cellular.imaging.fields import SPLITS, check_pairs, load_pairs, read_pair
from cellular.imaging.trainingset import (
    check_source,
    fingerprint,
    make_field,
    open_fields,
    percentiles,
)
from cellular.preparing.flows import (
    CPU,
    _save,
    _warn_of_large_cells,
    annotated,
    shrunk,
    write_sets,
)


def sets(pieces, folder, *, cell_diameter):
    write_sets(
        {split: pieces / split for split in ("train", "valid")},
        folder / "flows",
        cell_diameter=cell_diameter,
    )
    return folder / "flows"


def test_stored_fields_are_what_cellpose_computes_to_the_precision_of_int8(pieces, tmp_path):
    folder = sets(pieces, tmp_path, cell_diameter=None)
    pairs = load_pairs(pieces / "train")
    for field, pair in zip(open_fields(folder / "train", [2, 3]), pairs, strict=True):
        image, labels = read_pair(pair)
        everything = (slice(None), slice(None))
        expected = normalize_img(convert_image(image, [2, 3]).transpose(2, 0, 1), axis=0)
        assert np.array_equal(field.image_at(everything), expected)
        exact = labels_to_flows([labels.copy()], device=CPU)[0][1:]
        assert np.array_equal(field.flows_at(everything)[0], exact[0])
        assert np.abs(field.flows_at(everything) - exact).max() <= 0.5 / 127 + 1e-6
        assert (field.cells, field.scale) == (labels.max(), 1.0)
        assert field.diameter == diameters(labels)[0]
        assert isinstance(field.flows, np.memmap) and field.flows.dtype == np.int8


def test_shrunk_fields_have_the_networks_diameter(pieces, tmp_path):
    folder = sets(pieces, tmp_path, cell_diameter=30)
    fields = {split: open_fields(folder / split, [0, 0]) for split in ("train", "valid")}
    assert np.mean([field.diameter for field in fields["train"]]) == pytest.approx(30)
    factors = {field.scale for group in fields.values() for field in group}
    assert len(factors) == 1  # that of the training fields
    pair = load_pairs(pieces / "valid")[0]
    (field,) = fields["valid"]
    side = round(320 * factors.pop())
    assert field.shape == (side, side) and field.image.shape == (3, side, side)
    # The percentiles are those of the image before it was shrunk.
    assert field.limits[0] == percentiles(read_pair(pair)[0].transpose(2, 0, 1))[0]


@settings(max_examples=30)
@given(st.integers(40, 90), st.integers(40, 90), st.floats(0.3, 1.0), st.integers(1, 3))
def test_shrinking_keeps_cells_and_channels(height, width, factor, channels):
    labels = np.zeros((height, width), np.uint16)
    labels[5:25, 5:25], labels[10:35, 28:38] = 1, 2
    random = np.random.default_rng(height)
    image = random.integers(0, 255, (height, width, channels), np.uint8)
    small = shrunk(annotated(image, labels), factor)
    assert small.image.shape == (channels, round(height * factor), round(width * factor))
    assert small.labels.shape == small.image.shape[1:]
    assert set(np.unique(small.labels)) == {0, 1, 2}
    assert small.diameter == pytest.approx(annotated(image, labels).diameter * factor)


@pytest.mark.parametrize(("channels", "seen"), [([0, 0], 1), ([1, 0], 1), ([1, 2], 2)])
def test_a_flat_channel_is_zero(channels, seen):
    image = np.zeros((2, 8, 8), np.uint8)
    image[0] = np.arange(64).reshape(8, 8)
    flows = np.zeros((3, 8, 8), np.float32)
    field = make_field(
        "f", image, flows, flows[0], percentiles(image), channels, cells=1, diameter=30.0
    )
    shown = field.image_at((slice(None), slice(None)))
    assert shown.shape == (2, 8, 8) and shown[0].any() and not shown[1].any()


def test_a_channel_that_the_image_does_not_have_is_an_error():
    image = np.zeros((2, 8, 8), np.uint8)
    with pytest.raises(InputError, match=r"channel 3 of channels \[3, 1\] is not in its image"):
        make_field("f", image, image, image[0], percentiles(image), [3, 1], cells=1, diameter=30.0)


def test_the_same_fields_give_the_same_bytes(pieces, tmp_path):
    first, second = (sets(pieces, tmp_path / name, cell_diameter=30) for name in "ab")
    for path in sorted(first.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()
    assert fingerprint(first / "train") == fingerprint(second / "train")
    assert fingerprint(first / "train") != fingerprint(first / "valid")


def test_flows_of_other_files_are_refused_by_name(pieces, tmp_path):
    folder = sets(pieces, tmp_path, cell_diameter=30)
    check_source(folder / "train", check_pairs(pieces / "train"))
    with pytest.raises(InputError, match=r"Timepoint_004_220518-ST_C03_s3_0: not in .*again"):
        check_source(folder / "train", load_pairs(pieces / "valid"))
    index = folder / "valid" / "fields.json"
    content = json.loads(index.read_text())
    content["fields"][0]["source"]["labels"] = "0" * 64
    index.write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"computed from another image or label map; write the flows"
    ):
        check_source(folder / "valid", load_pairs(pieces / "valid"))


def test_a_full_disk_is_told_as_such(tmp_path):
    array = np.arange(6).reshape(2, 3)
    _save(tmp_path / "x.npy", array)
    assert np.array_equal(np.load(tmp_path / "x.npy"), array)
    with pytest.raises(OSError) as error:
        _save(Path("/dev/full"), array)
    assert error.value.errno == errno.ENOSPC


@pytest.mark.parametrize(("side", "told"), [(600, False), (800, True)])
def test_a_cell_whose_flows_take_minutes_is_told_before(caplog, side, told):
    _warn_of_large_cells("f", np.ones((side, side), np.uint16))
    assert [record.getMessage().split(";")[0] for record in caplog.records] == (
        ["f: the flows of a cell of 800 x 800 pixels may take 2 minutes"] if told else []
    )


@pytest.mark.parametrize("class_name", ["all", "fed"])
def test_prepare_writes_flows_of_one_class(annotations, run_script, class_name):
    annotations.three_splits()
    flows = annotations.folder / "flows"
    arguments = (
        *("-i", annotations.masks, "-c", annotations.images, "-o", annotations.out),
        *("--flows_dir", flows, "--class_name", class_name, "--cell_diameter", 30),
    )
    code, _, err = run_script("prepare_data", *arguments)
    assert code == 0, err
    written = sorted(str(path.relative_to(flows)) for path in flows.rglob("fields.json"))
    assert written == [f"{split}/fields.json" for split in ("test", "train", "valid")]
    for split in SPLITS:
        check_source(flows / split, load_pairs(annotations.out / class_name / split))
    assert run_script("prepare_data", *arguments)[0] == 2  # nothing is overwritten


@pytest.mark.parametrize("class_name", ["Basal", "lonely"])
def test_flows_of_a_class_without_cells_to_train_on_are_refused(
    annotations, run_script, class_name
):
    annotations.three_splits()
    annotations.object("a_ST_C03_s1", "lonely", "cell_1", disc(90, 90, 4))  # a test field only
    before = sorted(annotations.folder.rglob("*"))
    code, out, err = run_script(
        *("prepare_data", "-i", annotations.masks, "-c", annotations.images),
        *("-o", annotations.out, "--report", annotations.folder / "report.json"),
        *("--flows_dir", annotations.folder / "flows", "--class_name", class_name),
    )
    assert (code, out) == (2, "") and err.count("error: ") == 1
    assert f"no cell of the class '{class_name}' in the train split" in err
    assert "the classes are Unidentified, all, fed, lonely, unfed" in err
    assert sorted(annotations.folder.rglob("*")) == before
