"""Polygons: the outlines of cells along the edges of their pixels, so that areas are exact."""

from collections import defaultdict

import numpy as np
from skimage.measure import label as connected_components

# A polygon is a list of rings: the outer one, clockwise as seen on the screen, then its holes, the
# other way. A ring is an array (n, 2) int64, x and y of each corner at which it turns.
Polygon = list[np.ndarray]

# Directions of edges. The pixel of their cell is always on their right.
RIGHT, DOWN, LEFT, UP = range(4)


def polygons_of(labels: np.ndarray) -> dict[int, list[Polygon]]:
    """Return the outlines of all cells, along the edges of their pixels.

    Parameters
    ----------
    labels : (H, W) label map of unsigned integers; numbers may be missing

    Returns
    -------
    the polygons of each label, sorted by label: one for each piece of the cell. Pixels that meet
    only at a corner are separate pieces, so that no ring crosses or touches itself. The first pixel
    has its corners at (0, 0) and (1, 1).
    """
    rings = _rings(labels)
    return {
        label: [own] if len(own) == 1 else _sorted_by_piece(own, labels, label)
        for label, own in sorted(rings.items())
    }


def _sorted_by_piece(rings: list[np.ndarray], labels: np.ndarray, label: int) -> list[Polygon]:
    """Put the rings of each piece of a cell together. Outer rings come before their holes."""
    corners = np.concatenate(rings)
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    pieces = connected_components(labels[top:bottom, left:right] == label, connectivity=1)
    polygons: dict[int, Polygon] = defaultdict(list)
    for ring in rings:
        row, column = _pixel(ring)
        polygons[pieces[row - top, column - left]].append(ring)
    return list(polygons.values())


def _rings(labels: np.ndarray) -> dict[int, list[np.ndarray]]:
    """Follow the edges around each label. Of each piece, the outer ring comes first."""
    starts, ends, own = _edges(labels)
    following = _following(starts, ends).tolist()
    corners = (starts // 4).tolist()
    done = [False] * len(corners)
    rings: dict[int, list[np.ndarray]] = defaultdict(list)
    # Edges are sorted by their starts, so each ring begins at its uppermost corner.
    for at, label in enumerate(own.tolist()):
        if done[at]:
            continue
        ring = []
        while not done[at]:
            done[at] = True
            ring.append(corners[at])
            at = following[at]
        for part in _parts(ring):
            y, x = np.divmod(part, labels.shape[1] + 1)
            rings[label].append(np.stack([x, y], axis=1))
    return rings


def _edges(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all straight edges between a cell and what is not that cell, as long as they go.

    Returns
    -------
    starts, ends, labels, (edges,) int64 each, sorted by start. A start is four times the number of
    its corner, counted row by row, plus the direction; an end is the same of the other corner.
    """
    width = labels.shape[1] + 1
    framed = np.pad(labels, 1)
    edges = []
    # First the lines between rows, then those between columns; on each line the pixels after it
    # (below or right), then those before it.
    for pixels, (down, along), ways in (
        (framed, (width, 1), (RIGHT, LEFT)),
        (framed.T, (1, width), (UP, DOWN)),
    ):
        differ = np.ascontiguousarray(pixels[1:, 1:-1] != pixels[:-1, 1:-1])
        line, place = np.divmod(np.flatnonzero(differ), differ.shape[1])
        for after, way in zip((1, 0), ways, strict=True):
            label = pixels[line + after, place + 1].astype(np.int64)
            begins, stops = _stretches(label, line, place)
            low = line[begins] * down + place[begins] * along
            high = line[stops] * down + (place[stops] + 1) * along
            start, end = (low, high) if way in (RIGHT, DOWN) else (high, low)
            edges.append(np.stack([4 * start + way, 4 * end + way, label[begins]]))
    found = np.concatenate(edges, axis=1)
    starts, ends, own = found[:, np.argsort(found[0])]
    return starts, ends, own


def _stretches(
    label: np.ndarray, line: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last index of each stretch of neighbours with one label, not 0."""
    new = np.ones(label.size + 1, bool)
    new[1:-1] = (np.diff(label) != 0) | (np.diff(line) != 0) | (np.diff(place) != 1)
    bounds = np.flatnonzero(new)
    cells = label[bounds[:-1]] > 0
    return bounds[:-1][cells], bounds[1:][cells] - 1


def _following(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the number of the edge that comes after each: (edges,) int64.

    Where two pixels of a cell meet at a corner only, four edges do; turning right there keeps to
    the same pixel.
    """
    corner, way = np.divmod(ends, 4)
    right, left = 4 * corner + (way + 1) % 4, 4 * corner + (way - 1) % 4
    return np.searchsorted(starts, np.where(np.isin(right, starts), right, left))


def _parts(ring: list[int]) -> list[list[int]]:
    """Cut a ring at the corners where it touches itself; the part around all others comes first."""
    if len(set(ring)) == len(ring):
        return [ring]
    parts: list[list[int]] = []
    path: dict[int, None] = {}
    for corner in ring:
        if corner in path:
            part: list[int] = []
            while not part or part[-1] != corner:
                part.append(path.popitem()[0])
            parts.append(part[::-1])
        path[corner] = None
    return [list(path), *parts]


def _pixel(ring: np.ndarray) -> tuple[int, int]:
    """Return row and column of the cell's pixel beside the first edge of a ring."""
    (x, y), (to_x, to_y) = ring[:2].tolist()
    # An edge to the left or up has it above its start; one to the left or down, left of it.
    return y - (to_x < x or to_y < y), x - (to_x < x or to_y > y)
