"""Flows: what the network learns to predict for each pixel, computed once for a data set.

Cellpose's own function computes them. It takes seconds per field, and Cellpose's `train_seg` would
call it again in every run.
"""

# First, before anything else of Cellpose is imported.
from cellular.base.compiled import dynamics  # isort: skip
import io
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from cellpose.transforms import resize_image
from scipy.ndimage import find_objects

from cellular.base.errors import Faults, InputError
from cellular.base.files import digest
from cellular.base.params import NETWORK_DIAMETER
from cellular.imaging.fields import SMALLEST_SIDE, Pair, load_pairs, read_pair
from cellular.imaging.masks import median_diameter
from cellular.imaging.trainingset import (
    Entry,
    FlowFormat,
    Index,
    encode,
    percentiles,
    source_hashes,
    write_index,
)

MOST_ENLARGED = 8  # times; beyond, fields fill the disk and show nothing that was not there
STEP = 6e-8  # seconds a pixel and a step of diffusion, in cells of 256 to 1,024 pixels on one core
CPU = torch.device("cpu")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Annotated:
    """A field's image and label map, with the number and size of its cells."""

    image: np.ndarray  # (C, H, W), in the file's dtype, or float32 if resized
    labels: np.ndarray  # (H, W), numbered 1 to n
    cells: int
    diameter: float  # median diameter of the cells, in pixels


def annotated(image: np.ndarray, labels: np.ndarray) -> Annotated:
    """Return a field with the channels first, as training needs it.

    Parameters
    ----------
    image : (H, W) or (H, W, C)
    labels : (H, W), numbered 1 to n
    """
    channels_first = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    return Annotated(channels_first, labels, int(labels.max(initial=0)), median_diameter(labels))


def shrunk(field: Annotated, factor: float) -> Annotated:
    """Return the field resized by `factor`, in the way Cellpose resizes images for its network."""
    height, width = (max(1, round(side * factor)) for side in field.labels.shape)
    image = resize_image(
        np.ascontiguousarray(field.image.transpose(1, 2, 0), np.float32), Ly=height, Lx=width
    )
    labels = resize_image(field.labels, Ly=height, Lx=width, interpolation=0, no_channels=True)
    image = image[None] if image.ndim == 2 else np.ascontiguousarray(image.transpose(2, 0, 1))
    return Annotated(image, labels, field.cells, field.diameter * factor)


def flows_of(labels: np.ndarray, device: torch.device = CPU) -> np.ndarray:
    """Return the cell mask, the flow in y and the flow in x of a label map: (3, H, W) float32."""
    return dynamics.labels_to_flows([labels.copy()], device=device)[0][1:]


def write_sets(
    folders: dict[str, Path],
    output: Path,
    *,
    cell_diameter: float | None,
    flow_format: FlowFormat = "int8",
    device: torch.device = CPU,
) -> int:
    """Write a training set `<output>/<name>` for each prepared folder.

    Parameters
    ----------
    folders : prepared folders by name, `train` among them. Fields of `test` may be of any size:
        they can be scored, even if they are too small to train on
    cell_diameter : resize all fields by one factor, so that the cells of the folder `train` have
        this mean diameter in pixels (at 30, fields with cells of 120 keep a sixteenth of their
        pixels); None keeps their size

    Returns
    -------
    int
        The number of fields.

    Raises
    ------
    InputError
        One error that lists every fault of the data.
    """
    pairs = {name: load_pairs(folder) for name, folder in folders.items()}
    faults = Faults()
    factor = 1.0
    if cell_diameter is not None:
        sizes = faults.map(
            lambda pair: median_diameter(read_pair(pair)[1]), pairs["train"], "diameters"
        )
        faults.raise_all(folders["train"])
        factor = cell_diameter / float(np.mean(sizes))
        if factor > MOST_ENLARGED:
            raise InputError(
                f"the training cells, of {np.mean(sizes):.3g} px, would be enlarged to "
                f"cell_diameter {cell_diameter:g}, by more than {MOST_ENLARGED}; give a smaller one"
            )
    fields = {}
    for name, group in pairs.items():
        (output / name).mkdir(parents=True)
        # For one field PyTorch rarely keeps all cores busy, so several at a time are faster.
        write = partial(
            _write,
            folder=output / name,
            smallest=1 if name == "test" else SMALLEST_SIDE,
            factor=factor,
            flow_format=flow_format,
            device=device,
        )
        fields[name] = faults.map(write, group, f"flows, {name}")
    faults.raise_all("the flows")
    for name in pairs:
        index = Index(
            cell_diameter=cell_diameter or NETWORK_DIAMETER,
            flow_format=flow_format,
            fields=fields[name],
        )
        write_index(output / name, index)
    return sum(map(len, fields.values()))


def _write(
    pair: Pair,
    folder: Path,
    smallest: int,
    factor: float,
    flow_format: FlowFormat,
    device: torch.device,
) -> Entry:
    """Write a field's arrays and return its entry in the index."""
    field = annotated(*read_pair(pair))
    limits = percentiles(field.image)
    if factor != 1.0:
        field = shrunk(field, factor)
    height, width = field.labels.shape
    if min(height, width) < smallest:
        raise InputError(
            f"{pair.field}: {width} x {height} pixels at the size that cell_diameter asks for, "
            f"expected at least {smallest} a side"
        )
    _warn_of_large_cells(pair.field, field.labels)
    arrays = {
        "image": np.ascontiguousarray(field.image),
        "flows": encode(flows_of(field.labels, device), flow_format),
        "labels": field.labels.astype(np.uint16),
    }
    paths = {kind: folder / f"{pair.field}_{kind}.npy" for kind in arrays}
    for kind, path in paths.items():
        _save(path, arrays[kind])
    return Entry(
        name=pair.field,
        cells=field.cells,
        diameter=field.diameter,
        scale=factor,
        shape=field.labels.shape,
        percentiles=limits,
        sha256={kind: digest(path) for kind, path in paths.items()},
        source=source_hashes(pair),
    )


def _save(path: Path, array: np.ndarray) -> None:
    """Do what `np.save` does, whose error on a full disk does not say that the disk is full."""
    content = io.BytesIO()
    np.save(content, array)
    path.write_bytes(content.getbuffer())


def _warn_of_large_cells(name: str, labels: np.ndarray) -> None:
    """Warn if the largest cell of a label map takes Cellpose more than a minute.

    Cellpose lets heat spread from the centre of a cell, for twice as many steps as the cell's box
    is high and wide together.
    """
    sizes = [[side.stop - side.start for side in box] for box in find_objects(labels) if box]
    height, width = max(sizes, key=lambda size: sum(size) * size[0] * size[1], default=(0, 0))
    minutes = 2 * (height + width) * height * width * STEP / 60
    if minutes > 1:
        log.warning(
            "%s: the flows of a cell of %d x %d pixels may take %d minutes; the time grows with "
            "the cube of its diameter, so make the fields smaller with --cell_diameter",
            *(name, width, height, round(minutes)),
        )
