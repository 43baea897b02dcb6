"""The scores computed by their definition: with sets of pixels, and every possible matching."""

import itertools
import math

import numpy as np

Cell = frozenset[tuple[int, int]]


def cells_of(labels: np.ndarray, without: Cell = frozenset()) -> dict[int, Cell]:
    """Return the pixels of each label, except those in `without`."""
    return {
        int(label): frozenset(map(tuple, np.argwhere(labels == label).tolist())) - without
        for label in np.unique(labels)
        if label > 0
    }


def iou(a: Cell, b: Cell) -> float:
    return len(a & b) / len(a | b) if a | b else 0.0


def all_matchings(true: list, predicted: list):
    """Give every way to pair true with predicted cells, each used at most once."""
    small, large = sorted((true, predicted), key=len)
    for chosen in itertools.permutations(large, len(small)):
        yield [pair if small is true else pair[::-1] for pair in zip(small, chosen, strict=True)]


def best_matchings(true: dict[int, Cell], predicted: dict[int, Cell]) -> list[dict[int, int]]:
    """Return the matchings with the most pairs of IoU 0.5 and, among these, the largest sum."""
    found: dict[frozenset, tuple[int, float]] = {}
    for pairs in all_matchings(sorted(true), sorted(predicted)):
        ious = {(t, p): iou(true[t], predicted[p]) for t, p in pairs}
        kept = frozenset(pair for pair in ious if ious[pair] > 0)
        found[kept] = sum(i >= 0.5 for i in ious.values()), math.fsum(ious.values())
    best = max(found.values(), default=(0, 0.0))
    return [
        dict(kept)
        for kept, value in found.items()
        if value[0] == best[0] and math.isclose(value[1], best[1], abs_tol=1e-9)
    ]


def most_pairs(true: dict[int, Cell], predicted: dict[int, Cell], threshold: float) -> int:
    """Return the largest number of pairs with at least this IoU in any matching."""
    return max(
        (
            sum(iou(true[t], predicted[p]) >= threshold for t, p in pairs)
            for pairs in all_matchings(sorted(true), sorted(predicted))
        ),
        default=0,
    )


def outcome_of_true(label: int, true, predicted, found: set[int]) -> str:
    if label in found:
        return "found"
    cell = true[label]
    for other in predicted.values():
        if 2 * len(cell & other) > len(cell):
            held = [c for c in true.values() if 2 * len(c & other) > len(c)]
            if len(held) > 1:
                return "merged"
    inside = [p for p in predicted.values() if 2 * len(p & cell) > len(p)]
    return "split" if len(inside) > 1 else "missed"


def outcome_of_prediction(label: int, true, predicted, found: set[int]) -> str:
    if label in found:
        return "found"
    cell = predicted[label]
    if sum(2 * len(c & cell) > len(c) for c in true.values()) > 1:
        return "merging"
    for other in true.values():
        if 2 * len(cell & other) > len(cell):
            parts = [p for p in predicted.values() if 2 * len(p & other) > len(p)]
            if len(parts) > 1:
                return "part"
    return "false positive"


def outline(labels: np.ndarray) -> set[tuple[int, int]]:
    """Return the pixels of cells with another label above, below, left or right."""
    height, width = labels.shape
    edge = set()
    for y, x in np.argwhere(labels > 0).tolist():
        for near_y, near_x in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= near_y < height and 0 <= near_x < width
            if inside and labels[near_y, near_x] != labels[y, x]:
                edge.add((y, x))
    return edge


def boundary_f1(truth: np.ndarray, predicted: np.ndarray, tolerance: float) -> float | None:
    """Return F1 of outlines; None if neither map has any."""
    a, b = outline(truth), outline(predicted)

    def confirmed(own: set, other: set) -> float:
        near = [any(math.dist(p, q) <= tolerance for q in other) for p in own]
        return sum(near) / len(own) if own else 0.0

    if not a and not b:
        return None
    precision, recall = confirmed(b, a), confirmed(a, b)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
