"""Cells: one row for each true cell of a field, and for each predicted one without a partner.

The rows hold all that is needed to compute every score again, for any group of cells.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.spatial import KDTree
from skimage.measure import regionprops_table

from cellular.imaging.fields import origin
from cellular.imaging.matching import (
    FOUND,
    HALF,
    IGNORED,
    Matching,
    Overlaps,
    count_overlaps,
    match,
)
from cellular.scoring.boundaries import OutlineHits, contact, outline_hits

CROWDED = 0.5  # a cell is crowded if at least this part of its outline touches other cells
BOUNDARY_PIXELS = 2.0  # tolerance of outlines
BOUNDARY_PART = 0.02  # the same, as a part of the median diameter of the field's true cells

# The columns in their order. Areas and outlines are in pixels, diameters those of a circle of the
# same area. Rows of predicted cells without a partner have no values in the columns of true cells;
# if cells are annotated by boxes, what counts pixels has none at all (cellular.scoring.boxes).
COLUMNS = {
    "field": "string",
    "timepoint": "string",
    "well": "string",
    "class": "string",
    "outcome": "string",  # one of those in cellular.imaging.matching
    "iou": "float64",  # with the partner that the matching gives, which may be below 0.5
    "label": "Int64",  # of the true cell
    "predicted_label": "Int64",  # of the predicted cell, if there is one and it found the true one
    "unit": "Int64",  # label of the true cell that a predicted one overlaps most, or is nearest to
    "area": "Int64",
    "predicted_area": "Int64",  # without excluded pixels
    "diameter": "float64",
    "predicted_diameter": "float64",
    "y": "float64",  # centre of the true cell, or of a predicted one without a partner
    "x": "float64",
    "crowded": "boolean",  # at least half of its outline touches other true cells
    "border": "boolean",  # it touches the frame of the image
    "shared_pixels": "Int64",  # with its partner
    "found_pixels": "Int64",  # of the true cell, in any predicted cell
    "false_positive_pixels": "Int64",  # of the predicted cell, in no true cell
    "outline": "Int64",
    "outline_near_2px": "Int64",  # at most 2 px away from predicted outlines
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
    if ignored.any():  # from here on they count as background
        predicted = np.where(np.concatenate([[False], ignored])[predicted], 0, predicted)
    tolerances = _tolerances(overlaps.true_areas)
    true_hits, predicted_hits = outline_hits(truth, predicted, tolerances, excluded)

    true_cells = _true_cells(truth, overlaps, matching, true_hits)
    if classes is not None:
        true_cells["class"] = list(classes)
    predicted_cells = _predicted_cells(overlaps, predicted_hits)
    found = matching.iou >= HALF
    partners = predicted_cells.loc[matching.predicted[found] + 1].set_index(
        pd.Index(matching.true[found] + 1)
    )
    places = _places(predicted)
    alone = predicted_cells.join(places)
    alone["outcome"] = matching.predicted_outcomes
    alone["unit"] = units_of_predicted(overlaps, true_cells, places)
    alone = alone[alone["outcome"] != FOUND]
    table = pd.concat([true_cells.join(partners), alone], ignore_index=True)
    for name, value in {"field": field, **origin(field)}.items():
        table[name] = value
    return table.reindex(columns=list(COLUMNS)).astype(COLUMNS), overlaps.pixels


def _tolerances(true_areas: np.ndarray) -> tuple[float, float]:
    """Return the two tolerances of outlines in pixels."""
    if not true_areas.size:
        return BOUNDARY_PIXELS, BOUNDARY_PIXELS
    return BOUNDARY_PIXELS, BOUNDARY_PART * float(np.median(diameter_of(true_areas)))


def _true_cells(
    truth: np.ndarray, overlaps: Overlaps, matching: Matching, hits: OutlineHits
) -> pd.DataFrame:
    """Return what is known of true cells without their partners, by label."""
    count = len(overlaps.true_areas)
    iou, shared = np.zeros(count), np.zeros(count, np.int64)
    iou[matching.true] = matching.iou
    shared[matching.true] = matching.shared
    labels = np.arange(1, count + 1)
    columns = {
        "outcome": matching.true_outcomes,
        "iou": iou,
        "label": labels,
        "unit": labels,
        "area": overlaps.true_areas,
        "diameter": diameter_of(overlaps.true_areas),
        "crowded": contact(truth) >= CROWDED,
        "shared_pixels": shared,
        "found_pixels": overlaps.shared @ (matching.predicted_outcomes != IGNORED),
    } | _outlines(hits, count)
    return pd.DataFrame(columns, index=labels).join(_places(truth))


def _predicted_cells(overlaps: Overlaps, hits: OutlineHits) -> pd.DataFrame:
    """Return what is known of predicted cells, by label."""
    areas = overlaps.predicted_areas
    labels = np.arange(1, len(areas) + 1)
    columns = {
        "predicted_label": labels,
        "predicted_area": areas,
        "predicted_diameter": diameter_of(areas),
        "false_positive_pixels": areas - np.asarray(overlaps.shared.sum(axis=0)).ravel(),
    } | {f"predicted_{name}": pixels for name, pixels in _outlines(hits, len(areas)).items()}
    return pd.DataFrame(columns, index=labels)


def _outlines(hits: OutlineHits, count: int) -> dict[str, np.ndarray]:
    """Return the columns of outlines; the last cells may be ignored, and so missing in `hits`."""
    columns = {
        "outline": hits.pixels,
        "outline_near_2px": hits.near[0],
        "outline_near_2pct": hits.near[1],
    }
    return {name: np.pad(pixels, (0, count - pixels.size)) for name, pixels in columns.items()}


def _places(labels: np.ndarray) -> pd.DataFrame:
    """Return centre (y, x) and contact with the frame (border) of each cell, by label."""
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


def units_of_predicted(
    overlaps: Overlaps, true_cells: pd.DataFrame, places: pd.DataFrame
) -> pd.Series:
    """Return by predicted label the label of the true cell that it overlaps most.

    If it overlaps none, that of the nearest true cell; missing if it has no place, since it is
    ignored, or if there is no true cell.
    """
    true, predicted, pixels, _ = overlaps.pairs
    # The last entry of each predicted cell stays: the largest overlap, and the first of equal ones.
    order = np.lexsort((-true, pixels))
    units = pd.Series(dict(zip(predicted[order] + 1, true[order] + 1, strict=True)), dtype="Int64")
    apart = places[~places.index.isin(units.index)]
    if len(apart) and len(true_cells):
        _, nearest = KDTree(true_cells[["y", "x"]]).query(apart[["y", "x"]])
        units = pd.concat([units, pd.Series(true_cells.index[nearest], apart.index, "Int64")])
    return units
