"""Cells: one row for each true cell of a field, and for each predicted one without a partner.

What the rows tell is enough to compute every score again, of any group of cells.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.spatial import KDTree
from skimage.measure import regionprops_table

from cellular.imaging.fields import origin
from cellular.imaging.matching import FOUND, HALF, IGNORED, count_overlaps, match
from cellular.scoring.boundaries import contact, outline_hits

CROWDED = 0.5  # part of its outline that touches other cells, from which on a cell is crowded
BOUNDARY_PIXELS = 2.0  # tolerance of outlines
BOUNDARY_PART = 0.02  # the same, as a part of the median diameter of the field's true cells

# The columns in their order. Areas and outlines are in pixels, diameters those of a circle of the
# same area. In rows of predicted cells without a partner, what belongs to true cells is missing.
COLUMNS = {
    "field": "string",
    "timepoint": "string",
    "well": "string",
    "class": "string",
    "outcome": "string",  # cellular.imaging.matching.match tells which there are
    "iou": "float64",  # with the partner that the matching gives, which may be below 0.5
    "label": "Int64",  # of the true cell
    "predicted_label": "Int64",  # of the predicted cell, where the true one is found
    "unit": "Int64",  # label of the true cell that a predicted one overlaps most, or is nearest to
    "area": "Int64",
    "predicted_area": "Int64",  # without excluded pixels
    "diameter": "float64",
    "predicted_diameter": "float64",
    "y": "float64",  # centre of the true cell, otherwise of the predicted one
    "x": "float64",
    "crowded": "boolean",  # at least half of its outline touches other true cells
    "border": "boolean",  # it touches the frame of the image
    "shared_pixels": "Int64",  # with its partner
    "found_pixels": "Int64",  # of the true cell, that belong to any predicted one
    "false_positive_pixels": "Int64",  # of the predicted cell, that belong to no true one
    "outline": "Int64",
    "outline_near_2px": "Int64",  # that predicted outlines are at most 2 px away from
    "outline_near_2pct": "Int64",  # the same, within 2 % of the median diameter
    "predicted_outline": "Int64",
    "predicted_outline_near_2px": "Int64",
    "predicted_outline_near_2pct": "Int64",
}


def diameter_of(area: np.ndarray) -> np.ndarray:
    """Return the diameter of a circle of that area: sqrt(4 area / pi)."""
    return np.sqrt(4 * np.asarray(area, float) / np.pi)


def table_of_cells(
    field: str,
    truth: np.ndarray,
    predicted: np.ndarray,
    *,
    classes: Sequence[str] | None = None,
    excluded: np.ndarray | None = None,
) -> tuple[pd.DataFrame, int]:
    """Compare two label maps of a field, cell by cell.

    Parameters
    ----------
    truth, predicted : (H, W) label maps, numbered 1 to n and 1 to m without gaps
    classes : the class of each true cell, if known
    excluded : (H, W) bool, pixels that do not count; true cells keep theirs

    Returns
    -------
    a row for each true cell and for each predicted one without a partner, with `COLUMNS`; and the
    number of pixels that count
    """
    overlaps = count_overlaps(truth, predicted, excluded)
    matching = match(overlaps)
    ignored = matching.predicted_outcomes == IGNORED
    if ignored.any():
        predicted = np.where(np.concatenate([[False], ignored])[predicted], 0, predicted)
    true_places, predicted_places = _places(truth), _places(predicted)
    diameters = diameter_of(overlaps.true_areas)
    part = BOUNDARY_PART * float(np.median(diameters)) if diameters.size else BOUNDARY_PIXELS
    true_hits, predicted_hits = outline_hits(truth, predicted, (BOUNDARY_PIXELS, part), excluded)

    n, m = overlaps.shared.shape
    counted = overlaps.shared * ~ignored  # what is ignored is as if it were not there
    found = matching.iou >= HALF
    rows = {
        "outcome": matching.true_outcomes,
        "iou": np.zeros(n),
        "label": np.arange(1, n + 1),
        "unit": np.arange(1, n + 1),
        "area": overlaps.true_areas,
        "diameter": diameters,
        "crowded": contact(truth) >= CROWDED,
        "shared_pixels": np.zeros(n, np.int64),
        "found_pixels": np.asarray(counted.sum(axis=1)).ravel(),
        "outline": true_hits.pixels,
        "outline_near_2px": true_hits.near[0],
        "outline_near_2pct": true_hits.near[1],
    } | true_places.loc[1:n].to_dict("series")
    rows["iou"][matching.true] = matching.iou
    rows["shared_pixels"][matching.true] = matching.shared
    of_prediction = pd.DataFrame(
        {
            "predicted_area": overlaps.predicted_areas,
            "predicted_diameter": diameter_of(overlaps.predicted_areas),
            "false_positive_pixels": overlaps.predicted_areas
            - np.asarray(overlaps.shared.sum(axis=0)).ravel(),
            "predicted_outline": _padded(predicted_hits.pixels, m),
            "predicted_outline_near_2px": _padded(predicted_hits.near[0], m),
            "predicted_outline_near_2pct": _padded(predicted_hits.near[1], m),
        },
        index=np.arange(1, m + 1),
    )
    true_rows = pd.DataFrame(rows, index=np.arange(1, n + 1))
    if classes is not None:
        true_rows["class"] = list(classes)
    partners = of_prediction.loc[matching.predicted[found] + 1]
    partners.index = matching.true[found] + 1
    partners["predicted_label"] = matching.predicted[found] + 1

    alone = matching.predicted_outcomes != FOUND
    alone_rows = of_prediction[alone].join(predicted_places)
    alone_rows["outcome"] = matching.predicted_outcomes[alone]
    alone_rows["predicted_label"] = alone_rows.index
    alone_rows["unit"] = _units(overlaps.shared, true_places, predicted_places, alone_rows.index)
    table = pd.concat([true_rows.join(partners), alone_rows], ignore_index=True)
    for name, value in {"field": field, **origin(field)}.items():
        table[name] = value
    return table.reindex(columns=list(COLUMNS)).astype(COLUMNS), overlaps.pixels


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    return np.pad(values, (0, size - values.size))


def _places(labels: np.ndarray) -> pd.DataFrame:
    """Return centre and contact with the frame of each cell, by label."""
    shown = regionprops_table(labels, properties=("label", "centroid", "bbox"))
    height, width = labels.shape
    border = (
        (shown["bbox-0"] == 0)
        | (shown["bbox-1"] == 0)
        | (shown["bbox-2"] == height)
        | (shown["bbox-3"] == width)
    )
    return pd.DataFrame(
        {"y": shown["centroid-0"], "x": shown["centroid-1"], "border": border},
        index=shown["label"],
    )


def _units(shared, true_places, predicted_places, labels: pd.Index) -> list[int | None]:
    """Return, for predicted cells, the label of the true cell that each belongs to."""
    if true_places.empty or not len(labels):
        return [None] * len(labels)
    tree = KDTree(true_places[["y", "x"]])
    by_overlap = shared.tocsc()
    units = []
    for label in labels:
        start, end = by_overlap.indptr[label - 1 : label + 1]
        if end > start:
            best = start + int(np.argmax(by_overlap.data[start:end]))
            units.append(int(by_overlap.indices[best]) + 1)
        elif label in predicted_places.index:
            units.append(
                int(
                    true_places.index[
                        tree.query(predicted_places.loc[label, ["y", "x"]].astype(float))[1]
                    ]
                )
            )
        else:
            units.append(None)
    return units
