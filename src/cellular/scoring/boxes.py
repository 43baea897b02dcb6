"""Boxes: one row for each annotated box of a field, and for each predicted cell without a partner.

The box of a predicted cell is the one around its mask. All boxes count, at the frame too, where
they are clipped. They are matched as cells are: one to one, with the most pairs with an IoU of at
least 0.5 and, among those with as many, the largest sum of IoU. Boxes overlap where cells do not,
so there is no telling whether cells were merged or split: what is not found is missed, or a false
positive. For the same reason the pairs above a higher threshold are not always the most that there
could be at that threshold.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from cellular.imaging.boxes import areas_of, box_diameters, boxes_of
from cellular.imaging.fields import origin
from cellular.imaging.matching import FALSE_POSITIVE, FOUND, HALF, MISSED, Overlaps, assign
from cellular.scoring.cells import COLUMNS, units_of_predicted


def table_of_boxes(
    field: str, truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str] | None = None
) -> pd.DataFrame:
    """Compare the annotated boxes of a field with the cells that were predicted.

    Parameters
    ----------
    truth : (n, 4), top, left, bottom, right in pixels, from `cellular.imaging.boxes.read_boxes`
    predicted : (H, W) label map, numbered 1 to m without gaps
    classes : the class of each box, if known

    Returns
    -------
    the rows with `cellular.scoring.cells.COLUMNS`. The label of a box is its place in `truth`, from
    1 on; diameters are `cellular.imaging.boxes.box_diameters`; all that counts pixels, and whether
    a cell is crowded, is missing.
    """
    guess = boxes_of(predicted)
    overlaps = overlaps_of_boxes(truth, guess)
    true, found, _, iou = overlaps.pairs
    chosen = assign(true, found, iou, overlaps.shared.shape)

    cells = _described(truth, predicted.shape)
    cells["outcome"], cells["iou"] = MISSED, 0.0
    cells["label"] = cells["unit"] = cells.index
    cells["class"] = list(classes) if classes is not None else None
    cells.loc[true[chosen] + 1, "iou"] = iou[chosen]
    chosen = chosen[iou[chosen] >= HALF]
    cells.loc[true[chosen] + 1, "outcome"] = FOUND
    others = _described(guess, predicted.shape).rename(columns={"diameter": "predicted_diameter"})
    others["predicted_label"] = others.index
    partners = others.loc[found[chosen] + 1, ["predicted_label", "predicted_diameter"]]
    others["outcome"] = FALSE_POSITIVE
    others["unit"] = units_of_predicted(overlaps, cells, others)
    alone = others.drop(index=found[chosen] + 1)
    table = pd.concat([cells.join(partners.set_index(true[chosen] + 1)), alone], ignore_index=True)
    for name, value in {"field": field, **origin(field)}.items():
        table[name] = value
    return table.reindex(columns=list(COLUMNS)).astype(COLUMNS)


def overlaps_of_boxes(truth: np.ndarray, predicted: np.ndarray) -> Overlaps:
    """Return the areas that n true and m predicted boxes, (n, 4) and (m, 4), share, in pixels."""
    starts = np.maximum(truth[:, None, :2], predicted[None, :, :2])
    ends = np.minimum(truth[:, None, 2:], predicted[None, :, 2:])
    shared = np.clip(ends - starts, 0, None).prod(axis=2)
    excluded = np.zeros(len(predicted))
    return Overlaps(csr_array(shared), areas_of(truth), areas_of(predicted), excluded, pixels=0)


def _described(boxes: np.ndarray, frame: tuple[int, ...]) -> pd.DataFrame:
    """Return centre, diameter and contact with the frame (border) of each box, by label."""
    top, left, bottom, right = boxes.T
    border = (top < 1) | (left < 1) | (bottom > frame[0] - 1) | (right > frame[1] - 1)
    columns = {"y": (top + bottom) / 2, "x": (left + right) / 2, "border": border}
    labels = np.arange(1, len(boxes) + 1)
    return pd.DataFrame(columns | {"diameter": box_diameters(boxes)}, index=labels)
