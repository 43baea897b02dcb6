"""Packages of bioimage.io: a model with its pre- and postprocessing and a test, for other programs.

A package holds less than the model does. It has no step that resizes images, so they have to come
with cells of the diameter that the network knows, and percentiles are those of the resized image.
Cells stay at that scale. Colours are not turned to grey. It computes in 32 bits, and `resample` is
lost. Its network calls Cellpose, so it cannot be turned to ONNX or TorchScript.

The format: https://bioimage-io.github.io/spec-bioimage-io, model description 0.5.12.
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from cellpose import transforms

from cellular.base.errors import InputError
from cellular.base.files import digest, whole
from cellular.exporting import network
from cellular.network import segmentation
from cellular.network.segmentation import load_model, scale_of, segment
from cellular.network.settings import Settings

if TYPE_CHECKING:  # otherwise cellular.base.compiled has to come before it
    from cellpose.models import CellposeModel

SMALLEST = 64  # pixels of a side; Cellpose fills what is missing to a tile with zeros
TEST_SIDE = 256  # pixels of the test image: more than a tile, and twenty cells of 40 pixels
COLOURS = ("grey", "red", "green", "blue")  # as Cellpose numbers them
# A package has to have a time. That of the export would change bytes, and says nothing of a model.
TIMESTAMP = "1980-01-01T00:00:00+00:00"
# Other processors round otherwise, which moves the outlines of a few cells by a pixel.
TOLERANCE = 1000  # pixels of a million


def export(
    weights: Path,
    settings: Settings,
    image: np.ndarray,
    output: Path,
    *,
    citation: Mapping[str, Any],
    card: str | None = None,
    pixel_size: float | None = None,
) -> int:
    """Write a model as a package of bioimage.io, a folder; the same input gives the same bytes.

    Parameters
    ----------
    weights : file with a state dict of Cellpose's network
    settings : how the model finds cells
    image : (H, W) or (H, W, C), of any type; its middle, with the cells that this project's own
        code finds there, is the test of the package
    output : folder to write
    citation : content of a CITATION.cff: the licence, the authors, and the articles to cite
    card : what the model is for, Markdown; None: the package has a note on its use alone
    pixel_size : µm, edge of a pixel of the images that the settings are for; None: not known

    Returns
    -------
    the number of cells in the test image

    Raises
    ------
    InputError
        If the weights are not valid, the test image is too small or has no cells, or the output
        cannot be written.
    """
    model = load_model(weights, torch.device("cpu"))
    scale = scale_of(model, settings)
    pixels = _test_image(image, scale, settings)
    labels = _cells(model, pixels, settings)
    description = _description(weights.name, settings, scale, citation, pixel_size)
    with whole(output) as staging:
        staging.mkdir()
        shutil.copyfile(weights, staging / "weights.pt")
        shutil.copyfile(network.__file__, staging / "network.py")
        np.save(staging / "test_image.npy", pixels[None])
        np.save(staging / "test_cells.npy", labels[None, None])
        text = _note(scale) + (f"\n{_without_use(card)}" if card else "")
        (staging / "README.md").write_text(text, encoding="utf-8")
        (staging / "environment.yaml").write_text(_yaml(_environment()), encoding="utf-8")
        _add_hashes(description, staging)
        (staging / "rdf.yaml").write_text(_yaml(description), encoding="utf-8")
    return int(labels.max())


def _test_image(image: np.ndarray, scale: float, settings: Settings) -> np.ndarray:
    """Return the middle of an image at the network's scale, (1 or 2, h, w) float32."""
    shown = transforms.convert_image(image, list(settings.channels), nchan=2)
    if scale != 1:
        shown = transforms.resize_image(shown, rsz=[scale, scale])
    shape = np.array(shown.shape[:2])
    if shape.min() < SMALLEST:
        raise InputError(
            f"the image has {shape[1]} x {shape[0]} pixels when its cells have the diameter that "
            f"the network knows; a test needs {SMALLEST} x {SMALLEST}, so give a larger image"
        )
    sides = np.minimum(shape, TEST_SIDE)
    top, left = (shape - sides) // 2
    middle = shown[top : top + sides[0], left : left + sides[1], : len(_channels(settings))]
    return np.ascontiguousarray(middle.transpose(2, 0, 1), np.float32)


def _channels(settings: Settings) -> list[str]:
    first, second = settings.channels
    return [COLOURS[first], *([f"nuclei, {COLOURS[second]}"] if second else [])]


def _cells(model: "CellposeModel", pixels: np.ndarray, settings: Settings) -> np.ndarray:
    """Return the label map, (h, w) uint16, that a package has to give for its test image."""
    as_shown = replace(
        settings,
        channels=(0, 0) if len(pixels) == 1 else (1, 2),
        diameter=float(model.diam_mean),
        resample=False,
        precision="32",
    )
    labels = segment(model, pixels.transpose(1, 2, 0).squeeze(), as_shown)
    if not labels.any():
        raise InputError(
            "no cell was found in the middle of the image, so it tests nothing; give another image"
        )
    return labels


def _description(
    name: str,
    settings: Settings,
    scale: float,
    citation: Mapping[str, Any],
    pixel_size: float | None,
) -> dict[str, Any]:
    """Return the content of rdf.yaml, without the hashes of files."""
    return {
        "format_version": "0.5.12",
        "type": "model",
        "name": f"Cellpose model {re.sub('[^A-Za-z0-9_+() -]', '-', name)}"[:128],
        "description": "Finds cells with a network of Cellpose 3. Images have to be resized first; "
        "README.md says to what.",
        "authors": [{"name": _name(author)} for author in citation["authors"]],
        "cite": [_cited(work) for work in citation["references"] if work["type"] == "article"],
        "license": citation["license"],
        "documentation": {"source": "README.md"},
        "tags": ["cellpose", "instance-segmentation", "fluorescence-light-microscopy", "2d"],
        "timestamp": TIMESTAMP,
        "inputs": [_input(settings, _space(scale, pixel_size))],
        "outputs": [_output(settings, _space(scale, pixel_size))],
        "weights": {"pytorch_state_dict": _weights(settings)},
        "config": {
            "bioimageio": {
                "reproducibility_tolerance": [{"mismatched_elements_per_million": TOLERANCE}]
            },
            "cellular": asdict(settings)
            | {"channels": list(settings.channels), "scale": round(scale, 6)},
        },
    }


def _space(scale: float, pixel_size: float | None) -> dict[str, Any]:
    """Return what is said of the axes y and x: how large a pixel is at the network's scale."""
    known = {"unit": "micrometer", "scale": round(pixel_size / scale, 6)} if pixel_size else {}
    return {"type": "space", **known}


def _input(settings: Settings, space: dict[str, Any]) -> dict[str, Any]:
    percentiles = {"axes": ["y", "x"], "min_percentile": 1.0, "max_percentile": 99.0}
    return {
        "id": "image",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": _channels(settings)},
            *({**space, "id": axis, "size": {"min": SMALLEST, "step": 1}} for axis in "yx"),
        ],
        "data": {"type": "float32"},
        "test_tensor": {"source": "test_image.npy"},
        "preprocessing": [{"id": "scale_range", "kwargs": percentiles}],
    }


def _output(settings: Settings, space: dict[str, Any]) -> dict[str, Any]:
    thresholds = {
        "cellprob_threshold": float(settings.cellprob_threshold),
        "flow_threshold": float(settings.flow_threshold),
        "do_3D": False,
        "min_size": segmentation.SMALLEST,
    }
    as_input = ({"tensor_id": "image", "axis_id": axis} for axis in "yx")
    return {
        "id": "cells",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": ["label"]},
            *({**space, "id": size["axis_id"], "size": size} for size in as_input),
        ],
        "data": {"type": "uint16"},
        "test_tensor": {"source": "test_cells.npy"},
        "postprocessing": [{"id": "cellpose_flow_dynamics", "kwargs": thresholds}],
    }


def _weights(settings: Settings) -> dict[str, Any]:
    return {
        "source": "weights.pt",
        "architecture": {
            "source": "network.py",
            "callable": network.Flows.__name__,
            "kwargs": {"augment": settings.augment},
        },
        "pytorch_version": torch.__version__.split("+")[0],
        "dependencies": {"source": "environment.yaml"},
    }


def _environment() -> dict[str, Any]:
    """Return the Conda environment that the network needs."""
    versions = [f"torch=={torch.__version__.split('+')[0]}", f"cellpose=={version('cellpose')}"]
    return {"name": "cellular", "dependencies": ["python=3.11", "pip", {"pip": versions}]}


def _note(scale: float) -> str:
    return f"""## Use of this bioimage.io package

- Multiply the size of your images by {scale:.4g} first if their cells are as large, in pixels, as
  those of the training; then they have the size that the network knows. The package does not do
  this, and the label maps have the size of the resized images.
- Give the whole image, of {SMALLEST} pixels a side at least, not blocks of it: percentiles are
  computed from it, and the network cuts it into Cellpose's tiles itself.
- It needs Cellpose 3, which also turns the flows to cells.
"""


def _without_use(card: str) -> str:
    """Return a card without its part on using the model's folder, which a package is not."""
    return re.sub(r"^## Use\n.*?(?=^## )", "", card, flags=re.MULTILINE | re.DOTALL)


def _name(author: Mapping[str, str]) -> str:
    return author.get("name") or f"{author['given-names']} {author['family-names']}"


def _cited(work: Mapping[str, Any]) -> dict[str, str]:
    authors = ", ".join(map(_name, work["authors"]))
    text = f"{authors}: {work['title']}. {work['journal']} {work['volume']}, {work['year']}."
    return {"text": text, "doi": work["doi"]}


def _add_hashes(part: Any, folder: Path) -> None:
    """Add the sha256 of every file that a description names, in place."""
    if isinstance(part, list):
        for item in part:
            _add_hashes(item, folder)
    elif isinstance(part, dict):
        if "source" in part:
            part["sha256"] = digest(folder / part["source"])
        for item in part.values():
            _add_hashes(item, folder)


def _yaml(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
