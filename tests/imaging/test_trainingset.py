"""A training set is opened only if it is the one that was written."""

import gc
import json
import sys

import numpy as np
import pytest
from helpers.annotations import disc, write_png

from cellular.base.errors import InputError
from cellular.imaging.images import write_labels
from cellular.imaging.trainingset import open_fields
from cellular.preparing.flows import write_sets

FLOWS = "one_flows.npy"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A prepared folder with two small fields."""
    folder = tmp_path_factory.mktemp("prepared")
    for number, name in enumerate(("one", "two")):
        noise = np.random.default_rng(number).integers(0, 255, (64, 72, 3), np.uint8)
        write_png(folder / f"{name}.png", noise)
        labels = np.zeros((64, 72), np.uint16)
        for label, y in enumerate((15, 45), 1):
            labels[disc(y, 20, 9, side=72)[:64]] = label
        write_labels(folder / f"{name}_masks.png", labels)
    return folder


@pytest.fixture
def written(prepared, tmp_path):
    """Its training set."""
    write_sets({"train": prepared}, tmp_path, cell_diameter=None)
    return tmp_path / "train"


@pytest.fixture
def threads_that_switch_often():
    """Let another thread go on at almost any allocation, as a busy machine does now and then."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()

    def switch(*_):
        sum(range(100))

    sys.setswitchinterval(1e-6)
    gc.set_threshold(1)
    gc.callbacks.append(switch)
    yield
    gc.callbacks.remove(switch)
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("threads_that_switch_often")
def test_fields_are_opened_whenever_threads_switch(written):
    for _ in range(40):
        assert len(open_fields(written, [0, 0])) == 2


def missing(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def a_zip(path):
    np.savez(path.with_suffix(""), flows=np.load(path))
    path.with_suffix(".npz").rename(path)


def smaller(path):
    np.save(path, np.load(path)[:, :-1])


def two_planes(path):
    np.save(path, np.load(path)[:2])


def other_content(path):
    np.save(path, -np.load(path))


@pytest.mark.parametrize(
    "spoil",
    [missing, empty, cut_short, a_zip, smaller, two_planes, other_content],
)
def test_an_array_that_is_not_the_one_that_was_written_is_refused(written, spoil):
    assert len(open_fields(written, [0, 0])) == 2
    spoil(written / FLOWS)
    with pytest.raises(InputError, match=f"{FLOWS}: missing, or not the file that was written; wr"):
        open_fields(written, [0, 0])


def test_all_files_that_were_changed_are_listed(written):
    for name in (FLOWS, "two_image.npy"):
        (written / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"(?s)2 faults in .*one_flows.*two_image"):
        open_fields(written, [0, 0])


def changed(**values):
    return lambda index: index | values


def of_the_field(**values):
    return lambda index: index | {"fields": [index["fields"][0] | values]}


def without(key):
    return lambda index: {name: value for name, value in index.items() if name != key}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed(format=2, gamma=0.7), "format: Input should be 3"),
        (changed(cell_diameter="thirty"), "cell_diameter: Input should be a valid number"),
        (changed(cell_diameter=0), "cell_diameter: Input should be greater than 0"),
        (changed(flow_format="int16"), "flow_format: Input should be 'int8' or 'float32'"),
        (changed(fields=[]), "fields: List should have at least 1 item"),
        (changed(fields="all"), "fields: Input should be a valid array"),
        (without("flow_format"), "flow_format: Field required"),
        (of_the_field(diameter=0), "fields.0.diameter: Input should be greater than 0"),
        (of_the_field(diameter=float("nan")), "fields.0.diameter: Input should be a finite"),
        (of_the_field(cells="many"), "fields.0.cells: Input should be a valid integer"),
        (of_the_field(name="../one"), "fields.0.name: String should match pattern"),
        (of_the_field(sha256={"image": "0"}), "fields.0.sha256.image: String should match pattern"),
        (lambda index: [index], "Input should be an object"),
    ],
)
def test_an_index_that_is_not_ours_is_refused_with_the_reason(written, change, reason):
    path = written / "fields.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(InputError) as error:
        open_fields(written, [0, 0])
    assert f"{path}: this version cannot read this index of flows ({reason}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", "{'größe': 1}".encode("latin-1"), b'"\xe4"', b"[" * 9999, b"\x00"]
)
def test_an_index_that_is_no_json_is_refused(written, content):
    (written / "fields.json").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read this index of flows \(Invalid JSON"):
        open_fields(written, [0, 0])


def test_a_folder_without_index_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no flows in it \(fields.json is missing\)"):
        open_fields(tmp_path, [0, 0])


def test_flows_in_float32_are_stored_as_they_were_computed(prepared, tmp_path):
    sizes = {}
    for flow_format in ("int8", "float32"):
        folder = tmp_path / flow_format
        write_sets({"train": prepared}, folder, cell_diameter=None, flow_format=flow_format)
        field = open_fields(folder / "train", [0, 0])[0]
        sizes[flow_format] = field.flows.nbytes
        assert field.flows.dtype == flow_format
    assert sizes["float32"] == 4 * sizes["int8"]
