"""Boundaries: the outlines of cells, and how far predicted outlines are from true ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

# Pairs of views of a map that pair each pixel with the one above it, and with the one on its left.
NEIGHBOURS = (
    ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
    ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
)


@dataclass(frozen=True)
class OutlineHits:
    """Outline pixels of each cell, and how many of them are near outlines of the other map."""

    pixels: np.ndarray  # (n,) int64
    near: np.ndarray  # (tolerances, n) int64


def outlines(labels: np.ndarray) -> np.ndarray:
    """Return the inner outlines of a label map: (H, W) bool.

    These are the pixels of cells that have another label, or background, above, below, left or
    right of them. The frame of the image is no outline.
    """
    edge = np.zeros(labels.shape, bool)
    for first, second in NEIGHBOURS:
        differ = labels[first] != labels[second]
        edge[first] |= differ
        edge[second] |= differ
    edge &= labels > 0
    return edge


def contact(labels: np.ndarray) -> np.ndarray:
    """Return the part of each cell's outline that touches another cell: (n,) float64, 0 to 1.

    It is 0 for a cell without an outline, which fills the whole image.
    """
    count = int(labels.max(initial=0)) + 1
    touching = np.zeros(labels.shape, bool)
    for first, second in NEIGHBOURS:
        a, b = labels[first], labels[second]
        meet = (a != b) & (a > 0) & (b > 0)
        touching[first] |= meet
        touching[second] |= meet
    around = np.bincount(labels[outlines(labels)], minlength=count)[1:]
    shared = np.bincount(labels[touching], minlength=count)[1:]
    return shared / np.maximum(around, 1)


def outline_hits(
    truth: np.ndarray,
    predicted: np.ndarray,
    tolerances: Sequence[float],
    excluded: np.ndarray | None = None,
) -> tuple[OutlineHits, OutlineHits]:
    """Count the outline pixels of true and of predicted cells that are near the other map's.

    A pixel is near if an outline pixel of the other map is at most `tolerance` pixels away. In a
    field, the part of the predicted outlines that is near true ones is the boundary precision; the
    part of the true outlines that is near predicted ones is the boundary recall (Csurka et al.,
    BMVC 2013, doi 10.5244/C.27.32; Martin et al., TPAMI 26:530, 2004).

    Parameters
    ----------
    truth, predicted : (H, W) label maps
    tolerances : in pixels
    excluded : (H, W) bool, where predicted outlines do not count

    Returns
    -------
    the hits of the true cells, and those of the predicted cells
    """
    edges = outlines(truth), outlines(predicted)
    if excluded is not None:
        edges[1][excluded] = False
    hits = []
    for labels, own, other in ((truth, *edges), (predicted, *reversed(edges))):
        count = int(labels.max(initial=0)) + 1
        cells = labels[own]
        if other.any():
            apart = cv2.distanceTransform(
                (~other).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
            )
            distances = apart[own]
        else:
            distances = np.full(cells.size, np.inf, np.float32)
        # Distances are square roots of whole numbers, rounded to float32.
        near = [
            np.bincount(cells[distances <= np.float32(tolerance)], minlength=count)[1:]
            for tolerance in tolerances
        ]
        hits.append(OutlineHits(np.bincount(cells, minlength=count)[1:], np.array(near)))
    return hits[0], hits[1]
