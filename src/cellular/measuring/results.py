"""Results: the files of a measurement, all of which appear or none."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cellular.base.files import together, write_json
from cellular.imaging.images import read_labels
from cellular.measuring.channels import Channels
from cellular.measuring.conclusions import conclusions
from cellular.measuring.gallery import gallery
from cellular.measuring.measurement import Measurement, Outlines
from cellular.measuring.params import MeasureParams


def summary_of(output: Path) -> Path:
    """Return the file for numbers and sentences that belongs to a folder of tables."""
    return output.with_name(f"{output.name}.json")


def write_reason(output: Path, reason: str) -> None:
    """Write an empty folder, and why there is nothing in it."""
    with together(output, summary_of(output)) as (folder, file):
        folder.mkdir()
        write_json(file, {"reason": reason})


def write_measurement(
    output: Path,
    found: Measurement,
    channels: Mapping[str, Channels],
    outlines: Outlines,
    params: MeasureParams,
    seed: int = 0,
) -> None:
    """Write tables, pictures of cells, and what the tables say.

    Parameters
    ----------
    output : a new folder; numbers and sentences go to `summary_of` it
    found : what `measure_fields` has returned for `channels`, `outlines` and `params`
    seed : as for `cellular.measuring.conclusions`
    """
    source = next(iter(outlines.maps))

    def read(field: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        red, green, _ = channels[field].read(params, found.pixel_size)
        return red, green, read_labels(outlines.maps[source][field])

    content = conclusions(found, params, seed) | {"gallery": []}
    with together(output, summary_of(output)) as (folder, file):
        for name, table in found.tables.items():
            path = folder / f"{name}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(path, index=False, float_format="%.8g", lineterminator="\n")
        (folder / "cells").mkdir()
        cells, puncta = found.tables["cells"], found.tables["puncta"]
        own = cells[cells["source"] == source], puncta[puncta["source"] == source]
        for number, (picture, about) in enumerate(gallery(own[0], own[1], read), start=1):
            about["picture"] = f"cells/{number}.png"
            picture.save(folder / about["picture"], optimize=True)
            content["gallery"].append(about)
        write_json(file, content)
