"""Groups: scores of the cells of a class, well, time point, size and so on."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cellular.imaging.matching import FOUND
from cellular.scoring.scores import AT, FieldResult, quantities, scores_of

SIZES = ("smallest", "small", "large", "largest")  # quarters of the true cells, by diameter
# Kinds of groups with precision and F1: predicted cells without a partner belong to them as well.
# Such cells have no class, and how crowded they would be is unknown.
OF_BOTH = ("well", "timepoint", "size", "border")


def size_limits(results: Sequence[FieldResult]) -> list[float]:
    """Return the three quartiles of the true cells' diameters, in pixels; empty without cells."""
    diameters = pd.concat([result.cells["diameter"] for result in results]).dropna()
    return np.quantile(diameters, (0.25, 0.5, 0.75)).tolist() if len(diameters) else []


def groups(results: Sequence[FieldResult]) -> dict[str, dict[str, dict]]:
    """Return the scores of each group of cells, of all fields together.

    The size of a cell is its diameter; a predicted cell without a partner has the predicted one.

    Returns
    -------
    dict
        By kind (class, well, timepoint, size, crowding, border) and group: the number of `cells`,
        how many are `found`, `recall` and `mean_iou`; for the kinds in `OF_BOTH` also `precision`
        and `f1`. Kinds that are unknown for all cells are left out.
    """
    cells = pd.concat([result.cells for result in results], ignore_index=True)
    sums = quantities(cells)
    limits = size_limits(results)
    found: dict[str, dict[str, dict]] = {}
    for kind, names in kinds_of(cells, limits).items():
        rows = names.groupby(names, observed=True, sort=True).groups
        of_kind = {
            str(name): _scores(kind, cells.iloc[index], sums[index]) for name, index in rows.items()
        }
        of_kind = {name: scores for name, scores in of_kind.items() if scores["cells"]}
        if of_kind:
            found[kind] = of_kind
    return found


def kinds_of(cells: pd.DataFrame, limits: list[float]) -> dict[str, pd.Series]:
    """Return the group of each row by kind; it is missing where a row has none.

    Parameters
    ----------
    cells : rows with `cellular.scoring.cells.COLUMNS`
    limits : the quartiles of the diameters, from `size_limits`
    """
    kinds = {name: cells[name] for name in ("class", "well", "timepoint")}
    if limits:
        diameter = cells["diameter"].fillna(cells["predicted_diameter"])
        quarter = np.array(SIZES)[np.searchsorted(limits, diameter)]
        kinds["size"] = pd.Series(pd.Categorical(quarter, SIZES, ordered=True), cells.index)
    kinds["crowding"] = cells["crowded"].map({True: "crowded", False: "alone"}).astype("string")
    kinds["border"] = cells["border"].map({True: "touching", False: "inside"}).astype("string")
    return kinds


def _scores(kind: str, cells: pd.DataFrame, sums: np.ndarray) -> dict[str, float | int]:
    totals = sums.sum(axis=0)
    scores = scores_of(totals)
    names = ["recall", "mean_iou"] + (["precision", "f1"] if kind in OF_BOTH else [])
    found = {"cells": int(totals[AT["cells"]]), "found": int((cells["outcome"] == FOUND).sum())}
    values = {name: float(scores["objects", name]) for name in names}
    return found | {name: value for name, value in values.items() if not np.isnan(value)}
