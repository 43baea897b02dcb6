"""A planted difference between fed and starved wells: how often the stage `measure` tells it right.

Synthetic plates of three fed and three starved wells at five time points. Each field is a piece of
a real one whose cells lost their own puncta and got others (`benchmarks._planting`); how many, and
which share of them red only, differs from condition to condition, and at random from well to well.
src/measure.py reads the files of a plate, with the annotated outlines.

The truth is the difference of the conditions' expected values over all wells that there might be,
less the puncta for which cells had no room. The detector misses some puncta, and so shrinks it: the
table also tells how often the interval holds the truth times the part of the puncta that was
counted. Of plates without any difference, the truth is 0 but for chance in who has room, and each
claim is a false one.
"""

import itertools
import json
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tifffile
from joblib import Parallel, delayed
from tabulate import tabulate
from tqdm import tqdm

import measure
from benchmarks import Message
from benchmarks._planting import PIXEL_SIZE, emptied, planted, real_fields
from cellular.imaging.images import write_labels

SEEDS = 50
WELLS = {"fed": ("C03", "D04", "E05"), "starved": ("I06", "J07", "K08")}
SIDE = 400  # pixels of a piece
FEWEST = 8  # cells of a piece, some of them cut by its edge
SPREAD = 0.15  # standard deviation of a well's expected value, as a part of it
CONTRAST = 0.5, 2.0
READOUTS = "red_puncta", "red_only_fraction"
HEADERS = (
    *("plates", "read-out", "truth", "mean estimate", "mean width of the interval", "counted"),
    *("holds the truth", "holds the truth times counted", "claimed"),
)
Piece = tuple[np.ndarray, ...]  # red, green, label map


class Planted(NamedTuple):
    """Expected values of a condition."""

    red_puncta: float  # a cell
    red_only_fraction: float


PLATES = {
    "effect": {"fed": Planted(5, 0.6), "starved": Planted(8, 0.8)},
    "no effect": {"fed": Planted(6.5, 0.7), "starved": Planted(6.5, 0.7)},
}


def run(small: bool = False) -> Message:
    """Return the table; `small`: of two plates of each kind, with one time point."""
    with tempfile.TemporaryDirectory() as folder:
        fields = real_fields(Path(folder), small)
    pieces = [_pieces(field) for field in fields[: 1 if small else None]]
    seeds = range(2 if small else SEEDS)
    made = [(kind, seed) for kind in PLATES for seed in seeds]
    workers = Parallel(n_jobs=1 if small else os.cpu_count(), return_as="generator")
    plates = workers(delayed(_plate)(pieces, kind, seed) for kind, seed in made)
    bar = tqdm(plates, "effect", total=len(made), unit="plate", leave=False)
    found: pd.DataFrame = pd.concat(bar)
    groups = found.groupby(["plates", "readout"], sort=False)
    rows = [(*names, *_summary(rows)) for names, rows in groups]
    return Message(f"{len(seeds)} plates of each kind\n{tabulate(rows, HEADERS, 'github')}")


def _pieces(field: Piece) -> list[Piece]:
    """Cut a field into pieces that do not overlap, and return those with enough cells."""
    corners = range(0, len(field[0]) - SIDE + 1, SIDE)
    cut = (
        tuple(whole[y : y + SIDE, x : x + SIDE] for whole in field)
        for y, x in itertools.product(corners, corners)
    )
    return [piece for piece in cut if len(np.unique(piece[2])) > FEWEST]


def _plate(pieces: list[list[Piece]], kind: str, seed: int) -> pd.DataFrame:
    """Make a plate, run the stage on it, and return what it says of each of `READOUTS`.

    Parameters
    ----------
    pieces : for each time point, those from which fields are drawn
    """
    random = np.random.default_rng([seed, list(PLATES).index(kind)])
    expected = PLATES[kind]
    placed, lost = 0, dict.fromkeys(WELLS, 0.0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for condition, well in ((name, well) for name in WELLS for well in WELLS[name]):
            own = _of_well(expected[condition], random)
            for time, choice in enumerate(pieces, start=1):
                name = f"Timepoint_{time:03d}_synthetic_{well}_s1"
                piece = choice[random.integers(len(choice))]
                spots, missing = _write(folder, name, piece, own, random)
                placed += spots
                lost[condition] += missing / len(WELLS[condition]) / len(pieces)
        read = _read(folder)
    source = read["sources"]["cells"]
    table = pd.DataFrame([read["contrasts"]["cells"][name] for name in READOUTS])
    table["truth"] = np.subtract(expected["starved"], expected["fed"])
    table["truth"] -= [lost["starved"] - lost["fed"], 0]
    table["counted"] = [source["means"]["red_puncta"] * source["cells"] / placed, np.nan]
    return table.assign(plates=kind)


def _of_well(mean: Planted, random: np.random.Generator) -> Planted:
    """Draw the expected values of a well around those of its condition."""
    shape = SPREAD**-2  # of a gamma distribution, whose mean stays what it is
    share = mean.red_only_fraction
    total = (1 - share) / share / SPREAD**2 - 1  # of a beta distribution's parameters
    return Planted(
        random.gamma(shape, mean.red_puncta / shape),
        random.beta(share * total, (1 - share) * total),
    )


def _write(
    folder: Path, name: str, piece: Piece, mean: Planted, random: np.random.Generator
) -> tuple[int, float]:
    """Write a field; return the number of its spots, and how many a cell had no room for."""
    red, green, labels = piece
    first, second, third = random.integers(2**31, size=3).tolist()
    red, green = emptied(red, labels, first), emptied(green, labels, second)
    cells = len(np.unique(labels[labels > 0]))
    counts = random.poisson(mean.red_puncta, cells)
    share = mean.red_only_fraction
    red, green, spots = planted(red, green, labels, counts, share, CONTRAST, third)
    for part in ("channels", "labels"):
        (folder / part).mkdir(exist_ok=True)
    for wave, channel in (("w2", red), ("w1", green)):
        tifffile.imwrite(folder / f"channels/{name}_{wave}.TIF", channel.astype(np.uint16))
    write_labels(folder / f"labels/{name}.tif", labels.astype(np.uint16))
    return len(spots), (counts.sum() - len(spots)) / cells


def _read(folder: Path) -> dict[str, Any]:
    """Run the stage on the files of a plate, and return its numbers."""
    images, labels, output = (str(folder / name) for name in ("channels", "labels", "out"))
    options = ["--pixel_size", str(PIXEL_SIZE), "--output", output]
    measure.main([images, "--labels", labels, *options])
    return json.loads(Path(f"{output}.json").read_text())


def _summary(rows: pd.DataFrame) -> tuple[str, ...]:
    """Return the last columns of `HEADERS`, of one read-out and one kind of plates."""
    truth, counted = rows["truth"].mean(), rows["counted"].mean()

    def held(value: float) -> str:
        return f"{((rows['low'] <= value) & (value <= rows['high'])).mean():.0%}"

    known = np.isfinite(counted)
    return (
        f"{truth:+.2f}",
        f"{rows['difference'].mean():+.2f}",
        f"{(rows['high'] - rows['low']).mean():.2f}",
        f"{counted:.0%}" if known else "",
        held(truth),
        held(truth * counted) if known else "",
        f"{rows['claimed'].mean():.0%}",
    )
