"""Tables: one row for each cell of an image, with its place, shape and brightness.

All values are those of scikit-image's `regionprops_table`, which looks at one cell at a time. For a
real field of 2048 x 2048 pixels with 206 cells and three channels it takes 1.2 s of a 2-core CPU
(AMD EPYC, AVX2 only), and 0.14 s are enough if all cells are measured at once, from runs: stretches
of pixels of one cell in one row, of which that field has 29,000.
"""

import itertools
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from cellular.imaging.microscopy import Image
from cellular.scoring.boundaries import outlines
from cellular.scoring.cells import diameter_of

# Columns in their order; then mean, median and sum of each channel.
COLUMNS = {
    "label": "int64",
    "y": "float64",  # centroid in pixels; the centre of the first pixel is 0
    "x": "float64",
    "area": "int64",  # pixels
    "area_um2": "float64",
    "diameter": "float64",  # pixels; of a circle of that area
    "diameter_um": "float64",
    "perimeter": "float64",  # pixels
    "perimeter_um": "float64",
    "eccentricity": "float64",  # of the ellipse with the same second moments: 0 circle, 1 line
    "solidity": "float64",  # area divided by that of the convex hull
    "touches_border": "bool",
}

# What a pixel of an outline adds to the perimeter. The index is 1, plus 2 for each neighbour on the
# outline above, below, left or right of it, plus 10 for each diagonal one (K. Benkrid and
# D. Crookes, "Design and FPGA implementation of a perimeter estimator", as in scikit-image).
OUTLINE_LENGTHS = np.zeros(50)
OUTLINE_LENGTHS[[5, 7, 15, 17, 25, 27]] = 1
OUTLINE_LENGTHS[[21, 33]] = np.sqrt(2)
OUTLINE_LENGTHS[[13, 23]] = (1 + np.sqrt(2)) / 2


@dataclass(frozen=True)
class Runs:
    """Stretches of pixels of one cell in one row, sorted by cell, then by row and column."""

    cells: np.ndarray  # (runs,) int64, number of the cell: 0 for the lowest label
    rows: np.ndarray  # (runs,) int64
    columns: np.ndarray  # (runs,) int64, of the first pixel
    lengths: np.ndarray  # (runs,) int64
    labels: np.ndarray  # (cells,) int64

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Add up a value of each run, (runs,), to one of each cell: (cells,) float64."""
        return np.bincount(self.cells, values, minlength=len(self.labels))

    def pixels(self, width: int) -> np.ndarray:
        """Return the places of all pixels, cell by cell, in a flat image of that width: (n,)."""
        stops = np.cumsum(self.lengths)
        shift = self.rows * width + self.columns - (stops - self.lengths)
        return np.repeat(shift, self.lengths) + np.arange(stops[-1] if stops.size else 0)

    def medians(self, values: np.ndarray) -> np.ndarray:
        """Return the median of each cell's pixels, (n,) in the order of `pixels`: (cells,)."""
        starts = np.cumsum(self.sums(self.lengths).astype(np.int64))[:-1]
        parts = np.split(values, starts) if self.labels.size else []
        return np.array([_median(own) for own in parts], np.float64)


def table_of(labels: np.ndarray, image: Image, pixel_size: float | None) -> pd.DataFrame:
    """Measure all cells of an image.

    Parameters
    ----------
    labels : (H, W) label map of unsigned integers; numbers may be missing
    image : of the same height and width, with any number of channels
    pixel_size : edge of a pixel in µm; None: not known, then the columns in µm are NaN

    Returns
    -------
    a row for each cell, by label: `COLUMNS`, then mean, median and sum of each channel
    """
    runs = runs_of(labels)
    area = runs.sums(runs.lengths).astype(np.int64)
    perimeter = _perimeters(labels, runs.labels)
    y, x, eccentricity = _moments(runs, area)
    size = np.nan if pixel_size is None else pixel_size
    shape = {
        "label": runs.labels,
        "y": y,
        "x": x,
        "area": area,
        "area_um2": area * size**2,
        "diameter": diameter_of(area),
        "diameter_um": diameter_of(area) * size,
        "perimeter": perimeter,
        "perimeter_um": perimeter * size,
        "eccentricity": eccentricity,
        "solidity": area / _convex_areas(runs),
        "touches_border": _touching(runs, labels.shape),
    }
    return pd.DataFrame(shape).astype(COLUMNS).join(pd.DataFrame(_brightness(image, runs, area)))


def runs_of(labels: np.ndarray) -> Runs:
    """Cut the rows of a label map, (H, W), where the label changes; sort what is of cells."""
    width = labels.shape[1]
    pixels = labels.ravel()
    change = pixels[1:] != pixels[:-1]
    change[width - 1 :: width] = True  # a new row
    starts = np.concatenate([[0], np.flatnonzero(change) + 1])
    lengths = np.diff(starts, append=pixels.size)
    kept = np.flatnonzero(pixels[starts])
    found, cells = np.unique(pixels[starts[kept]], return_inverse=True)
    order = np.argsort(cells, kind="stable")
    starts, lengths = starts[kept][order], lengths[kept][order]
    return Runs(cells[order], starts // width, starts % width, lengths, found.astype(np.int64))


def _moments(runs: Runs, area: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the centroids' y and x, and the eccentricities: (cells,) float64 each."""
    middles = runs.columns + (runs.lengths - 1) / 2
    y, x = runs.sums(runs.lengths * runs.rows) / area, runs.sums(runs.lengths * middles) / area
    dy, dx = runs.rows - y[runs.cells], middles - x[runs.cells]
    # Around its own middle, n pixels in a row have the second moment n (n² - 1) / 12.
    across = runs.lengths * (dx**2 + (runs.lengths.astype(float) ** 2 - 1) / 12)
    xx, yy = runs.sums(across) / area, runs.sums(runs.lengths * dy**2) / area
    xy = runs.sums(runs.lengths * dx * dy) / area
    tensors = np.stack([xx, xy, xy, yy], axis=-1).reshape(-1, 2, 2)
    minor, major = np.clip(np.linalg.eigvalsh(tensors), 0, None).T
    ratio = np.divide(minor, major, out=np.ones_like(major), where=major > 0)
    return y, x, np.sqrt(1 - ratio)


def _perimeters(labels: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the perimeters of the cells with the labels `found`: (cells,) float64."""
    framed = np.pad(labels, 1)  # so that the frame of the image is part of outlines
    edge = outlines(framed)
    places, width = np.flatnonzero(edge), framed.shape[1]
    lines = np.where(edge, framed, 0).ravel()
    own = lines[places]
    code = np.ones(len(places), np.int64)
    for weight, steps in (
        (2, (-width, -1, 1, width)),
        (10, (-width - 1, -width + 1, width - 1, width + 1)),
    ):
        for step in steps:
            code += weight * (lines[places + step] == own)
    cells = np.searchsorted(found, own)
    return np.bincount(cells, OUTLINE_LENGTHS[code], minlength=len(found))


def _convex_areas(runs: Runs) -> np.ndarray:
    """Count the pixels in the convex hull of each cell: (cells,) int64.

    As in scikit-image, a pixel reaches half a pixel up, down, left and right from its centre, and
    counts if its centre is in the hull or on its edge. Here all points are doubled, so that they
    are whole numbers and the count is exact.
    """
    first, last = 2 * runs.columns, 2 * (runs.columns + runs.lengths - 1)
    x = np.stack([first - 1, first, first, last, last, last + 1], axis=1)
    y = 2 * runs.rows[:, None] + [0, -1, 1, -1, 1, 0]
    points = np.stack([x, y], axis=-1).astype(np.int32)
    bounds = np.searchsorted(runs.cells, np.arange(len(runs.labels) + 1))
    hulls = [
        cv2.convexHull(points[start:stop].reshape(-1, 2))[:, 0]
        for start, stop in itertools.pairwise(bounds)
    ]
    if not hulls:
        return np.zeros(0, np.int64)
    cells = np.repeat(np.arange(len(hulls)), [len(hull) for hull in hulls])
    starts = np.concatenate(hulls).astype(np.int64)
    ends = np.concatenate([np.roll(hull, -1, axis=0) for hull in hulls]).astype(np.int64)
    return np.bincount(*_centres_beside(cells, starts, ends)).astype(np.int64)


def _centres_beside(
    cells: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tell for each edge of a hull and each row of pixels that it meets where the hull ends there.

    The values of a cell add up to the pixels in its hull: a right edge gives the number of the last
    pixel plus one, a left edge minus that of the first.

    Parameters
    ----------
    cells : (edges,) the cell of each edge
    starts, ends : (edges, 2) x and y of each edge, doubled; clockwise, so right edges go down

    Returns
    -------
    cells and values, one for each pair of an edge and a row
    """
    right = ends[:, 1] > starts[:, 1]
    upper = np.where(right[:, None], starts, ends)
    dx, dy = np.where(right[:, None], ends - starts, starts - ends).T
    first = -(-upper[:, 1] // 2)  # rows of pixels have even numbers here
    rows = -(-(upper[:, 1] + dy) // 2) - first  # the lower end belongs to the next edge
    edges = np.repeat(np.arange(len(rows)), rows)
    row = np.arange(len(edges)) + np.repeat(first - (np.cumsum(rows) - rows), rows)
    # x = over / under, and pixels have even x.
    under = dy[edges]
    over = upper[edges, 0] * under + (2 * row - upper[edges, 1]) * dx[edges]
    return cells[edges], np.where(right[edges], over // (2 * under) + 1, -over // (2 * under))


def _touching(runs: Runs, shape: tuple[int, ...]) -> np.ndarray:
    """Tell which cells have a pixel at the frame of the image: (cells,) bool."""
    height, width = shape
    frame = (runs.rows == 0) | (runs.rows == height - 1) | (runs.columns == 0)
    frame |= runs.columns + runs.lengths == width
    return runs.sums(frame) > 0


def _brightness(image: Image, runs: Runs, area: np.ndarray) -> dict[str, np.ndarray]:
    """Return mean, median and sum of each channel by the names of their columns."""
    height, width = image.pixels.shape[:2]
    pixels = runs.pixels(width)
    cells = np.cumsum(area) - area  # where the pixels of each cell begin
    names = image.names
    if len(set(names)) < len(names):  # two columns must not have one name
        names = tuple(f"{name}_{number}" for number, name in enumerate(names, 1))
    columns: dict[str, np.ndarray] = {}
    for name, channel in zip(names, image.pixels.reshape(height * width, -1).T, strict=True):
        values = np.ascontiguousarray(channel)[pixels]  # channels often lie interleaved
        total = np.add.reduceat(values, cells, dtype=np.float64)
        columns |= {
            f"mean_{name}": total / area,
            f"median_{name}": runs.medians(values),
            f"sum_{name}": total,
        }
    return columns


def _median(values: np.ndarray) -> float:
    """Return the median of some values, (n,), in two thirds of the time of `np.median`."""
    middle = (values.size - 1) // 2, values.size // 2
    return float(np.partition(values, middle)[list(middle)].mean(dtype=np.float64))
