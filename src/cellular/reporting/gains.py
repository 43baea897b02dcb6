"""Gains: which annotated cells each of two models finds, and what those of only one are like."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from cellular.imaging.matching import FALSE_POSITIVE, FOUND
from cellular.imaging.pictures import grey, palette_image, percentiles, plane
from cellular.reporting.parts import Table, number
from cellular.scoring.boundaries import outlines
from cellular.scoring.groups import kinds_of, size_limits
from cellular.scoring.scores import FieldResult

BOTH, NEITHER = "both", "neither"
COLUMNS = ("field", "timepoint", "well", "class", "label", "y", "x", "area", "diameter", "found_by")
KINDS = {"size": "size (quarters of the diameters)", "class": "class", "well": "well"}

SIDE = 768  # pixels of the longer side of each half of a picture
GAP = 6  # pixels between the halves
THICK = np.ones((3, 3), np.uint8)  # what a pixel of a thick line becomes
# Okabe and Ito's colours, which colour-blind readers can tell apart (jfly.uni-koeln.de/color).
COLOURS = {
    "both": (0, 158, 115),  # green
    "first": (230, 159, 0),  # orange
    "second": (86, 180, 233),  # light blue
    "neither": (240, 228, 66),  # yellow
    "prediction": (255, 255, 255),  # white
    FALSE_POSITIVE: (204, 121, 167),  # pink
}
GREYS = 256 - len(COLOURS)
INDEX = {name: GREYS + place for place, name in enumerate(COLOURS)}


@dataclass(frozen=True)
class Gains:
    """The annotated cells of a split, and which of two models finds each."""

    split: str
    models: tuple[str, str]
    cells: pd.DataFrame  # a row for each, with COLUMNS, and those that `kinds_of` needs
    limits: list[float]  # quartiles of their diameters, in pixels

    @property
    def order(self) -> list[str]:
        """What `found_by` may be, in the order in which it is shown."""
        return [BOTH, *self.models, NEITHER]

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of cells, by who finds them."""
        counts = self.cells["found_by"].value_counts()
        return {name: int(counts.get(name, 0)) for name in self.order}

    @property
    def sentence(self) -> str:
        """Say how many cells only one finds, and how large those are."""
        first, second = self.models
        counts = self.counts
        text = (
            f"Of the {len(self.cells)} cells of {self.split}, only {second} finds "
            f"{counts[second]}, only {first} {counts[first]}, both find {counts[BOTH]}, and "
            f"neither finds {counts[NEITHER]}."
        )
        median = self.cells.groupby("found_by")["diameter"].median()
        sizes = [
            f"{number(median[name])} px of those that only {name} finds"
            for name in (second, first)
            if counts[name]
        ]
        if sizes:
            every = number(self.cells["diameter"].median())
            text += (
                f" Their median diameter is {' and '.join(sizes)}; of all cells it is {every} px."
            )
        return text

    @property
    def table(self) -> Table:
        """Who finds the cells of each size, class and well, where there are several."""
        groups = {}
        for kind, names in kinds_of(self.cells, self.limits).items():
            if kind in KINDS and names.nunique() > 1:
                found = pd.crosstab(names, self.cells["found_by"])
                found = found.reindex(columns=self.order, fill_value=0)
                groups[f"by {KINDS[kind]}"] = [
                    [str(name), *map(str, (row.sum(), *row))] for name, row in found.iterrows()
                ]
        headers = ("both", *(f"only {model}" for model in self.models), "neither")
        title = f"Number of cells of {self.split}, and by whom they are found"
        return Table(title, ["group", "cells", *headers], groups)


def gains(
    split: str,
    models: tuple[str, str],
    first: Sequence[FieldResult],
    second: Sequence[FieldResult],
) -> Gains:
    """Return which of two models finds each annotated cell, at an IoU of at least 0.5.

    Parameters
    ----------
    models : the names of the two
    first, second : the results of each on the same fields, scored on the same cells
    """
    tables = []
    for results in (first, second):
        cells = pd.concat([result.cells for result in results], ignore_index=True)
        tables.append(cells[cells["label"].notna()].reset_index(drop=True))
    names = [list(zip(table["field"], table["label"], strict=True)) for table in tables]
    if names[0] != names[1]:
        raise ValueError("the two models were not scored on the same cells")
    one, two = (table["outcome"] == FOUND for table in tables)
    found = np.select([one & two, one, two], [BOTH, *models], NEITHER)
    return Gains(split, models, tables[0].assign(found_by=found), size_limits(first))


def differing(found: Gains, count: int) -> list[str]:
    """Return the `count` fields in which most cells are found by one model only, most first."""
    single = found.cells.loc[found.cells["found_by"].isin(found.models), "field"]
    return (
        single.value_counts(sort=False)
        .sort_values(ascending=False, kind="stable")
        .index[:count]
        .tolist()
    )


def draw(
    image: np.ndarray,
    truth: np.ndarray,
    predicted: Sequence[np.ndarray],
    found_by: Sequence[str],
    false_positives: Sequence[Sequence[int]],
    models: tuple[str, str],
) -> Image.Image:
    """Draw the outlines of a field twice, with the predictions of each of two models.

    Annotated cells have the colour of who finds them; those that only one finds have thick
    outlines. Predictions are white, false positives pink.

    Parameters
    ----------
    image : (H, W) or (H, W, C)
    truth : (H, W) label map, numbered 1 to n
    predicted : of each model, (H, W) label map
    found_by : for each of the n cells `both`, the name of a model, or `neither`
    false_positives : of each model, the labels of the predictions that are false positives

    Returns
    -------
    picture in RGB: the first model on the left, the second on the right; the longer side of each
    has at most 768 pixels
    """
    height, width = truth.shape
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shown = cv2.resize(plane(image), size, interpolation=cv2.INTER_AREA)
    plain = grey(shown, percentiles(image), GREYS)
    keys = dict(zip((BOTH, *models, NEITHER), COLOURS, strict=False))
    of_truth = np.array([0, *(INDEX[keys[name]] for name in found_by)], np.uint8)
    halves = []
    for labels, wrong in zip(predicted, false_positives, strict=True):
        of_predicted = np.full(int(labels.max(initial=0)) + 1, INDEX["prediction"], np.uint8)
        of_predicted[list(wrong)] = INDEX[FALSE_POSITIVE]
        canvas = plain.copy()
        for cells, colours in ((labels, of_predicted), (truth, of_truth)):
            small = cv2.resize(cells, size, interpolation=cv2.INTER_NEAREST)
            edge = outlines(small)
            canvas[edge] = colours[small[edge]]
        for name in ("first", "second"):  # the few cells that one looks for have thick outlines
            thick = cv2.dilate((canvas == INDEX[name]).view(np.uint8), THICK) > 0
            canvas[thick] = INDEX[name]
        halves.append(canvas)
    both = np.hstack([halves[0], np.zeros((len(plain), GAP), np.uint8), halves[1]])
    return palette_image(both, COLOURS.values()).convert("RGB")
