"""Matching: which predicted cell is which true one, from one table of their overlaps.

One matching serves all scores. It is optimal: of all ways to pair true and predicted cells, each
used once, it has the most pairs with an intersection over union (IoU) of at least 0.5 and, among
those ways, the largest sum of IoU. That is the matching of `cellpose.metrics.mask_ious` and, up to
pairs below 0.5, of stardist's `matching` (Schmidt et al., MICCAI 2018, doi
10.1007/978-3-030-00934-2_30). Where two cells share more than half of their union, neither does so
with another, so that the pairs that reach any threshold above 0.5 are those of an optimal matching
at that threshold.

Excluded pixels, if there are any, are taken out of the predicted cells before they are matched. A
predicted cell that finds no true one is ignored if more than half of it is excluded. These are the
rules for "void" pixels of Kirillov et al. (Panoptic Segmentation, CVPR 2019, section 4.1, doi
10.1109/CVPR.2019.00963).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import block_array, coo_array, csr_array
from scipy.sparse.csgraph import connected_components

HALF = 0.5  # of the union, at which a cell counts as found

FOUND, MERGED, SPLIT, MISSED = "found", "merged", "split", "missed"  # of a true cell
MERGING, PART, IGNORED = "merging", "part", "ignored"  # of a predicted one, beside found
FALSE_POSITIVE = "false positive"
TRUE_OUTCOMES = (FOUND, MERGED, SPLIT, MISSED)
PREDICTED_OUTCOMES = (FOUND, MERGING, PART, FALSE_POSITIVE, IGNORED)


@dataclass(frozen=True)
class Overlaps:
    """The pixels that n true and m predicted cells of a field share, without excluded pixels."""

    shared: csr_array  # (n, m) int64
    true_areas: np.ndarray  # (n,) int64
    predicted_areas: np.ndarray  # (m,) int64
    excluded_areas: np.ndarray  # (m,) int64, of each predicted cell
    pixels: int  # of the field

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Index of true and of predicted cell, shared pixels, and IoU of each pair that has any."""
        entries = self.shared.tocoo()
        true, predicted = entries.coords
        unions = self.true_areas[true] + self.predicted_areas[predicted] - entries.data
        return true, predicted, entries.data, entries.data / unions


@dataclass(frozen=True)
class Matching:
    """The pairs of an optimal matching, and what became of every cell."""

    true: np.ndarray  # (k,) index of the true cell of each pair, ascending
    predicted: np.ndarray  # (k,) index of its predicted cell
    shared: np.ndarray  # (k,) pixels that both have
    iou: np.ndarray  # (k,) above 0
    true_outcomes: np.ndarray  # (n,) of TRUE_OUTCOMES
    predicted_outcomes: np.ndarray  # (m,) of PREDICTED_OUTCOMES


def count_overlaps(
    truth: np.ndarray, predicted: np.ndarray, excluded: np.ndarray | None = None
) -> Overlaps:
    """Count the overlaps of two label maps in one pass.

    Parameters
    ----------
    truth, predicted : (H, W) label maps, numbered 1 to n and 1 to m without gaps
    excluded : (H, W) bool, pixels that do not count; true cells keep theirs
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"shapes {truth.shape} and {predicted.shape} differ")
    n, m = int(truth.max(initial=0)), int(predicted.max(initial=0))
    row = truth.ravel().astype(np.int64)
    if excluded is not None:
        row[excluded.ravel() & (row == 0)] = n + 1
    pair = row * (m + 1) + predicted.ravel()
    # Cells are wider than a pixel: runs of one pair in a row of the image are counted at once.
    starts = np.flatnonzero(np.diff(pair, prepend=-1))
    lengths = np.diff(starts, append=pair.size)
    rows, columns = np.divmod(pair[starts], m + 1)
    table = coo_array((lengths, (rows, columns)), shape=(n + 2, m + 1)).tocsr()
    return Overlaps(
        shared=table[1 : n + 1, 1:],
        true_areas=np.asarray(table[1 : n + 1].sum(axis=1)).ravel(),
        predicted_areas=np.asarray(table[: n + 1, 1:].sum(axis=0)).ravel(),
        excluded_areas=table[[n + 1], 1:].toarray().ravel(),
        pixels=int(table[: n + 1].sum()),
    )


def match(overlaps: Overlaps) -> Matching:
    """Match true and predicted cells, and tell what became of each.

    Every true cell has one outcome, the first of these that holds:

    - found: matched with an IoU of at least 0.5;
    - merged: more than half of it lies in a predicted cell that also holds more than half of
      another true cell;
    - split: two or more predicted cells lie in it by more than half of their own area;
    - missed: all others, those that are outlined too badly among them.

    And every predicted one: found; ignored, if more than half of it is excluded; merging, if it
    holds two or more true cells so; part, if it is one of those that a true cell is split into;
    false positive.
    "More than half of a cell lies in" is the Cell Tracking Challenge's rule of detection (Matula
    et al., PLoS ONE 10:e0144959, 2015), in both directions.
    """
    n, m = overlaps.shared.shape
    rows, columns, pixels, ious = overlaps.pairs
    chosen = _assign(rows, columns, ious, (n, m))
    found = chosen[ious[chosen] >= HALF]
    ignored = overlaps.excluded_areas > overlaps.predicted_areas
    ignored[columns[found]] = False
    if ignored.any():
        # What is ignored is as if it were not there: it takes no true cell from another.
        counted = ~ignored[columns]
        rows, columns, pixels, ious = (of[counted] for of in (rows, columns, pixels, ious))
        chosen = _assign(rows, columns, ious, (n, m))
        found = chosen[ious[chosen] >= HALF]
    true_found, predicted_found = np.zeros(n, bool), np.zeros(m, bool)
    true_found[rows[found]] = True
    predicted_found[columns[found]] = True

    held = 2 * pixels > overlaps.true_areas[rows]
    lying = 2 * pixels > overlaps.predicted_areas[columns]
    merging = np.bincount(columns[held], minlength=m) > 1
    divided = np.bincount(rows[lying], minlength=n) > 1
    merged, parts = np.zeros(n, bool), np.zeros(m, bool)
    merged[rows[held & merging[columns]]] = True
    parts[columns[lying & divided[rows]]] = True
    return Matching(
        rows[chosen],
        columns[chosen],
        pixels[chosen],
        ious[chosen],
        np.select([true_found, merged, divided], [FOUND, MERGED, SPLIT], MISSED),
        np.select(
            [predicted_found, ignored, merging, parts],
            [FOUND, IGNORED, MERGING, PART],
            FALSE_POSITIVE,
        ),
    )


def _assign(
    true: np.ndarray, predicted: np.ndarray, iou: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Return which of the pairs that share pixels are in the optimal matching, ascending.

    Cells that share no pixel with the rest are matched among themselves: the whole table of
    thousands of cells is never filled.
    """
    if not iou.size:
        return np.zeros(0, np.int64)
    graph = coo_array((np.ones_like(iou), (true, predicted)), shape=shape)
    _, group = connected_components(block_array([[None, graph], [graph.T, None]]), directed=False)
    order = np.argsort(group[true], kind="stable")
    bounds = np.flatnonzero(np.diff(group[true][order])) + 1
    chosen = []
    for members in np.split(order, bounds):
        if members.size == 1:
            chosen.append(members)
            continue
        rows, row_of = np.unique(true[members], return_inverse=True)
        columns, column_of = np.unique(predicted[members], return_inverse=True)
        table = np.full((rows.size, columns.size), -1)
        table[row_of, column_of] = members
        weight = np.where(table >= 0, iou[table], 0.0)
        costs = -(weight >= HALF).astype(float) - weight / (2 * min(weight.shape))
        pairs = table[linear_sum_assignment(costs)]
        chosen.append(pairs[pairs >= 0])
    return np.sort(np.concatenate(chosen))
