"""Conclusions: what the tables of a measurement say, as numbers and sentences for JSON."""

from typing import Any

import pandas as pd

from cellular.measuring.agreement import agreement, recall_sentence
from cellular.measuring.classes import classify
from cellular.measuring.effects import contrast, contrasts_by_time, course, sentence
from cellular.measuring.measurement import ANNOTATED, Measurement
from cellular.measuring.params import MeasureParams
from cellular.measuring.wells import READOUTS


def conclusions(measurement: Measurement, params: MeasureParams, seed: int = 0) -> dict[str, Any]:
    """Return what the tables say, without what is undefined.

    Parameters
    ----------
    seed : decides which splits of wells are tried, if there are too many for all

    Returns
    -------
    dict
        `pixel_size`; by source `sources` (number of cells, means over all of them) and, if wells
        are known, `courses` over time and, if two conditions are given, `contrasts` and
        `contrasts_by_time`, and `sentences` on these; with annotated outlines `classes`, and, if
        models are judged by them, `judged` (the name of these fields together, and of each) and, by
        source, `errors` (of the means over cells, as the mean over these fields), `agreement` and
        `recall`.
    """
    tables = measurement.tables
    cells, wells = tables["cells"], tables["wells"]
    found: dict[str, Any] = {
        "pixel_size": measurement.pixel_size,
        "sources": {
            source: _means(cells[cells["source"] == source]) for source in measurement.sources
        },
        "courses": {source: _of_each(course, rows) for source, rows in _by_source(wells)},
    }
    if len(params.conditions) == 2:
        names = tuple(condition.partition("=")[0] for condition in params.conditions)
        options = {"conditions": names, "seed": seed}
        for name, function in (("contrasts", contrast), ("contrasts_by_time", contrasts_by_time)):
            found[name] = {
                source: _of_each(function, rows, **options) for source, rows in _by_source(wells)
            }
    found["sentences"] = {
        source: [
            *map(sentence, found.get("contrasts", {}).get(source, {}).values()),
            *(sentence(one) for courses in own.values() for one in courses),
        ]
        for source, own in found["courses"].items()
    }
    annotated = cells[cells["source"] == ANNOTATED]
    if len(annotated):
        found["classes"] = classify(annotated)
    if measurement.outcomes:
        found["judged"] = {"split": measurement.split, "fields": measurement.judged}
        found["agreement"] = {
            source: agreement(annotated, cells[cells["source"] == source], own)
            for source, own in measurement.outcomes.items()
        }
        costs = tables["costs"][tables["costs"]["by"] == "field"]
        found["errors"] = {
            source: rows.groupby("readout", sort=False)["difference"].mean().to_dict()
            for source, rows in _by_source(costs)
        }
        found["recall"] = {
            source: recall_sentence(rows.drop(columns="source"))
            for source, rows in _by_source(tables["recall"])
        }
    return found


def _by_source(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of each source, in the order in which sources come."""
    return [(str(source), rows) for source, rows in table.groupby("source", sort=False)]


def _means(cells: pd.DataFrame) -> dict[str, Any]:
    means = cells[[*READOUTS]].mean().dropna()
    return {"cells": len(cells), "means": {name: float(value) for name, value in means.items()}}


def _of_each(function: Any, wells: pd.DataFrame, **options: Any) -> dict[str, Any]:
    return {name: function(wells, name, **options) for name in READOUTS}
