"""Scores of predicted label maps: pixels of cell and background, and whole cells by overlap."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cellpose.metrics import average_precision
from scipy.sparse import csr_matrix

from cellular.masks import relabel

IOU_THRESHOLDS = (0.5, 0.75, 0.9)
PIXEL_SCORES = ("precision", "recall", "f1", "jaccard")


@dataclass(frozen=True)
class FieldScores:
    """The scores of one field: by kind of pixel and score, and by IoU threshold."""

    field: str
    pixels: dict[str, dict[str, float]]
    average_precision: tuple[float, ...]
    tp: tuple[int, ...]
    fp: tuple[int, ...]
    fn: tuple[int, ...]


def pixel_scores(truth: np.ndarray, predicted: np.ndarray) -> dict[str, dict[str, float]]:
    """Score the pixels of background and of cell, as the paper does.

    The four counts of the confusion are counted once; precision, recall, F1 and Jaccard of each
    class follow from them. They equal scikit-learn's on the flattened masks; as there, a score
    whose denominator is 0 (a class that is neither there nor predicted) is 0.

    Parameters
    ----------
    truth, predicted : (H, W) label maps or masks; above 0 is cell

    Returns
    -------
    dict
        `{"background": {...}, "cell": {...}, "average": {...}}`, each with precision, recall, f1
        and jaccard; average is the mean of background and cell.
    """
    true_cell, predicted_cell = truth > 0, predicted > 0
    tp = int(np.count_nonzero(true_cell & predicted_cell))
    fp = int(np.count_nonzero(predicted_cell)) - tp
    fn = int(np.count_nonzero(true_cell)) - tp
    tn = truth.size - tp - fp - fn
    cell, background = _from_counts(tp, fp, fn), _from_counts(tn, fn, fp)
    average = {name: (cell[name] + background[name]) / 2 for name in PIXEL_SCORES}
    return {"background": background, "cell": cell, "average": average}


def _from_counts(tp: int, fp: int, fn: int) -> dict[str, float]:
    def ratio(part: int, whole: int) -> float:
        return part / whole if whole else 0.0

    return {
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "jaccard": ratio(tp, tp + fp + fn),
    }


def score_field(field: str, truth: np.ndarray, predicted: np.ndarray) -> FieldScores:
    """Score one field, (H, W) label maps of one shape.

    Average precision, TP / (TP + FP + FN) over matched cells, is Cellpose's
    (`cellpose.metrics.average_precision`); of a field without cells in which none are found,
    where Cellpose divides 0 by 0, it is 1.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"{field}: shapes {truth.shape} and {predicted.shape} differ")
    truth, predicted = relabel(truth), relabel(predicted)
    if truth.any() or predicted.any():
        # Without background Cellpose divides 0 by 0 in a row of its table that it does not use.
        with np.errstate(invalid="ignore"):
            ap, tp, fp, fn = average_precision(truth, predicted, threshold=list(IOU_THRESHOLDS))
    else:
        ap, tp, fp, fn = np.ones(3, np.float32), *np.zeros((3, 3), np.float32)
    return FieldScores(
        field,
        pixel_scores(truth, predicted),
        *(tuple(kind(value) for value in row) for kind, row in
          ((float, ap), (int, tp), (int, fp), (int, fn))),
    )  # fmt: skip


def summarise(scores: Sequence[FieldScores]) -> dict:
    """Return the scores of a split: the mean over its fields, and the sums of the counts.

    Returns
    -------
    dict
        `background`, `cell`, `average` as in `pixel_scores`; under `objects` average_precision,
        tp, fp and fn, each by IoU threshold; and the number of `fields`.
    """
    summary: dict = {
        kind: {
            name: float(np.mean([score.pixels[kind][name] for score in scores]))
            for name in PIXEL_SCORES
        }
        for kind in ("background", "cell", "average")
    }
    by_threshold = [f"{threshold:g}" for threshold in IOU_THRESHOLDS]
    objects: dict[str, dict] = {
        "average_precision": dict(
            zip(
                by_threshold,
                np.mean([score.average_precision for score in scores], axis=0).tolist(),
                strict=True,
            )
        )
    }
    for count in ("tp", "fp", "fn"):
        sums = np.sum([getattr(score, count) for score in scores], axis=0).tolist()
        objects[count] = dict(zip(by_threshold, sums, strict=True))
    return summary | {"objects": objects, "fields": len(scores)}


def overlaps(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the IoU of every true with every predicted cell: (n_true, n_predicted) float64.

    Both label maps are numbered 1 to n without gaps. All overlaps are counted in one pass, as
    entries of a sparse matrix of (true, predicted) pairs.
    """
    pairs = (truth.ravel().astype(np.int64), predicted.ravel().astype(np.int64))
    shape = (int(truth.max(initial=0)) + 1, int(predicted.max(initial=0)) + 1)
    shared = csr_matrix((np.ones(truth.size, np.int64), pairs), shape=shape).toarray()
    true_area, predicted_area = shared.sum(1, keepdims=True), shared.sum(0, keepdims=True)
    union = true_area + predicted_area - shared
    return (shared / np.maximum(union, 1))[1:, 1:]
