"""Bad input of many kinds: one clear line, exit code 2, and nothing left behind.

Each row is what is wrong, and the sentence that says so. What is odd but right is in a table of its
own, so that nobody refuses it by mistake.
"""

import io
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import annotated_types
import cv2
import numpy as np
import pytest
import tifffile
import torch
from helpers.annotations import SIDE, Annotations, disc, write_png
from helpers.repository import write_params
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellular.base.errors import InputError
from cellular.base.params import Section, validate
from cellular.evaluating.params import EvalParams, SegmentParams
from cellular.network import weights
from cellular.preparing.params import PrepareParams
from cellular.training.params import SavingParams, TrainParams
from parameters import Params, load_params

FIELD = "a_ST_D01_s1"  # the training field of the annotations
GREY = np.random.default_rng(0).integers(1, 255, (SIDE, SIDE), np.uint8)
COLOUR = np.random.default_rng(1).integers(1, 255, (SIDE, SIDE, 3), np.uint8)
CELLS = sum(
    (number * disc(y, x)).astype(np.uint16)
    for number, (y, x) in enumerate([(20, 20), (20, 60), (60, 20), (60, 60), (80, 80)], start=1)
)
Damage = Callable[[Annotations], object]


def listing(folder: Path) -> dict[str, bytes | None]:
    """Return every file of a folder with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def is_one_line(err: str, sentence: str) -> None:
    """Check that a script ended with one error of one line, with this sentence."""
    *_, last = err.split("error: ")
    assert err.count("error: ") == 1 and last.count("\n") == 1, err
    assert re.search(sentence, last), err


def refused(folder: Path, sentence: str, use: Callable, *arguments: object) -> None:
    """Check that a script refuses its input with this sentence, and leaves `folder` as it was."""
    before = listing(folder)
    code, _, err = use(*arguments)
    assert code == 2
    is_one_line(err, sentence)
    assert listing(folder) == before


def tiff(annotations: Annotations, pixels: np.ndarray, field: str = FIELD, **options) -> Path:
    """Put a TIFF in the place of a field's image."""
    for path in annotations.images.glob(f"{field}.*"):
        path.unlink()
    path = annotations.images / f"{field}.tif"
    tifffile.imwrite(path, pixels, **options)
    return path


def label_map(annotations: Annotations, labels: np.ndarray, suffix: str = ".tif") -> Path:
    """Put a label map in the place of a field's objects."""
    shutil.rmtree(annotations.masks / FIELD)
    path = annotations.masks / f"{FIELD}{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, labels)
    else:
        cv2.imwrite(str(path), labels)
    return path


def with_pixel(value: float) -> np.ndarray:
    pixels = GREY.astype(np.float32)
    pixels[5, 7] = value
    return pixels


def image(annotations: Annotations) -> Path:
    return annotations.images / f"{FIELD}.png"


def an_object(annotations: Annotations) -> Path:
    return annotations.masks / FIELD / "fed" / "cell_1.png"


IMAGES: dict[str, tuple[Damage, str]] = {
    "missing": (lambda a: image(a).unlink(), f"{FIELD}: no image"),
    "empty": (lambda a: image(a).write_bytes(b""), "png: no readable image.*0 bytes"),
    "text": (lambda a: image(a).write_text("<html>gone</html>"), "png: no readable image"),
    "text as TIFF": (
        lambda a: tiff(a, GREY).write_text("not a TIFF"),
        "tif: no readable TIFF",
    ),
    "two of one field": (lambda a: write_png(a.images / f"{FIELD}.jpg", GREY), "several images"),
    "broken link": (
        lambda a: (a.images / "x.png").symlink_to("nowhere.png"),
        r"x\.png",
    ),
    "not a number": (lambda a: tiff(a, with_pixel(np.nan)), r"tif: .*(NaN|not finite|no number)"),
    "infinity": (lambda a: tiff(a, with_pixel(np.inf)), r"tif: .*(infin|not finite)"),
    "one pixel": (lambda a: tiff(a, GREY[:1, :1]), "1 x 1"),
    "a line": (lambda a: tiff(a, np.ones((1, 20_000), np.uint8)), "20000 x 1|20,000 x 1"),
    "no pixel": (lambda a: tiff(a, np.ones((0, 7), np.uint8)), "tif: "),
    "nine planes": (
        lambda a: tiff(a, np.stack([GREY] * 9), photometric="minisblack"),
        r"shape \(9, 96, 96\)|axes",
    ),
    "ImageJ's planes": (
        lambda a: tiff(a, np.stack([GREY] * 3), imagej=True, metadata={"axes": "ZYX"}),
        r"axis Z\b",
    ),
    "ImageJ's times": (
        lambda a: tiff(a, np.stack([GREY] * 3), imagej=True, metadata={"axes": "TYX"}),
        r"axis T\b",
    ),
    "OME's planes": (
        lambda a: tiff(a, np.stack([GREY] * 3), ome=True, metadata={"axes": "ZYX"}),
        r"axis Z\b",
    ),
    "CMYK": (
        lambda a: tiff(a, np.dstack([COLOUR, GREY]), photometric="separated"),
        "CMYK|SEPARATED|separated",
    ),
    "opacity": (
        lambda a: cv2.imwrite(str(image(a)), np.dstack([COLOUR, GREY])),
        "png: four channels",
    ),
    "another size": (lambda a: write_png(image(a), GREY[:50]), "96 x 96 pixels, but .*96 x 50"),
}
MASKS: dict[str, tuple[Damage, str]] = {
    "empty file": (lambda a: an_object(a).write_bytes(b""), "cell_1.png: no readable image"),
    "text": (lambda a: an_object(a).write_text("gone"), "cell_1.png: no readable image"),
    "no field": (lambda a: (shutil.rmtree(a.masks), a.masks.mkdir()), "no masks in it"),
    "no folder": (lambda a: shutil.rmtree(a.masks), "no such folder of masks"),
    "a field without objects": (
        lambda a: (shutil.rmtree(a.masks / FIELD), (a.masks / FIELD / "fed").mkdir(parents=True)),
        f"{FIELD}: no object in it",
    ),
    "all empty": (
        lambda a: [write_png(path, GREY * 0) for path in (a.masks / FIELD).rglob("*.png")],
        "all of its mask files are empty",
    ),
    "in no class": (lambda a: write_png(a.masks / FIELD / "x.png", GREY), r"x\.png"),
    "too deep": (
        lambda a: write_png(a.masks / FIELD / "fed" / "more" / "x.png", GREY),
        "more",
    ),
    "another format": (
        lambda a: an_object(a).with_suffix(".bmp").write_bytes(b"BM"),
        r"cell_1\.bmp",
    ),
    "broken link to an object": (
        lambda a: (a.masks / FIELD / "fed" / "x.png").symlink_to("nowhere.png"),
        r"x\.png",
    ),
    "fractions": (lambda a: label_map(a, CELLS / np.float32(2)), "tif: .*whole numbers"),
    "RGB labels": (
        lambda a: label_map(a, np.dstack([CELLS.astype(np.uint8)] * 3), ".png"),
        r"png: shape \(96, 96, 3\)",
    ),
    "negative labels": (
        lambda a: label_map(a, CELLS.astype(np.int16) - 1),
        "tif: holds -1, expected labels from 0 on",
    ),
    "binary": (lambda a: label_map(a, (CELLS > 0).astype(np.uint8)), "tif: a binary mask"),
    "true and false": (lambda a: label_map(a, CELLS > 0), "tif: a binary mask"),
    "classes": (
        lambda a: label_map(a, np.where(CELLS, CELLS % 2 + 1, 0).astype(np.uint8)),
        "tif: a mask of classes",
    ),
    "JPEG": (
        lambda a: write_png(a.masks / "x.jpg", CELLS.astype(np.uint8)),
        r"x\.jpg: not used",
    ),
    "nothing": (lambda a: label_map(a, CELLS * 0), "tif: no object in it"),
    "70,000 objects": (
        lambda a: (
            tiff(a, np.zeros((300, 300), np.uint8)),
            label_map(a, np.arange(90_000, dtype=np.uint32).reshape(300, 300) // 1 % 70_001),
        ),
        "at most 65,535",
    ),
    "two places": (
        lambda a: tifffile.imwrite(a.masks / f"{FIELD}.tif", CELLS),
        "masks of one field in two places",
    ),
    "a class named all": (
        lambda a: (a.masks / FIELD / "fed").rename(a.masks / FIELD / "all"),
        "the name 'all' is taken",
    ),
    "a field in two splits": (
        lambda a: a.field("b_ST_I06_ST_C03_s1", fed=3),
        "matches the validation pattern .* and the test pattern",
    ),
}


def prepare(run_script, a: Annotations, *more: object) -> tuple[int, str, str]:
    folders = ("-i", a.masks, "-c", a.images, "-o", a.out, "--flows_dir", a.folder / "flows")
    return run_script("prepare_data", *folders, "--report", a.folder / "report.json", *more)


@pytest.mark.parametrize(("damage", "sentence"), IMAGES.values(), ids=IMAGES)
def test_images_that_cannot_be_used(annotations, run_script, damage, sentence):
    damage(annotations.three_splits())
    refused(annotations.folder, sentence, prepare, run_script, annotations)


@pytest.mark.parametrize(("damage", "sentence"), MASKS.values(), ids=MASKS)
def test_masks_that_cannot_be_used(annotations, run_script, damage, sentence):
    damage(annotations.three_splits())
    refused(annotations.folder, sentence, prepare, run_script, annotations)


ODD: dict[str, Damage] = {
    "negative": lambda a: tiff(a, GREY.astype(np.float32) - 100),
    "half precision": lambda a: tiff(a, GREY.astype(np.float16)),
    "planar": lambda a: tiff(
        a, COLOUR.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate"
    ),
    "tiled": lambda a: tiff(a, COLOUR, tile=(32, 32)),
    "big-endian": lambda a: tiff(a, GREY.astype(">u2"), byteorder=">"),
    "BigTIFF": lambda a: tiff(a, COLOUR, bigtiff=True),
    "channels of ImageJ": lambda a: tiff(
        a, np.stack([GREY] * 3), imagej=True, metadata={"axes": "CYX"}
    ),
    "gaps in the numbers": lambda a: label_map(a, CELLS * 1000),
    "whole numbers of 64 bits": lambda a: label_map(a, CELLS.astype(np.uint64) << 40),
    "one object of two pieces": lambda a: label_map(a, CELLS + disc(90, 10, 3).astype(np.uint16)),
    "a name with spaces and umlauts": lambda a: a.field("Präparat 1 (neu)", fed=3),
    "a name of 200 characters": lambda a: a.field("x" * 200, fed=3),
    "a system's file": lambda a: (a.masks / FIELD / "fed" / ".DS_Store").write_bytes(b"x"),
    "one class": lambda a: [
        shutil.rmtree(folder) for folder in a.masks.glob("*/*") if folder.name != "fed"
    ],
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_what_is_odd_but_right_is_prepared(annotations, run_script, change):
    change(annotations.three_splits())
    code, out, err = prepare(run_script, annotations)
    assert code == 0, err
    assert "fields" in out and (annotations.folder / "flows/train/fields.json").is_file()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.98))
def test_an_image_cut_at_any_place(tmp_path, suffix, share):
    from cellular.imaging.images import read_image

    path = tmp_path / f"x{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, COLOUR, compression="zlib")
    else:
        cv2.imwrite(str(path), COLOUR)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=rf"x\{suffix}: .*cut short"):
        read_image(path)


# The bounds of every number, from its declaration.
MODELS: dict[str, type[Section]] = {
    model.__name__: model for model in (PrepareParams, TrainParams, SavingParams, EvalParams)
} | {"SegmentParams": SegmentParams}


def bounds() -> list[tuple[type[Section], str, float]]:
    """Return a value just outside each bound of each parameter."""
    found = []
    for model in MODELS.values():
        for name, field in model.model_fields.items():
            for limit in limits(field.metadata, field.annotation):
                step = 1 if "int" in str(field.annotation) else 1e-9
                if isinstance(limit, annotated_types.Ge):
                    found.append((model, name, limit.ge - step))
                elif isinstance(limit, annotated_types.Gt):
                    found.append((model, name, limit.gt))
                elif isinstance(limit, annotated_types.Le):
                    found.append((model, name, limit.le + step * max(1, abs(limit.le))))
                elif isinstance(limit, annotated_types.Lt):
                    found.append((model, name, limit.lt))
    return found


def limits(metadata: list, annotation: object) -> list:
    """Return the bounds in a field's declaration, also those of an optional number."""
    found = [item for entry in metadata for item in (getattr(entry, "metadata", None) or [entry])]
    for inner in getattr(annotation, "__args__", ()):
        if hasattr(inner, "__metadata__"):
            found += limits(list(inner.__metadata__), inner)
    return found


@pytest.mark.parametrize(
    ("model", "name", "value"), bounds(), ids=lambda value: getattr(value, "__name__", str(value))
)
def test_a_number_outside_its_bounds(model, name, value):
    with pytest.raises(InputError, match=rf"^here: {name}: .*\(found {re.escape(repr(value))}\)"):
        validate(model, {name: value}, "here")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
NAMES = sorted(Params.model_fields) + [
    f"{section}.{name}"
    for section in ("data", "prepare", "train", "eval")
    for name in Params.model_fields[section].annotation.model_fields
]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(NAMES), value=JUNK)
def test_whatever_a_parameter_is_it_is_valid_or_named(tmp_path, name, value):
    path = write_params(tmp_path, {name: value})
    try:
        load_params(path)
    except InputError as error:
        assert str(error).startswith(f"{path}: ") and name.split(".")[-1] in str(error)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Annotations:
    """Annotations with what `prepare` makes of them, and random weights."""
    from prepare_data import main

    made = Annotations(tmp_path_factory.mktemp("prepared") / "data").three_splits()
    folders = ["-i", made.masks, "-c", made.images, "-o", made.out]
    main([*map(str, folders), "--flows_dir", str(made.folder / "flows")])
    weights.save(weights.random_state(0), made.folder / "weights")
    return made


@pytest.fixture
def data(prepared, tmp_path) -> Path:
    """A copy of them for one test."""
    return Path(shutil.copytree(prepared.folder, tmp_path / "data"))


def state(folder: Path, change: Callable[[dict], object]) -> None:
    """Change something in the weights."""
    tensors = weights.random_state(0)
    change(tensors)
    torch.save(tensors, folder / "weights")


def first_as(dtype: torch.dtype) -> Callable[[Path], None]:
    """Return what gives one tensor of the weights another dtype."""

    def change(tensors: dict) -> None:
        key = next(key for key in tensors if tensors[key].ndim == 4)
        tensors[key] = tensors[key].to(dtype)

    return lambda folder: state(folder, change)


def vision_transformer(folder: Path) -> None:
    names = ("encoder.patch_embed.proj.weight", "encoder.blocks.0.attn.qkv.weight", "W2")
    torch.save({name: torch.zeros(4, 4) for name in names}, folder / "weights")


def runs_code(folder: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {folder}/ran",)

    (folder / "weights").write_bytes(pickle.dumps({"x": Evil()}))


def cut(path: str, share: float = 0.5) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        content = (folder / path).read_bytes()
        (folder / path).write_bytes(content[: int(share * len(content))])

    return change


NOT_WEIGHTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda d: (d / "weights").unlink(), "weights: no (such weights file|model there)"),
    "empty": (lambda d: (d / "weights").write_bytes(b""), "weights: not weights"),
    "text": (lambda d: (d / "weights").write_text("<html>"), "weights: not weights"),
    "cut": (cut("weights"), "weights: not weights, or cut short"),
    "code": (runs_code, "weights: not weights: something in it is no tensor"),
    "a list": (lambda d: torch.save([1, 2], d / "weights"), r"weights: expected a state dict"),
    "Cellpose 4": (vision_transformer, "weights: .*Cellpose"),
    "a tensor is missing": (
        lambda d: state(d, lambda s: s.pop("output.2.weight")),
        "output.2.weight is missing",
    ),
    "not finite": (
        lambda d: state(d, lambda s: s["output.2.weight"].fill_(float("nan"))),
        "output.2.weight is not finite",
    ),
    "complex": (first_as(torch.complex64), "weights: .*complex"),
}


def train(run_script, data: Path, *more: object) -> tuple[int, str, str]:
    folders = ("--train_dir", data / "out/all/train", "--valid_dir", data / "out/all/valid")
    outputs = ("--output_model", data / "model", "--metrics_dir", data / "losses")
    start = ("--flows_dir", data / "flows", "--weights", data / "weights", "--device", "cpu")
    short = ("--n_epochs", 1, "--crop_size", 32, "--batch_size", 1)
    return run_script("train", *folders, *outputs, *start, *short, *more)


def evaluate(run_script, data: Path, *more: object) -> tuple[int, str, str]:
    folders = ("--test_dir", data / "out/all/test", "--output_dir", data / "scores")
    options = ("--model_path", data / "weights", "--device", "cpu")
    return run_script("eval", *folders, *options, *more)


@pytest.mark.parametrize("use", [train, evaluate], ids=["train", "eval"])
@pytest.mark.parametrize(("damage", "sentence"), NOT_WEIGHTS.values(), ids=NOT_WEIGHTS)
def test_weights_that_cannot_be_used(data, run_script, use, damage, sentence):
    damage(data)
    refused(data, sentence, use, run_script, data)


def test_a_model_for_cells_of_no_size(data, run_script):
    state(data, lambda tensors: tensors.update(diam_labels=torch.tensor([0.0])))
    refused(data, "weights: .*diameter", evaluate, run_script, data)


def index(change: Callable[[dict], object]) -> Callable[[Path], object]:
    """Return what changes the index of the training fields' flows."""

    def damage(folder: Path) -> None:
        path = folder / "flows/train/fields.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return damage


def array(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], object]:
    """Return what changes the flows of the training field."""

    def damage(folder: Path) -> None:
        path = folder / f"flows/train/{FIELD}_flows.npy"
        np.save(path, change(np.load(path)))

    return damage


NOT_FLOWS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda d: shutil.rmtree(d / "flows"), "flows"),
    "no index": (lambda d: (d / "flows/train/fields.json").unlink(), "fields.json"),
    "index cut": (cut("flows/train/fields.json"), "fields.json"),
    "index in Latin-1": (
        lambda d: (d / "flows/train/fields.json").write_bytes('{"name": "ä"}'.encode("latin-1")),
        "fields.json",
    ),
    "a key is missing": (index(lambda c: c.pop("fields")), "fields.json"),
    "a hash is missing": (index(lambda c: c["fields"][0]["sha256"].pop("flows")), "fields.json"),
    "a word for a number": (
        index(lambda c: c["fields"][0].update(diameter="large")),
        "fields.json",
    ),
    "diameter 0": (index(lambda c: c["fields"][0].update(diameter=0)), "fields.json"),
    "no array": (lambda d: (d / f"flows/train/{FIELD}_flows.npy").unlink(), "_flows.npy"),
    "empty array": (
        lambda d: (d / f"flows/train/{FIELD}_flows.npy").write_bytes(b""),
        "_flows.npy",
    ),
    "array cut": (cut(f"flows/train/{FIELD}_flows.npy"), "_flows.npy"),
    "smaller": (array(lambda flows: flows[:, :50]), "_flows.npy"),
    "two planes": (array(lambda flows: flows[:2]), "_flows.npy"),
    "other numbers": (array(lambda flows: flows[:, ::-1].copy()), "_flows.npy"),
    "other masks": (
        lambda d: write_png(d / f"out/all/train/{FIELD}_masks.png", CELLS),
        "prepare",
    ),
}


@pytest.mark.parametrize(("damage", "sentence"), NOT_FLOWS.values(), ids=NOT_FLOWS)
def test_flows_that_cannot_be_trained_on(data, run_script, damage, sentence):
    damage(data)
    refused(data, sentence, train, run_script, data)


def boxes(*lines: str) -> Callable[[Path], object]:
    """Return what puts boxes in the place of the test field's label map."""

    def change(folder: Path) -> None:
        for path in (folder / "out/all/test").glob("a_ST_C03_s1_*"):
            path.unlink()
        (folder / "out/all/test/a_ST_C03_s1.txt").write_bytes("\n".join(lines).encode("latin-1"))

    return change


def with_boxes(damage: Callable[[Path], object]) -> Callable[[Path], object]:
    """Return what damages the folder of the test field after it got a box."""

    def change(folder: Path) -> None:
        boxes("0 0.5 0.5 0.2 0.2")(folder)
        damage(folder / "out/all/test")

    return change


NOT_PREPARED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda d: shutil.rmtree(d / "out"), "no such folder"),
    "no field": (
        lambda d: [path.unlink() for path in (d / "out/all/test").iterdir()],
        "no image with masks in it",
    ),
    "image alone": (
        lambda d: (d / "out/all/test/a_ST_C03_s1_masks.png").unlink(),
        "no label map a_ST_C03_s1_masks.png or .tif beside it",
    ),
    "masks alone": (
        lambda d: (d / "out/all/test/a_ST_C03_s1.png").unlink(),
        "no image beside it",
    ),
    "masks cut": (cut("out/all/test/a_ST_C03_s1_masks.png"), "cut short"),
    "classes of other cells": (
        lambda d: (d / "out/all/test/a_ST_C03_s1_classes.csv").write_text("label,class\n1,fed\n"),
        "1 rows for the 11 labels",
    ),
    "a box of three numbers": (boxes("0 0.5 0.5 0.2 0.2", "0 0.5 0.5 0.2"), "s1.txt, line 2: "),
    "a polygon": (boxes("0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2"), "expected class, centre x, "),
    "a box with a NaN": (boxes("0 0.5 0.5 nan 0.2"), "line 1: '0 0.5 0.5 nan 0.2', expected"),
    "a box in pixels": (boxes("0 50 50 20 20"), "as parts of the frame from 0 to 1"),
    "a class by name": (boxes("cell 0.5 0.5 0.2 0.2"), "line 1: 'cell 0.5"),
    "decimal commas": (boxes("0 0,5 0,5 0,2 0,2"), "line 1: '0 0,5"),
    "boxes in Latin-1": (boxes("\xe4"), "s1.txt: no UTF-8 text"),
    "boxes alone": (
        with_boxes(lambda d: (d / "a_ST_C03_s2.txt").write_text("")),
        "s2.txt: no image beside it",
    ),
    "an image without boxes": (
        with_boxes(lambda d: write_png(d / "b.png", GREY)),
        r"b\.png: no boxes b\.txt beside it; make an empty file if the field has no cell",
    ),
    "masks and boxes": (
        with_boxes(lambda d: cv2.imwrite(str(d / "a_ST_C03_s1_masks.png"), CELLS)),
        r"label maps \(a_ST_C03_s1_masks.png\) and boxes \(a_ST_C03_s1.txt\) in one folder",
    ),
}
WRONG_FLAGS: dict[str, tuple[tuple[object, ...], str]] = {
    "a negative diameter": (("--diameter", -1), "diameter: expected 1 to 10,000 pixels"),
    "half precision on a CPU": (("--precision", "fp16"), "fp16 needs a GPU"),
    "no such device": (("--device", "tpu"), "device 'tpu' is unknown"),
    "a batch of none": (("--batch_size", 0), "batch_size.*greater than or equal to 1"),
}


@pytest.mark.parametrize(("damage", "sentence"), NOT_PREPARED.values(), ids=NOT_PREPARED)
def test_folders_that_cannot_be_scored(data, run_script, damage, sentence):
    damage(data)
    refused(data, sentence, evaluate, run_script, data)


@pytest.mark.parametrize(("flags", "sentence"), WRONG_FLAGS.values(), ids=WRONG_FLAGS)
def test_flags_that_cannot_be_used(data, run_script, flags, sentence):
    refused(data, sentence, evaluate, run_script, data, *flags)


def test_an_empty_file_of_boxes_is_a_field_without_cells(data, run_script):
    boxes()(data)
    code, _, err = evaluate(run_script, data)
    assert code == 0, err
    scores = json.loads((data / "scores/test_eval.json").read_text())
    assert scores["counts"]["cells"] == 0 and "recall" not in scores["objects"]


def test_boxes_that_tell_no_diameter(data, run_script):
    boxes()(data)
    refused(data, "no annotated cell in it", evaluate, run_script, data, "--diameter", "annotated")


def test_a_data_set_with_boxes_cannot_be_trained_on(tmp_path, run_script):
    path = write_params(tmp_path, {"dataset": "unseen"})
    refused(tmp_path, "unseen has boxes and no masks", run_script, "check_params", path)


def test_channels_that_an_image_lacks(data, run_script):
    (data / "out/all/test/a_ST_C03_s1.png").unlink()
    tifffile.imwrite(data / "out/all/test/a_ST_C03_s1.tif", COLOUR[..., :2].copy())
    code, _, err = evaluate(run_script, data, "--channels", 3, 0)
    assert code == 2
    is_one_line(err, "an image of 2 channels, without the channel 3")


OVER_INPUTS: dict[str, tuple[Callable, tuple[str, str], str]] = {
    "weights over the weights": (train, ("--output_model", "weights"), "weights"),
    "weights over an image": (
        train,
        ("--last_model", f"out/all/train/{FIELD}.png"),
        f"{FIELD}.png",
    ),
    "both weights in one file": (train, ("--last_model", "model"), "model"),
    "scores in the data": (evaluate, ("--output_dir", "out/all/test/scores"), "out/all/test"),
    "predictions over the data": (evaluate, ("--predictions_dir", "out"), "out"),
    "predictions over the weights": (evaluate, ("--predictions_dir", "weights"), "weights"),
}


@pytest.mark.parametrize(("use", "flag", "sentence"), OVER_INPUTS.values(), ids=OVER_INPUTS)
@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "force"])
def test_an_output_never_replaces_an_input(data, run_script, use, flag, sentence, force):
    refused(data, sentence, use, run_script, data, flag[0], data / flag[1], *force)


NO_PLACE = {
    "below a file": "weights/x",
    "in no folder of the system": "/proc/x/y",
    "a name of 300 characters": "x" * 300,
}


@pytest.mark.parametrize("place", NO_PLACE.values(), ids=NO_PLACE)
@pytest.mark.parametrize("script", ["prepare_data", "train", "eval"])
def test_outputs_that_cannot_be_written(data, run_script, script, place):
    before = listing(data)
    target = data / place
    if script == "prepare_data":
        code, _, err = run_script(script, "-i", data / "masks", "-c", data / "images", "-o", target)
    elif script == "train":
        code, _, err = train(run_script, data, "--output_model", target)
    else:
        code, _, err = evaluate(run_script, data, "--output_dir", target)
    assert code == 2
    is_one_line(err, re.escape(str(target)[:50]))
    assert listing(data) == before


SEG: dict[str, tuple[Callable[[Path], object], str]] = {
    "-1 as background": (
        lambda path: np.save(path, {"masks": CELLS.astype(np.int64) - 1}),
        "from 0 on|negative|-1",
    ),
    "nothing in it": (lambda path: np.save(path, {"masks": CELLS * 0}), "no object|no cell"),
    "no masks": (lambda path: np.save(path, {"outlines": CELLS}), "cannot be read"),
    "words": (lambda path: np.save(path, {"masks": np.array(["x"], object)}), "cannot be read"),
    "three planes": (
        lambda path: np.save(path, {"masks": np.stack([CELLS] * 3)}),
        r"shape \(3, 96, 96\)",
    ),
    "text": (lambda path: path.write_text("x"), "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
}


@pytest.mark.parametrize(("write", "sentence"), SEG.values(), ids=SEG)
def test_masks_of_cellposes_interface_that_cannot_be_used(tmp_path, run_script, write, sentence):
    write_png(tmp_path / "mine" / "x.png", COLOUR)
    write(tmp_path / "mine" / "x_seg.npy")
    changes = {"data.path": str(tmp_path / "mine"), "data.layout": "seg"}
    params = write_params(tmp_path, changes)
    arguments = ("--params", params, "--dataset", "local", "--output_dir", tmp_path / "raw")
    code, _, err = run_script("fetch_data", *arguments)
    assert code == 2
    is_one_line(err, rf"x_seg\.npy: .*({sentence})")
    assert not (tmp_path / "raw").exists()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_changed_byte_in_a_file_of_cellposes_interface_ends_no_process(tmp_path, place, byte):
    from cellular.fetching.local import read_seg

    stream = io.BytesIO()
    np.save(stream, {"masks": CELLS[:24, :24]}, allow_pickle=True)
    content = bytearray(stream.getvalue())
    content[int(place * len(content))] = byte
    path = tmp_path / "x_seg.npy"
    path.write_bytes(bytes(content))
    try:
        labels = read_seg(path)
        assert labels.ndim == 2 and np.issubdtype(labels.dtype, np.integer)
    except InputError as error:
        assert str(path) in str(error)
