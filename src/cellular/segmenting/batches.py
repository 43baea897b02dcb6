"""Batches: images are segmented one after the other, and each is written when it is done.

An image is finished when its record says by which image, model and settings its files were made.
So a run that was killed goes on, wherever it is started again. In the hidden folder `.done` are

records     a file for each image: its key (`Job.key`), and its row of images.csv
cells       the rows of each image's cells, which the table of all cells is made of
"""

import hashlib
import json
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellular.base import devices
from cellular.base.errors import InputError
from cellular.base.files import remove, whole
from cellular.base.queues import in_order
from cellular.imaging.microscopy import Image, Source
from cellular.measuring.tables import table_of
from cellular.models.folders import Seen
from cellular.network.segmentation import load_model, precision_of, scale_of, segment_all
from cellular.network.settings import Settings
from cellular.segmenting.inputs import check_scaled, of_planes, seen_planes
from cellular.segmenting.outputs import files_of, write_all
from cellular.segmenting.warnings import warnings_of

if TYPE_CHECKING:  # otherwise cellular.base.compiled has to come before it
    from cellpose.models import CellposeModel

DONE = ".done"
AHEAD = 2  # images that are read before the network needs them, and that wait to be written


@dataclass(frozen=True)
class Job:
    """How images are segmented, and where the results go. It is sent to other processes."""

    weights: Path
    sha256: str  # of the weights
    settings: Settings
    seen: Seen | None  # what the training images were like
    output: Path
    pixel_size: float | None = None  # µm, in place of what an image says
    device: str = "auto"

    def key(self, source: Source) -> str:
        """Return a hash of all that decides the result for an image.

        Raises
        ------
        InputError
            If the image cannot be read.
        """
        settings = asdict(self.settings) | {"batch_size": None}  # it decides nothing but speed
        content = [source.digest(), self.sha256, settings, self.pixel_size]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass
class _Read:
    """An image that was read, or what kept it from being read."""

    source: Source
    key: str | None = None
    image: Image | None = None
    planes: np.ndarray | None = None  # what the network sees of it
    fault: str = ""


def load(job: Job) -> tuple["CellposeModel", float]:
    """Return the model of this process, loaded once, and the factor that resizes images for it.

    Raises
    ------
    InputError
        If the model is not valid, or does not work on this device or with these settings.
    """
    # Cellpose's warnings of flat channels; images.csv tells of them by the image's name.
    warnings.filterwarnings("ignore", "'chan", UserWarning, "cellpose")
    model = _model(job.weights, job.device)
    precision_of(model, job.settings)
    return model, scale_of(model, job.settings)


@cache
def _model(weights: Path, device: str) -> "CellposeModel":
    return load_model(weights, devices.choose(device))


def segment_batch(sources: Sequence[Source], job: Job) -> Iterator[dict[str, Any]]:
    """Segment images and write what belongs to each; give its row of images.csv when it is done.

    An image that cannot be read is told in its row, and does not stop the others.

    Raises
    ------
    InputError
        If the model cannot be used (`load`), or an output cannot be written.
    """
    if not sources:
        return
    _, scale = load(job)
    started = time.perf_counter()

    def read(source: Source) -> _Read:
        return _read(source, job, scale)

    def finish(item: tuple[_Read, np.ndarray | None]) -> dict[str, Any]:
        nonlocal started
        found, labels = item
        remove(_record_of(job.output, found.source.name))  # first: the files are others from now on
        row = _write(found, labels, job)
        started, before = time.perf_counter(), started
        row["seconds"] = round(started - before, 3)
        with whole(_record_of(job.output, found.source.name)) as staging:
            staging.write_text(json.dumps({"key": found.key, "row": row}), encoding="utf-8")
        return row

    images = in_order(read, sources, threads=1, ahead=AHEAD)
    with devices.freed_memory_kept():
        yield from in_order(finish, _segmented(images, job), threads=1, ahead=AHEAD)


def _read(source: Source, job: Job, scale: float) -> _Read:
    try:
        key = job.key(source)  # before it is read: a change meanwhile will be noticed
        image = source.read()
        planes = seen_planes(source.name, image.pixels, job.settings.channels)
        check_scaled(source.name, planes, scale)
        return _Read(source, key, image, planes)
    except InputError as error:
        return _Read(source, fault=str(error))
    except Exception as error:  # the readers of many formats raise many kinds
        return _Read(source, fault=f"{source.name}: {type(error).__name__}: {error}")


def _segmented(images: Iterator[_Read], job: Job) -> Iterator[tuple[_Read, np.ndarray | None]]:
    """Give each image with its label map, or None if it could not be read, in order."""
    entered: deque[_Read] = deque()

    def planes() -> Iterator[np.ndarray]:
        for found in images:
            entered.append(found)
            if found.planes is not None:
                yield found.planes

    model, _ = load(job)
    for labels in segment_all(model, planes(), of_planes(job.settings)):
        while entered[0].planes is None:
            yield entered.popleft(), None
        yield entered.popleft(), labels
    for found in entered:
        yield found, None


def _write(read: _Read, labels: np.ndarray | None, job: Job) -> dict[str, Any]:
    """Write the results of an image, and return its row of images.csv."""
    name = read.source.name
    if read.image is None or labels is None:
        for path in (cells_of(job.output, name), *files_of(job.output, name).values()):
            remove(path)  # what an earlier run made of another image of this name
        return {"image": name, "error": " ".join(read.fault.split())}
    image = read.image
    pixel_size = job.pixel_size or image.pixel_size
    cells = table_of(labels, image, pixel_size)
    write_all(job.output, name, labels, image, pixel_size)
    with whole(cells_of(job.output, name)) as staging:
        rows = pd.concat([pd.Series(name, cells.index, name="image"), cells], axis=1)
        rows.to_csv(staging, index=False, float_format="%.8g", lineterminator="\n")
    height, width = labels.shape
    return {
        "image": name,
        "height": height,
        "width": width,
        "channels": "; ".join(image.names),
        "pixel_size_um": pixel_size,
        "cells": len(cells),
        "diameter": float(cells["diameter"].median()) if len(cells) else None,
        "warnings": "; ".join(warnings_of(image, pixel_size, cells, job.seen)),
    }


def finished(source: Source, job: Job) -> dict[str, Any] | None:
    """Return the row of an image that is finished, and whose files are there; otherwise None."""
    record = read_record(job.output, source.name)
    files = [cells_of(job.output, source.name), *files_of(job.output, source.name).values()]
    if record is None or not all(map(Path.is_file, files)):
        return None
    try:
        return record["row"] if record["key"] == job.key(source) else None
    except InputError:  # it cannot be read any more, which `segment_batch` tells
        return None


def read_record(output: Path, name: str) -> dict[str, Any] | None:
    """Return the record of an image, or None if there is none."""
    try:
        return json.loads(_record_of(output, name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _record_of(output: Path, name: str) -> Path:
    return output / DONE / "records" / f"{name}.json"


def cells_of(output: Path, name: str) -> Path:
    """Return the file with the rows of an image's cells."""
    return output / DONE / "cells" / f"{name}.csv"
