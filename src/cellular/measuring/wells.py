"""Wells: the means of the read-outs over the cells of a field, and over those of a well."""

from typing import Any, NamedTuple

import pandas as pd
from natsort import natsorted


class Readout(NamedTuple):
    """What a column of the table of cells is called in a sentence."""

    name: str
    unit: str  # empty: a count or a fraction, which has none


# The columns of the table of cells that are averaged, compared and reported.
READOUTS = {
    "area_um2": Readout("area of a cell", "µm²"),
    "mean_red": Readout("red intensity of a cell", "grey levels"),
    "mean_green": Readout("green intensity of a cell", "grey levels"),
    "ratio": Readout("ratio of red to green intensity", ""),
    "red_puncta": Readout("red puncta a cell", ""),
    "red_puncta_per_100um2": Readout("red puncta per 100 µm² of a cell", ""),
    "green_puncta": Readout("green puncta a cell", ""),
    "red_only_fraction": Readout("fraction of red puncta without green", ""),
}

TEXTS = ("source", "field", "well", "condition", "timepoint")


def by_field(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the means of each field.

    A cell without a finite value of a read-out is left out of its mean. A field without any cell
    has no row in the table of cells, so it has none here.

    Parameters
    ----------
    cells : the table of cells, one row a cell and source of its outline; columns that are not there
        count as unknown

    Returns
    -------
    one row a source and field, sorted: source, field, well, condition and timepoint (string,
    missing if unknown), cells (int64, their number), `READOUTS` (float64, NaN if undefined)
    """
    return _means(cells, list(TEXTS)).drop(columns="fields")


def by_well(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the means of each well at each time point, over the cells of all its fields.

    All cells count alike, so a field with more cells has more weight. Cells of an unknown well are
    left out; otherwise as `by_field`.

    Returns
    -------
    one row a source, well, condition and timepoint, sorted: these four (string), fields and cells
    (int64, their numbers), `READOUTS` (float64)
    """
    table = _means(cells, ["source", "well", "condition", "timepoint"])
    return table.dropna(subset="well", ignore_index=True)


def natural_order(texts: pd.Series) -> pd.Series:
    """Return the rank of each text, 2 before 10, as a key to sort a table; NaN if unknown."""
    ranks = {text: rank for rank, text in enumerate(natsorted(texts.dropna().unique()))}
    return texts.map(ranks)


def _means(cells: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    types: dict[str, Any] = dict.fromkeys(TEXTS, "string") | dict.fromkeys(READOUTS, "float64")
    table = cells.reindex(columns=list(types)).astype(types)
    # A ratio to nothing is infinite, and one such cell would be the mean of its well.
    table[[*READOUTS]] = table[[*READOUTS]].where(table[[*READOUTS]].abs() < float("inf"))
    groups = table.groupby(keys, dropna=False, sort=True)
    counts = pd.DataFrame({"fields": groups["field"].nunique(), "cells": groups.size()})
    means = counts.astype("int64").join(groups[[*READOUTS]].mean()).reset_index()
    means = means.sort_values(keys, key=natural_order, ignore_index=True)
    return means.astype(dict.fromkeys(keys, "string"))
