"""Batches: images are segmented one after the other, and each is written when it is done.

An image is finished when its record, in the hidden folder `.done`, says by which image, model and
settings it was made. So a run that was killed goes on, wherever it is started again.
"""

import hashlib
import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cellpose.models import CellposeModel

from cellular.base import devices
from cellular.base.errors import InputError
from cellular.base.files import whole
from cellular.base.queues import in_order
from cellular.imaging.fields import check_channels
from cellular.imaging.microscopy import Image, Source
from cellular.models.folders import Seen
from cellular.network.segmentation import check_large_enough, load_model, scale_of, segment_all
from cellular.network.settings import Settings
from cellular.segmenting.outputs import files_of, write_all
from cellular.segmenting.tables import table_of
from cellular.segmenting.warnings import warnings_of

DONE = ".done"  # folder of records and of the rows of each image's cells
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
        """Return a hash of all that decides the result for an image."""
        settings = asdict(self.settings) | {"batch_size": None}  # it decides nothing but speed
        content = [source.digest(), self.sha256, settings, self.pixel_size]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass
class _Read:
    """An image that was read, or what kept it from being read."""

    source: Source
    image: Image | None = None
    fault: str = ""


def segment_batch(sources: Sequence[Source], job: Job) -> Iterator[dict[str, Any]]:
    """Segment images and write what belongs to each; give its row of images.csv when it is done.

    An image that cannot be read is told in its row, and does not stop the others.

    Raises
    ------
    InputError
        If the model does not work on this device, or an output cannot be written.
    """
    model = _model(job.weights, job.device)
    scale = scale_of(model, job.settings)
    entered: deque[_Read] = deque()
    started = time.perf_counter()

    def read(source: Source) -> _Read:
        try:
            image = source.read()
            check_channels(Path(source.name), image.pixels, job.settings.channels)
            check_large_enough(image.pixels, scale)
            return _Read(source, image)
        except InputError as error:
            return _Read(source, fault=str(error))
        except Exception as error:  # the readers of many formats raise many kinds
            return _Read(source, fault=f"{type(error).__name__}: {error}")

    def images() -> Iterator[np.ndarray]:
        for found in in_order(read, sources, threads=1, ahead=AHEAD):
            entered.append(found)
            if found.image is not None:
                yield found.image.pixels

    def found() -> Iterator[tuple[_Read, np.ndarray | None]]:
        for labels in segment_all(model, images(), job.settings):
            while entered[0].image is None:
                yield entered.popleft(), None
            yield entered.popleft(), labels
        while entered:
            yield entered.popleft(), None

    def finish(item: tuple[_Read, np.ndarray | None]) -> dict[str, Any]:
        nonlocal started
        row = _finish(*item, job)
        started, before = time.perf_counter(), started
        row["seconds"] = round(started - before, 3)
        _write_record(job, item[0].source, row)
        return row

    yield from in_order(finish, found(), threads=1, ahead=AHEAD)


@cache
def _model(weights: Path, device: str) -> CellposeModel:
    """Return the model of this process, which is loaded once."""
    return load_model(weights, devices.choose(device))


def _finish(read: _Read, labels: np.ndarray | None, job: Job) -> dict[str, Any]:
    """Write the results of an image, and return its row of images.csv."""
    name = read.source.name
    if read.image is None or labels is None:
        return {"image": name, "error": " ".join(read.fault.split())}
    image = read.image
    pixel_size = job.pixel_size or image.pixel_size
    cells = table_of(labels, image, pixel_size)
    write_all(job.output, name, labels, image, pixel_size)
    rows = pd.concat([pd.Series(name, cells.index, name="image"), cells], axis=1)
    with whole(cells_of(job.output, name)) as staging:
        rows.to_csv(staging, index=False, float_format="%.8g", lineterminator="\n")
    height, width = labels.shape
    return {
        "image": name,
        "height": height,
        "width": width,
        "channels": " ".join(image.names),
        "pixel_size_um": pixel_size,
        "cells": len(cells),
        "diameter": float(cells["diameter"].median()) if len(cells) else None,
        "warnings": "; ".join(warnings_of(image, pixel_size, cells, job.seen)),
    }


def _write_record(job: Job, source: Source, row: dict[str, Any]) -> None:
    """Write the record of an image, after all that belongs to it; a fault has no key."""
    key = None if "error" in row else job.key(source)
    with whole(_record_of(job.output, source.name)) as staging:
        staging.write_text(json.dumps({"key": key, "row": row}), encoding="utf-8")


def finished(source: Source, job: Job) -> dict[str, Any] | None:
    """Return the row of an image that is finished, and whose files are there; otherwise None."""
    record = read_record(job.output, source.name)
    files = [cells_of(job.output, source.name), *files_of(job.output, source.name).values()]
    if record is None or record["key"] != job.key(source) or not all(map(Path.exists, files)):
        return None
    return record["row"]


def read_record(output: Path, name: str) -> dict[str, Any] | None:
    """Return the record of an image, or None if there is none that can be read."""
    try:
        return json.loads(_record_of(output, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _record_of(output: Path, name: str) -> Path:
    return output / DONE / f"{name}.json"


def cells_of(output: Path, name: str) -> Path:
    """Return the file with the rows of an image's cells."""
    return output / DONE / f"{name}.csv"
