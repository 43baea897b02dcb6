"""Matching: which predicted cell belongs to which true cell, from one table of their overlaps.

One matching serves all scores. It is optimal: among all ways to pair true and predicted cells, each
used at most once, it has the most pairs with an intersection over union (IoU) of at least 0.5 and,
among those with as many, the largest sum of IoU. It is the matching of `cellpose.metrics.mask_ious`
and, apart from pairs below 0.5, that of stardist's `matching` (Schmidt et al., MICCAI 2018, doi
10.1007/978-3-030-00934-2_30). A cell can share more than half of a union with only one other cell;
therefore the pairs above any threshold from 0.5 on are an optimal matching at that threshold.

Excluded pixels, which were annotated neither as cell nor as background, are removed from the
predicted cells before matching. A predicted cell that has no partner and had more than half of its
pixels removed is ignored: it is not a false positive (Kirillov et al., Panoptic Segmentation, CVPR
2019, section 4.1, doi 10.1109/CVPR.2019.00963).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import block_array, coo_array, csr_array
from scipy.sparse.csgraph import connected_components

HALF = 0.5  # IoU from which on a cell counts as found

FOUND, MERGED, SPLIT, MISSED = "found", "merged", "split", "missed"
MERGING, PART, FALSE_POSITIVE, IGNORED = "merging", "part", "false positive", "ignored"
TRUE_OUTCOMES = (FOUND, MERGED, SPLIT, MISSED)
PREDICTED_OUTCOMES = (FOUND, MERGING, PART, FALSE_POSITIVE, IGNORED)


@dataclass(frozen=True)
class Overlaps:
    """The pixels that n true and m predicted cells of a field share, without excluded pixels."""

    shared: csr_array  # (n, m) int64
    true_areas: np.ndarray  # (n,) int64
    predicted_areas: np.ndarray  # (m,) int64
    excluded_areas: np.ndarray  # (m,) int64, excluded pixels of each predicted cell
    pixels: int  # of the field, without excluded ones

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Indices of true and predicted cell, shared pixels and IoU, for pairs that share any."""
        entries = self.shared.tocoo()
        true, predicted = entries.coords
        unions = self.true_areas[true] + self.predicted_areas[predicted] - entries.data
        return true, predicted, entries.data, entries.data / unions


@dataclass(frozen=True)
class Matching:
    """The pairs of an optimal matching, and the outcome of every cell."""

    true: np.ndarray  # (k,) index of the true cell of each pair, ascending
    predicted: np.ndarray  # (k,) index of its predicted cell
    shared: np.ndarray  # (k,) number of pixels in both
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
    excluded : (H, W) bool, pixels that do not count, except those of true cells
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"shapes {truth.shape} and {predicted.shape} differ")
    n, m = int(truth.max(initial=0)), int(predicted.max(initial=0))
    row = truth.ravel().astype(np.int64)
    if excluded is not None:
        row[excluded.ravel() & (row == 0)] = n + 1
    pair = row * (m + 1) + predicted.ravel()
    # Cells are wider than a pixel, so runs of the same pair in a row of the image count at once.
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
    """Match true and predicted cells, and find the outcome of each.

    The outcome of a true cell is the first of these that holds:

    - found: matched with an IoU of at least 0.5;
    - merged: more than half of it lies in a predicted cell that also contains more than half of
      another true cell;
    - split: it contains more than half of each of two or more predicted cells;
    - missed: any other cell, including those whose outline is too far off.

    The outcome of a predicted cell is the first of these that holds:

    - found: matched with an IoU of at least 0.5;
    - ignored: more than half of its pixels are excluded;
    - merging: it contains more than half of each of two or more true cells;
    - part: it is one of the predicted cells that a true cell is split into;
    - false positive: any other cell.

    To contain more than half of a cell is the Cell Tracking Challenge's criterion for detection
    (Matula et al., PLoS ONE 10:e0144959, 2015), which is applied here in both directions.
    """
    n, m = overlaps.shared.shape
    rows, columns, pixels, ious = overlaps.pairs
    chosen = assign(rows, columns, ious, (n, m))
    found = chosen[ious[chosen] >= HALF]
    ignored = overlaps.excluded_areas > overlaps.predicted_areas
    ignored[columns[found]] = False
    if ignored.any():
        # Match again without the ignored cells, so that they take no true cell from another one.
        counted = ~ignored[columns]
        rows, columns, pixels, ious = (of[counted] for of in (rows, columns, pixels, ious))
        chosen = assign(rows, columns, ious, (n, m))
        found = chosen[ious[chosen] >= HALF]
    true_found, predicted_found = np.zeros(n, bool), np.zeros(m, bool)
    true_found[rows[found]] = True
    predicted_found[columns[found]] = True

    most_of_true = 2 * pixels > overlaps.true_areas[rows]
    most_of_predicted = 2 * pixels > overlaps.predicted_areas[columns]
    merging = np.bincount(columns[most_of_true], minlength=m) > 1
    divided = np.bincount(rows[most_of_predicted], minlength=n) > 1
    merged, parts = np.zeros(n, bool), np.zeros(m, bool)
    merged[rows[most_of_true & merging[columns]]] = True
    parts[columns[most_of_predicted & divided[rows]]] = True
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


def assign(
    true: np.ndarray, predicted: np.ndarray, iou: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Return which of the pairs that share pixels are in the optimal matching, ascending.

    Groups of cells that share no pixel with other groups are matched separately, so that the full
    table of thousands of cells is never needed.
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
