"""Measurement: the read-out of many fields, with annotated outlines and with those of models.

Its tables, each of which becomes a file:

cells, puncta        a row for each cell, and for each punctum
fields, wells        means over the cells of a field, and of a well at a time point
costs                what errors of outlines do to the means of fields and wells, by kind of error
recall               how many of the dim and the bright, the small and the large cells are found
bearing              means after annotated outlines were moved, or annotated cells merged
courses/<source>     means over wells at each time point, of all and of each condition

Costs, recall and bearing compare models with annotated outlines, and are there if both are.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from cellular.base.errors import InputError
from cellular.base.queues import in_order
from cellular.imaging.fields import Pair, read_classes
from cellular.imaging.images import read_labels
from cellular.imaging.masks import check_size
from cellular.measuring.agreement import cost, partners, recall_by_quarter
from cellular.measuring.channels import Channels
from cellular.measuring.params import MeasureParams
from cellular.measuring.perturbed import bearing
from cellular.measuring.quality import flags_of
from cellular.measuring.readout import Field, field_of, measure
from cellular.measuring.wells import READOUTS, by_field, by_well, natural_order

log = logging.getLogger(__name__)

ANNOTATED = "annotated"  # the source of outlines that all others are compared with
AHEAD = 1  # fields that are read before they are measured
KEYS = ["source", "field"]


@dataclass(frozen=True)
class Outlines:
    """The label maps of fields."""

    maps: Mapping[str, Mapping[str, Path]]  # by source and field
    annotated: Mapping[str, Pair]  # the annotated fields among them, whose cells may have classes
    judged: Sequence[str]  # annotated fields on which the other sources are judged
    split: str = ""  # what these fields are called together


@dataclass(frozen=True)
class Measurement:
    """The tables by name, and what became of the cells of judged fields, by source."""

    tables: dict[str, pd.DataFrame]
    outcomes: dict[str, pd.DataFrame]  # `cellular.measuring.agreement.partners`
    sources: list[str]  # of outlines, also those without a cell
    judged: list[str]  # the fields of `outcomes`
    split: str  # what they are called together
    pixel_size: float  # µm, of the first field


@dataclass(frozen=True)
class _Measured:
    """What was measured in one field."""

    pixel_size: float
    cells: list[pd.DataFrame]  # of each source
    puncta: list[pd.DataFrame]
    origins: list[dict]  # source, field, and what its name tells
    quality: dict  # of the field
    outcomes: dict[str, pd.DataFrame]  # of a judged field, by source
    bearing: list[pd.DataFrame]  # of a judged field


def measure_fields(
    channels: Mapping[str, Channels],
    outlines: Outlines,
    params: MeasureParams,
    *,
    pixel_size: float | None = None,
    seed: int = 0,
) -> Measurement:
    """Measure all fields that have channels and a label map.

    Parameters
    ----------
    channels : by field
    pixel_size : µm, in place of what the files say
    seed : decides which cells are merged to see what that changes

    Raises
    ------
    UnknownChannels
        If it is not known which channel is which, or how large a pixel is.
    InputError
        If no field has both, or a file cannot be read, or sizes differ.
    """
    labelled = {name for own in outlines.maps.values() for name in own}
    names = [name for name in channels if name in labelled]
    if not names:
        raise InputError(
            f"{next(iter(channels))}: no label map of that name, nor for any other of "
            f"{len(channels)} fields; there is one of {min(labelled)}; give both the same name"
        )
    if left := sorted(channels.keys() - labelled):
        log.warning(
            "%d field%s without a label map left out: %s%s",
            *(len(left), "s" * (len(left) > 1), left[0], " and others" * (len(left) > 1)),
        )
    if not any("well" in params.origin(name) for name in names):
        log.warning(
            "no name of a field, such as %s, tells its well, so nothing is said of wells; "
            "measure.names (--names) says how to read them",
            names[0],
        )

    def read(name: str) -> tuple[str, Field, dict[str, np.ndarray]]:
        red, green, size = channels[name].read(params, pixel_size)
        maps = _maps(name, outlines, red.shape)
        inside = np.any([labels > 0 for labels in maps.values()], axis=0)
        return name, field_of(red, green, size, params, inside), maps

    bar = tqdm(names, "measure", unit="field", leave=False)
    ready = in_order(read, bar, threads=1, ahead=AHEAD)
    measured = [_measured(*item, outlines, params, seed) for item in ready]
    quality = pd.DataFrame([one.quality for one in measured])
    quality["flags"] = flags_of(quality)
    cells = _joined(table for one in measured for table in one.cells)
    cells = cells.merge(quality[["field", "flags"]], "left", on="field")
    outcomes = {
        source: _joined(one.outcomes[source] for one in measured if source in one.outcomes)
        for source in outlines.maps
        if any(source in one.outcomes for one in measured)
    }
    wells = by_well(cells)
    tables = {
        "cells": cells,
        "puncta": _joined(table for one in measured for table in one.puncta),
        "fields": _fields([row for one in measured for row in one.origins], quality, cells),
        "wells": wells,
    }
    tables |= {f"courses/{source}": rows for source, rows in _courses(wells).items()}
    if outcomes:
        tables |= {"costs": _costs(cells, outcomes), "recall": _recall(cells, outcomes)}
        tables["bearing"] = _joined(table for one in measured for table in one.bearing)
    judged = [name for name in names if name in outlines.judged]
    sources = list(outlines.maps)
    return Measurement(tables, outcomes, sources, judged, outlines.split, measured[0].pixel_size)


def _measured(
    name: str,
    field: Field,
    maps: dict[str, np.ndarray],
    outlines: Outlines,
    params: MeasureParams,
    seed: int,
) -> _Measured:
    """Measure a field with the label maps of all sources."""
    origin = params.origin(name)
    found = _Measured(field.pixel_size, [], [], [], {"field": name} | field.quality, {}, [])
    for source, labels in maps.items():
        reading = measure(field, labels)
        about = {"source": source, "field": name}
        cells = reading.cells.assign(**dict.fromkeys(("timepoint", "well", "condition", "class")))
        cells = cells.assign(**about, **origin)
        if source == ANNOTATED and (classes := read_classes(outlines.annotated[name])):
            cells["class"] = classes
        found.cells.append(cells[[*KEYS, *cells.columns.drop(KEYS)]])
        puncta = reading.puncta.assign(**about)
        found.puncta.append(puncta[[*KEYS, *puncta.columns.drop(KEYS)]])
        found.origins.append(about | origin)
    if name in outlines.judged and ANNOTATED in maps and len(maps) > 1:
        truth = maps.pop(ANNOTATED)
        for source, labels in maps.items():
            found.outcomes[source] = partners(name, truth, labels)
        table = bearing(truth, lambda labels: measure(field, labels, shapes=False).cells, seed)
        found.bearing.append(table.assign(field=name)[["field", *table.columns]])
    return found


def _maps(name: str, outlines: Outlines, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return the label maps of a field, by source."""
    paths = {source: own[name] for source, own in outlines.maps.items() if name in own}
    maps = {source: read_labels(path) for source, path in paths.items()}
    for source, labels in maps.items():
        check_size(paths[source], labels.shape, Path(f"the channels of {name}"), shape)
    return maps


def _fields(origins: list[dict], quality: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each source and field, those without cells too."""
    rows = pd.DataFrame(origins).reindex(columns=[*KEYS, "timepoint", "well", "condition"])
    means = by_field(cells)[[*KEYS, "cells", *READOUTS]]
    table = rows.merge(quality, "left", on="field").merge(means, "left", on=KEYS)
    return table.fillna({"cells": 0}).astype({"cells": int})


def _courses(wells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return by source the means over wells at each time point, of all and of each condition."""
    courses = {}
    for source, rows in wells.groupby("source", sort=True):
        means = [rows.groupby("timepoint")[[*READOUTS]].mean()]
        for condition, own in rows.groupby("condition", sort=True):
            of_condition = own.groupby("timepoint")[[*READOUTS]].mean()
            means.append(of_condition.add_suffix(f"_{condition}"))
        table = pd.concat(means, axis=1).reset_index()
        courses[str(source)] = table.sort_values("timepoint", key=natural_order)
    return courses


def _costs(cells: pd.DataFrame, outcomes: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return `cost` of fields and of wells, of all sources."""
    tables = []
    for source, own in outcomes.items():
        judged = cells[cells["field"].isin(own["field"])]
        annotated, predicted = (judged[judged["source"] == name] for name in (ANNOTATED, source))
        for by in ("field", "well"):
            table = cost(annotated, predicted, own, by).rename(columns={by: "group"})
            table.insert(0, "by", by)
            table.insert(0, "source", source)
            tables.append(table)
    return _joined(tables)


def _recall(cells: pd.DataFrame, outcomes: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return `recall_by_quarter` of all sources."""
    annotated = cells[cells["source"] == ANNOTATED]
    tables = []
    for source, own in outcomes.items():
        table = recall_by_quarter(annotated, own)
        table.insert(0, "source", source)
        tables.append(table)
    return _joined(tables)


def _joined(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(list(tables), ignore_index=True)
