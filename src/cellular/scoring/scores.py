"""Scores of fields from the rows of their cells, as the paper and others define them.

Every score is a function of sums over cells (`quantities`), so that any group of cells, any split
and any resample is scored in the same way. A score that is undefined (0 / 0) is NaN here, and is
left out of files and means; but an undefined pixel score is 0, as in the paper's scikit-learn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from cellular.imaging.matching import FOUND, IGNORED, PREDICTED_OUTCOMES, TRUE_OUTCOMES

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
PIXEL_SCORES = ("precision", "recall", "f1", "jaccard")
QUANTITIES = (
    "cells",
    "predictions",
    *(f"matched_{threshold:g}" for threshold in IOU_THRESHOLDS),
    "iou",
    "area",
    "shared_pixels",
    "found_pixels",
    "false_positive_pixels",
    "outline",
    "outline_near_2px",
    "outline_near_2pct",
    "predicted_outline",
    "predicted_outline_near_2px",
    "predicted_outline_near_2pct",
    "diameter_error",
    "absolute_diameter_error",
    "relative_diameter_error",
    "background",
)
AT = {name: number for number, name in enumerate(QUANTITIES)}
COUNTS = tuple(dict.fromkeys((*TRUE_OUTCOMES, *PREDICTED_OUTCOMES)))

Place = tuple[str, ...]  # the keys that lead to a score in <split>_eval.json: ("objects", "f1")


@dataclass(frozen=True)
class FieldResult:
    """The result of one field: a row for each of its cells, and how many of its pixels count."""

    field: str
    cells: pd.DataFrame  # with cellular.scoring.cells.COLUMNS
    pixels: int  # 0 where cells are annotated by boxes

    @property
    def background(self) -> int:
        """The number of background pixels that are not predicted as cells."""
        totals = self.cells[["area", "false_positive_pixels"]].sum()
        ignored = self.cells.loc[self.cells["outcome"] == IGNORED, "false_positive_pixels"].sum()
        return int(self.pixels - totals["area"] - totals["false_positive_pixels"] + ignored)

    def units(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums for each true cell, and the sums of what belongs to no true cell.

        A predicted cell without a partner is counted with the true cell that it overlaps most, or
        is nearest to, so that resampling true cells resamples the false positives around them.

        Returns
        -------
        (n, len(QUANTITIES)) float64 in the order of the labels, and (len(QUANTITIES),) float64
        """
        rows = quantities(self.cells)
        unit = self.cells["unit"].fillna(0).to_numpy(np.int64)
        sums = np.zeros((int(unit.max(initial=0)) + 1, len(QUANTITIES)))
        np.add.at(sums, unit, rows)
        sums[0, AT["background"]] += self.background
        return sums[1:], sums[0]

    @cached_property
    def totals(self) -> np.ndarray:
        """The sums over the whole field: (len(QUANTITIES),) float64."""
        units, rest = self.units()
        return units.sum(axis=0) + rest


def quantities(cells: pd.DataFrame) -> np.ndarray:
    """Return what each row adds to the sums: (rows, len(QUANTITIES)) float64."""
    outcome = cells["outcome"].to_numpy(object)
    counted = outcome != IGNORED
    found = outcome == FOUND
    iou = cells["iou"].fillna(0).to_numpy(float)
    sums = np.zeros((len(cells), len(QUANTITIES)))
    sums[:, AT["cells"]] = cells["label"].notna()
    sums[:, AT["predictions"]] = counted & cells["predicted_label"].notna()
    for threshold in IOU_THRESHOLDS:
        sums[:, AT[f"matched_{threshold:g}"]] = found & (iou >= threshold)
    sums[:, AT["iou"]] = np.where(found, iou, 0)
    first, last = AT["area"], AT["predicted_outline_near_2pct"]
    names = list(QUANTITIES[first : last + 1])
    sums[:, first : last + 1] = cells[names].astype(float).fillna(0).to_numpy() * counted[:, None]
    true, predicted = (
        cells[name].astype(float).to_numpy() for name in ("diameter", "predicted_diameter")
    )
    error = np.where(found, predicted - true, 0)
    sums[:, AT["diameter_error"]] = error
    sums[:, AT["absolute_diameter_error"]] = np.abs(error)
    sums[:, AT["relative_diameter_error"]] = error / np.where(found, true, 1)
    return sums


def scores_of(totals: np.ndarray) -> dict[Place, np.ndarray]:
    """Return all scores of sums, (..., len(QUANTITIES)): arrays of shape (...), NaN if undefined.

    - background, cell: precision, recall, F1 and Jaccard of pixels, as scikit-learn computes them
      for the flattened masks; average: the mean of background and cell. Undefined if no pixel
      counts, as where cells are annotated by boxes.
    - objects.average_precision: TP / (TP + FP + FN) at each IoU threshold, and the mean over the
      thresholds (Cellpose, `average_precision`; the Data Science Bowl 2018).
    - objects.precision, recall, f1: of cells, at IoU 0.5; objects.strict: the same at IoU 0.75.
    - objects.mean_iou: of found cells. Panoptic quality is f1 (its recognition quality) times
      mean_iou (its segmentation quality): Kirillov et al., CVPR 2019.
    - objects.aggregated_jaccard: pixels that matched cells share / pixels in any cell, as
      `cellpose.metrics.aggregated_jaccard_index`. It uses the one matching of all scores, whereas
      Kumar et al. (IEEE TMI 36:1550, 2017) match greedily.
    - objects.boundary_f1: of outlines, see `cellular.scoring.boundaries.outline_hits`.
    - count_error: number of predicted minus number of true cells, and the same relative to the
      true cells.
    - diameter_error: predicted minus true diameter, as a mean over found cells; the mean of its
      absolute value; and the mean of the error relative to the true diameter.
    """
    at = {name: totals[..., number] for name, number in AT.items()}
    scores: dict[Place, np.ndarray] = {}
    tp = at["found_pixels"]
    fn, fp, tn = at["area"] - tp, at["false_positive_pixels"], at["background"]
    counted = tp + fp + fn + tn > 0
    for kind, counts in (("background", (tn, fn, fp)), ("cell", (tp, fp, fn))):
        for name, value in _from_counts(*counts).items():
            scores[kind, name] = np.where(counted, value, np.nan)
    for name in PIXEL_SCORES:
        scores["average", name] = (scores["background", name] + scores["cell", name]) / 2

    true, predicted = at["cells"], at["predictions"]
    precisions = []
    for threshold in IOU_THRESHOLDS:
        matched = at[f"matched_{threshold:g}"]
        precisions.append(_ratio(matched, true + predicted - matched))
        scores["objects", "average_precision", f"{threshold:g}"] = precisions[-1]
    scores["objects", "average_precision", "mean"] = np.mean(precisions, axis=0)
    found = at["matched_0.5"]
    objects: Place = ("objects",)
    for place, matched in ((objects, found), ((*objects, "strict"), at["matched_0.75"])):
        scores[(*place, "precision")] = _ratio(matched, predicted)
        scores[(*place, "recall")] = _ratio(matched, true)
        scores[(*place, "f1")] = _ratio(2 * matched, true + predicted)
    scores["objects", "panoptic_quality"] = _ratio(2 * at["iou"], true + predicted)
    scores["objects", "mean_iou"] = _ratio(at["iou"], found)
    scores["objects", "aggregated_jaccard"] = _ratio(at["shared_pixels"], tp + fp + fn)
    for name in ("2px", "2pct"):
        near, confirmed = at[f"predicted_outline_near_{name}"], at[f"outline_near_{name}"]
        precision = _ratio(near, at["predicted_outline"])
        recall = _ratio(confirmed, at["outline"])
        # If only one map has cells, nothing of their outlines is right.
        one_sided = (at["outline"] > 0) != (at["predicted_outline"] > 0)
        harmonic = _ratio(2 * precision * recall, precision + recall)
        nothing = one_sided | (precision + recall == 0)
        scores["objects", "boundary_f1", name] = np.where(nothing, 0.0, harmonic)
    scores["count_error", "cells"] = predicted - true
    scores["count_error", "relative"] = _ratio(predicted - true, true)
    for name, quantity in (("px", ""), ("absolute_px", "absolute_"), ("relative", "relative_")):
        scores["diameter_error", name] = _ratio(at[f"{quantity}diameter_error"], found)
    return scores


def _from_counts(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "precision": _ratio(tp, tp + fp, undefined=0.0),
        "recall": _ratio(tp, tp + fn, undefined=0.0),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn, undefined=0.0),
        "jaccard": _ratio(tp, tp + fp + fn, undefined=0.0),
    }


def _ratio(part: np.ndarray, whole: np.ndarray, undefined: float = np.nan) -> np.ndarray:
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.divide(part, whole, out=np.full(part.shape, undefined), where=whole != 0)


def counts_of(results: Sequence[FieldResult]) -> dict[str, int]:
    """Return the numbers of true and predicted cells of fields, and of each outcome."""
    cells = pd.concat([result.cells for result in results])
    by_outcome = cells["outcome"].value_counts()
    predictions = cells.loc[cells["outcome"] != IGNORED, "predicted_label"].notna()
    return {
        "cells": int(cells["label"].notna().sum()),
        "predictions": int(predictions.sum()),
    } | {name.replace(" ", "_"): int(by_outcome.get(name, 0)) for name in COUNTS}


def table_of_scores(results: Sequence[FieldResult]) -> dict[Place, np.ndarray]:
    """Return each score for each field: arrays of shape (fields,), NaN where undefined."""
    return scores_of(np.stack([result.totals for result in results]))


def summarise(results: Sequence[FieldResult]) -> dict:
    """Return the scores of a split: their means over its fields, and the sums of the counts.

    Returns
    -------
    dict
        The scores of `scores_of`, nested by their places, without those that are undefined in all
        fields; `counts`, from `counts_of`; and the number of `fields`.
    """
    means = {
        place: float(np.nanmean(values))
        for place, values in table_of_scores(results).items()
        if not np.isnan(values).all()
    }
    counts = counts_of(results)
    return {"objects": {}} | nested(means) | {"counts": counts, "fields": len(results)}


def typical_first(scores: np.ndarray) -> np.ndarray:
    """Return the order of fields: that of the median score first, then the others, the worst first.

    Of an even number, the upper of the two in the middle is taken. Undefined scores come last.

    Parameters
    ----------
    scores : (fields,) float64, NaN where undefined

    Returns
    -------
    (fields,) int64, the indices of the fields
    """
    order = np.argsort(scores, kind="stable")
    typical = max(1, int(np.count_nonzero(~np.isnan(scores)))) // 2
    return np.r_[order[typical], np.delete(order, typical)]


def nested(values: Mapping[Place, object]) -> dict:
    """Return a dict of dicts: {("a", "b"): 1} becomes {"a": {"b": 1}}."""
    found: dict = {}
    for place, value in values.items():
        inner = found
        for key in place[:-1]:
            inner = inner.setdefault(key, {})
        inner[place[-1]] = value
    return found
