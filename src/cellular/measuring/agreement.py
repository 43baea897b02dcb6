"""Agreement: what the errors of a segmentation do to what is read from its cells.

The same fields are measured twice, with the annotated outlines and with a model's. What differs
between single cells, between the means of many, and in who is found at all are three questions.
"""

import itertools
from operator import itemgetter

import numpy as np
import pandas as pd
from scipy import stats
from skimage.segmentation import relabel_sequential

from cellular.imaging.matching import (
    FALSE_POSITIVE,
    FOUND,
    HALF,
    MERGED,
    MERGING,
    MISSED,
    PART,
    SPLIT,
    count_overlaps,
    match,
)
from cellular.measuring.wells import READOUTS

LIMITS = 1.96  # standard deviations between which 95 % of normally distributed differences lie

# The columns of `partners` in their order.
COLUMNS = {"field": "string", "outcome": "string", "label": "Int64", "predicted_label": "Int64"}

# Which part of a difference of means the cells of an outcome make.
PART_OF = {
    FOUND: "outlines",
    **dict.fromkeys((MERGED, SPLIT, MERGING, PART), "merged_and_split"),
    MISSED: "missed",
    FALSE_POSITIVE: "false_positives",
}
PARTS = tuple(dict.fromkeys(PART_OF.values()))

# What the four quarters of the cells are called, from the lowest values to the highest.
BRIGHTNESS = ("dimmest", "second dimmest", "second brightest", "brightest")
SIZE = ("smallest", "second smallest", "second largest", "largest")
QUARTERS = {
    "mean_red": ("in red", BRIGHTNESS),
    "mean_green": ("in green", BRIGHTNESS),
    "area_um2": ("by area", SIZE),
}
# Below this p a quarter differs clearly from the others: 5 %, divided by the number of quarters
# that are looked at (Bonferroni).
CLEAR = 0.05 / (4 * len(QUARTERS))


def partners(field: str, truth: np.ndarray, predicted: np.ndarray) -> pd.DataFrame:
    """Tell what became of each annotated cell of a field, and what each predicted cell is.

    Parameters
    ----------
    field : its name
    truth, predicted : (H, W) label maps; numbers may be missing

    Returns
    -------
    a row for each annotated cell and for each predicted one without a partner: field; outcome, of
    those in `cellular.imaging.matching`; label, of the annotated cell; predicted_label, of the
    predicted cell, which an annotated cell has if it is found
    """
    (true, _, labels), (guess, _, predicted_labels) = map(relabel_sequential, (truth, predicted))
    labels, predicted_labels = np.asarray(labels)[1:], np.asarray(predicted_labels)[1:]
    matching = match(count_overlaps(true, guess))
    pairs = matching.iou >= HALF
    cells = pd.DataFrame({"outcome": matching.true_outcomes, "label": labels})
    cells["predicted_label"] = pd.Series(
        predicted_labels[matching.predicted[pairs]], matching.true[pairs], "Int64"
    )
    others = pd.DataFrame(
        {"outcome": matching.predicted_outcomes, "predicted_label": predicted_labels}
    )
    table = pd.concat([cells, others[others["outcome"] != FOUND]], ignore_index=True)
    return table.assign(field=field)[[*COLUMNS]].astype(COLUMNS)


def agreement(
    annotated: pd.DataFrame, predicted: pd.DataFrame, outcomes: pd.DataFrame
) -> dict[str, dict[str, float]]:
    """Compare the read-outs of the cells that are found with those of their annotated partners.

    Pairs in which a value is undefined are left out.

    Parameters
    ----------
    annotated, predicted : tables of cells, with field, label and `READOUTS`
    outcomes : rows of `partners` of all these fields

    Returns
    -------
    by read-out what is defined of:

    - n, the number of pairs;
    - bias, the mean of predicted minus annotated, and low and high, the limits of agreement: the
      bias -/+ 1.96 standard deviations (J. M. Bland and D. G. Altman, The Lancet 327:307, 1986, doi
      10.1016/S0140-6736(86)90837-8);
    - concordance: 1 if all pairs are equal, 0 if they have nothing to do with each other (L. I-K.
      Lin, Biometrics 45:255, 1989, doi 10.2307/2532051); undefined if all values are the same.
    """
    found = outcomes.loc[outcomes["outcome"] == FOUND, ["field", "label", "predicted_label"]]
    first = found.merge(annotated, "left", on=["field", "label"], validate="1:1")
    second = found.merge(
        predicted.rename(columns={"label": "predicted_label"}),
        "left",
        on=["field", "predicted_label"],
        validate="1:1",
    )
    return {name: _agreement_of(first[name], second[name]) for name in READOUTS}


def _agreement_of(first: pd.Series, second: pd.Series) -> dict[str, float]:
    """Return the measures of agreement of two columns of numbers that are defined."""
    pairs = np.stack([first, second]).astype(float)
    x, y = pairs[:, np.isfinite(pairs).all(axis=0)]
    measures: dict[str, float] = {"n": x.size}
    if x.size:
        measures["bias"] = float(np.mean(y - x))
    if x.size > 1:
        half = LIMITS * float(np.std(y - x, ddof=1))
        measures |= {"low": measures["bias"] - half, "high": measures["bias"] + half}
        spread = np.var(x) + np.var(y) + (x.mean() - y.mean()) ** 2
        # Rounding makes spread of equal values, and none of values whose squares are below 1e-323.
        if np.ptp([x, y]) > 0 and spread > 0:
            measures["concordance"] = float(2 * np.cov(x, y, ddof=0)[0, 1] / spread)
    return measures


def cost(
    annotated: pd.DataFrame, predicted: pd.DataFrame, outcomes: pd.DataFrame, by: str = "field"
) -> pd.DataFrame:
    """Split the difference between predicted and annotated means over cells by kind of error.

    The annotated cells become the predicted ones in four steps: found cells get their predicted
    outlines; merged and split cells are replaced with the merging ones and the parts; missed cells
    are removed; false positives are added. What a step changes depends on which came before, so it
    is averaged over all 24 orders: its Shapley value (L. S. Shapley, "A value for n-person games",
    in Contributions to the Theory of Games II, Princeton, 1953). The four add up to the difference.
    If no cell is left between two steps, the annotated mean stands for the mean of none.

    Parameters
    ----------
    annotated, predicted : tables of cells, with field, label, `READOUTS` and the column `by`; a
        cell whose value is undefined does not take part in the mean of that read-out
    outcomes : rows of `partners` of all these fields; ignored cells take no part
    by : the column that tells whose cells are averaged: field, or well for those of all its fields

    Returns
    -------
    a row for each group and read-out that has both means: the column `by`; readout; annotated,
    predicted, the means; difference, the second minus the first; and its `PARTS`
    """
    groups = pd.Index(sorted(annotated[by].dropna().unique()), name=by)
    before = _totals(annotated, outcomes, "label", groups)
    after = _totals(predicted, outcomes, "predicted_label", groups)
    nothing = np.zeros(len(PARTS), bool)
    start, stop = _means(before, after, nothing), _means(before, after, ~nothing)
    shares = np.zeros((len(PARTS), *start.shape))
    orders = list(itertools.permutations(range(len(PARTS))))
    for order in orders:
        replaced, mean = nothing.copy(), start
        for part in order:
            replaced[part] = True
            changed = _means(before, after, replaced)
            changed = np.where(np.isnan(changed), start, changed)
            shares[part] += changed - mean
            mean = changed
    columns = {"annotated": start, "predicted": stop, "difference": stop - start}
    columns |= dict(zip(PARTS, shares / len(orders), strict=True))
    index = pd.MultiIndex.from_product([groups, [*READOUTS]], names=[by, "readout"])
    table = pd.DataFrame({name: values.ravel() for name, values in columns.items()}, index)
    return table.dropna().reset_index()


def _totals(
    cells: pd.DataFrame, outcomes: pd.DataFrame, label: str, groups: pd.Index
) -> np.ndarray:
    """Return sums and numbers of the defined values: (2, groups, parts, read-outs) float64."""
    known = outcomes[["field", label, "outcome"]].dropna().rename(columns={label: "label"})
    known = known.assign(part=known["outcome"].map(PART_OF))
    rows = cells.merge(known, on=["field", "label"], validate="1:1")
    grouped = rows.groupby([groups.name, "part"])[list(READOUTS)]
    places = pd.MultiIndex.from_product([groups, PARTS])
    shape = len(groups), len(PARTS), len(READOUTS)
    tables = (grouped.sum(), grouped.count())
    return np.stack(
        [table.reindex(places, fill_value=0).to_numpy(float).reshape(shape) for table in tables]
    )


def _means(before: np.ndarray, after: np.ndarray, replaced: np.ndarray) -> np.ndarray:
    """Return the means, (groups, read-outs), with some parts replaced; NaN without cells."""
    total, count = np.where(replaced[:, None], after, before).sum(axis=2)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def recall_by_quarter(annotated: pd.DataFrame, outcomes: pd.DataFrame) -> pd.DataFrame:
    """Count the found among the dimmest to brightest, and the smallest to largest, annotated cells.

    Parameters
    ----------
    annotated : table of the annotated cells of all fields, with field, label, mean_red, mean_green
        and area_um2; cells without a value do not count in that column
    outcomes : rows of `partners` of all these fields

    Returns
    -------
    a row for each column and quarter that has cells: readout, the column; quarter, 1 to 4 from the
    lowest values to the highest; low, high, its lowest and highest value; cells and found, their
    numbers; recall. Cells with equal values are in one quarter.
    """
    cells = annotated.merge(outcomes[["field", "label", "outcome"]], on=["field", "label"])
    cells["found"] = cells["outcome"] == FOUND
    tables = []
    for name in QUARTERS:
        known = cells.dropna(subset=name)
        middle = known[name].rank() - 0.5
        quarter = (4 * middle // max(len(known), 1) + 1).astype(int).rename("quarter")
        counts = known.groupby(quarter).agg(
            low=(name, "min"), high=(name, "max"), cells=("found", "size"), found=("found", "sum")
        )
        tables.append(counts.reset_index().assign(readout=name))
    table = pd.concat(tables, ignore_index=True)
    table["recall"] = table["found"] / table["cells"]
    return table[["readout", "quarter", "low", "high", "cells", "found", "recall"]]


def recall_sentence(recalls: pd.DataFrame) -> str:
    """Say in a sentence whether some annotated cells are found more often than others.

    It is about the quarter that differs most clearly from the other three of its column, by
    Fisher's exact test of the counts (R. A. Fisher, Statistical Methods for Research Workers, 1934,
    section 21.02). The test takes cells for independent: the sentence says what happened to these
    cells, not to those of other wells.

    Parameters
    ----------
    recalls : rows of `recall_by_quarter`
    """
    own = recalls[["cells", "found"]]
    rest = own.groupby(recalls["readout"]).transform("sum") - own
    compared = []
    for row, others in zip(recalls.to_dict("records"), rest.to_dict("records"), strict=True):
        if others["cells"]:
            counts = [[part["found"], part["cells"] - part["found"]] for part in (row, others)]
            p = stats.fisher_exact(counts).pvalue
            compared.append((p, row, others["found"] / others["cells"]))
    if not compared:
        return "There are too few annotated cells to say which of them are found."
    p, row, recall_of_others = min(compared, key=itemgetter(0))
    where, names = QUARTERS[row["readout"]]
    shares = (
        f"Of the {names[row['quarter'] - 1]} quarter {where}, {100 * row['recall']:.0f} % are "
        f"found, of the others {100 * recall_of_others:.0f} %"
    )
    if p < CLEAR:
        return f"{shares}: the cells that are found are not a random sample."
    return (
        f"{shares}, and no quarter by brightness or area differs more clearly: nothing shows that "
        "the cells that are found differ from those that are not."
    )
