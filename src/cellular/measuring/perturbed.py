"""Perturbed label maps: how much error of a segmentation the read-out bears.

Annotated outlines are moved, or annotated cells merged, and measured again. What changes is set
beside the average precision that such a segmentation would have.
"""

from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import pandas as pd
from skimage.segmentation import relabel_sequential

from cellular.base.queues import cores, in_order
from cellular.imaging.masks import numbered
from cellular.imaging.matching import FOUND, count_overlaps, match
from cellular.measuring.wells import READOUTS
from cellular.scoring.boundaries import NEIGHBOURS, outlines

MOVES = (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5)  # pixels
MOVED, MERGED = "moved", "merged"
THREADS = 4  # each needs 0.2 GB for a field of 2048 x 2048 pixels
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)  # of the cells


def moved(labels: np.ndarray, pixels: int) -> np.ndarray:
    """Move all outlines outwards, or inwards: a label map of the same kind.

    Cells keep their labels. Growing cells meet halfway, and shrinking ones may vanish, or fall into
    pieces. The frame of the image is no outline.

    Parameters
    ----------
    labels : (H, W) label map
    pixels : how far; below 0: inwards
    """
    if pixels < 0:
        inner = (labels > 0) & ~outlines(labels)
        depth = cv2.distanceTransform(inner.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return np.where(depth >= -pixels, labels, 0)
    # `skimage.segmentation.expand_labels` needs 0.42 s for a field of 2048 x 2048 pixels, this
    # 0.06 s. Up to 5 pixels, the cells cover the same pixels.
    distance, nearest = cv2.distanceTransformWithLabels(
        (labels == 0).view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    cells = labels > 0
    label_of = np.zeros(nearest.max() + 1, labels.dtype)
    label_of[nearest[cells]] = labels[cells]
    return np.where(distance <= pixels, label_of[nearest], 0)


def merged(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Merge pairs of neighbouring cells, drawn at random: each pair gets its lower label.

    Pairs that touch come first. If these do not suffice, pairs follow that would touch if all cells
    grew until they filled the image. With one seed, a larger share merges the same pairs and more.

    Parameters
    ----------
    labels : (H, W) label map
    share : 0 to 1, of the cells that are in a merged pair; it may be less at the end, if the cells
        that are left are no neighbours
    seed : decides which pairs
    """
    random = np.random.default_rng(seed)
    dense, _, values = relabel_sequential(labels)
    new = np.asarray(values, labels.dtype)
    wanted = share * (new.size - 1)
    used: set[int] = set()
    for low, high in _neighbours(dense, random):
        if len(used) + 1 >= wanted:  # another pair would go further beyond than it falls short
            break
        if low not in used and high not in used:
            used |= {low, high}
            new[high] = new[low]
    return new[dense]


def _neighbours(labels: np.ndarray, random: np.random.Generator) -> Iterator[list[int]]:
    """Yield the pairs that touch, in a random order, then those that would after growth."""
    yield from random.permutation(_touching(labels)).tolist()
    filled = moved(labels, sum(labels.shape))
    yield from random.permutation(_touching(filled)).tolist()


def _touching(labels: np.ndarray) -> np.ndarray:
    """Return the pairs of labels that meet above, below, left or right: (pairs, 2), sorted."""
    pairs = [np.zeros((0, 2), labels.dtype)]
    for first, second in NEIGHBOURS:
        a, b = labels[first], labels[second]
        meet = (a != b) & (a > 0) & (b > 0)
        pairs.append(np.sort(np.stack([a[meet], b[meet]], axis=1), axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


def bearing(
    labels: np.ndarray,
    measure: Callable[[np.ndarray], pd.DataFrame],
    seed: int,
    *,
    moves: Sequence[int] = MOVES,
    shares: Sequence[float] = SHARES,
) -> pd.DataFrame:
    """Measure perturbed maps of a field, and compare them with the map itself.

    Parameters
    ----------
    labels : (H, W) label map, annotated
    measure : makes a table of cells, with `READOUTS`, from a label map of that size, whose cells
        are numbered anew
    seed : decides which cells are merged
    moves : how far outlines are moved, in pixels
    shares : of the cells that are merged

    Returns
    -------
    a row for each perturbed map and read-out, and for the map itself as moved by 0: kind, moved or
    merged; amount, in pixels or as a share; ap50, the average precision at an IoU of 0.5, against
    the map itself; readout; mean, over the cells with a value; difference, from the mean of the map
    itself. What is undefined, as without cells, is NaN.
    """
    truth = numbered(labels)

    def row(plan: tuple[str, float]) -> pd.DataFrame:
        kind, amount = plan
        other = moved(truth, int(amount)) if kind == MOVED else merged(truth, amount, seed)
        about = {"kind": kind, "amount": amount, "ap50": average_precision(truth, other)}
        means = measure(other)[[*READOUTS]].mean()
        return pd.DataFrame(about | {"readout": [*READOUTS], "mean": means.to_numpy(float)})

    plans = [(MOVED, float(amount)) for amount in (0, *moves)]
    plans += [(MERGED, share) for share in shares]
    threads = min(THREADS, cores())
    tables = list(in_order(row, plans, threads=threads, ahead=threads))
    table = pd.concat(tables, ignore_index=True)
    original = tables[0].set_index("readout")["mean"]
    return table.assign(difference=table["mean"] - table["readout"].map(original))


def average_precision(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return TP / (TP + FP + FN) at an IoU of 0.5; NaN if neither label map has cells.

    Parameters
    ----------
    truth : (H, W) label map, numbered 1 to n without gaps
    predicted : (H, W) label map; numbers may be missing
    """
    matching = match(count_overlaps(truth, numbered(predicted)))
    found = np.count_nonzero(matching.true_outcomes == FOUND)
    cells = matching.true_outcomes.size + matching.predicted_outcomes.size - found
    return found / cells if cells else np.nan
