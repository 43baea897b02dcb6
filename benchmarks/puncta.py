"""Planted puncta: how many the read-out finds, by their contrast and how crowded they are.

Cells of the sample lose their own puncta, and get others of known number, place, size and contrast
(`benchmarks._planting`). The defaults of the detector were chosen on time points 1 to 3 with other
seeds; the figures are of time points 4 and 5. Prints a table, and draws docs/measuring.png.
"""

import itertools
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from benchmarks import ROOT, Message
from benchmarks._planting import PIXEL_SIZE, emptied, planted, real_fields
from cellular.measuring.params import MeasureParams
from cellular.measuring.readout import Reading, field_of, measure

CONTRASTS = (0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
TIME_POINTS = (4, 5)
SEED = 41
COUNT = 8  # spots a cell
RED_ONLY = 0.7
REACH = 3.0  # pixels from a planted spot to the punctum that counts as it
# Standard deviations of a pixel's noise; what is fainter is not in one of the columns.
VISIBLE = 3.0
COLUMNS = ("recall", "visible", "precision", "bias", "red_only")
HEAD = """\
| spots | contrast | recall | of those above the noise | precision | bias of count \
| error of red-only fraction |
|---|---|---|---|---|---|---|"""


def run(small: bool = False) -> Message:
    """Return the table of scores; `small` draws nothing."""
    with tempfile.TemporaryDirectory() as folder:
        fields = real_fields(Path(folder), small)
    chosen = [fields[number - 1] for number in TIME_POINTS]
    false, scores = scores_of(chosen[:1] if small else chosen, (1.0,) if small else CONTRASTS)
    lines = [
        f"false puncta a cell: red {false['red_puncta']:.3f}, green {false['green_puncta']:.3f}",
        HEAD,
    ]
    for row in scores.reset_index().to_dict("records"):
        shown = "crowded" if row["crowded"] else "apart"
        lines.append(
            f"| {shown} | {row['contrast']:g} | {row['recall']:.2f} | {row['visible']:.2f} | "
            f"{row['precision']:.2f} | {row['bias']:+.0%} | {row['red_only']:+.3f} |"
        )
    if not small:
        _draw(scores, ROOT / "docs/measuring.png")
    return Message("\n".join(lines))


def scores_of(
    fields: list[tuple[np.ndarray, ...]],
    contrasts: tuple[float, ...],
    params: MeasureParams | None = None,
    seed: int = SEED,
) -> tuple[pd.Series, pd.DataFrame]:
    """Plant puncta in fields, read them out, and compare.

    Parameters
    ----------
    fields : red, green, and label map of each

    Returns
    -------
    red_puncta and green_puncta a cell where there are none; and means of `COLUMNS` by crowded and
    contrast
    """
    params = params or MeasureParams()

    def read(red: np.ndarray, green: np.ndarray, labels: np.ndarray) -> Reading:
        return measure(field_of(red, green, PIXEL_SIZE, params), labels)

    false, rows = [], []
    for number, (red, green, labels) in enumerate(fields, start=seed):
        red, green = (emptied(red, labels, number), emptied(green, labels, number + 100))
        false.append(read(red, green, labels).cells[["red_puncta", "green_puncta"]])
        for crowded, contrast in itertools.product((False, True), contrasts):
            with_spots = planted(
                *(red, green, labels),
                counts=COUNT,
                red_only=RED_ONLY,
                contrast=(contrast, contrast),
                seed=number + 200,
                crowded=crowded,
            )
            reading = read(with_spots[0], with_spots[1], labels)
            rows.append((crowded, contrast, *_score(with_spots[2], reading)))
    table = pd.DataFrame(rows, columns=["crowded", "contrast", *COLUMNS])
    return pd.concat(false).mean(), table.groupby(["crowded", "contrast"]).mean()


def _score(spots: pd.DataFrame, reading: Reading) -> tuple[float, ...]:
    """Return `COLUMNS` of one field: how the red puncta differ from the spots in it."""
    found = reading.puncta[reading.puncta["channel"] == "red"]
    hit = pd.Series(False, spots.index)
    of_cell = dict(iter(found.groupby("label")))
    for label, own in spots.groupby("label"):
        if label in of_cell:
            hit[own.index] = _hit(own[["y", "x"]].to_numpy(), of_cell[label][["y", "x"]].to_numpy())
    red_only = 1 - found["double"].mean() - (1 - spots["double"].mean())
    return (
        hit.mean(),
        hit[spots["snr_red"] >= VISIBLE].mean(),
        hit.sum() / max(len(found), 1),
        len(found) / len(spots) - 1,
        red_only,
    )


def _hit(spots: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Tell which spots, (n, 2), are found if each punctum, (m, 2), counts for one: (n,) bool."""
    distances = np.hypot(*(spots[:, None] - found).transpose(2, 0, 1))
    rows, columns = linear_sum_assignment(np.where(distances <= REACH, distances, 1e3))
    hit = np.zeros(len(spots), bool)
    hit[rows] = distances[rows, columns] <= REACH
    return hit


def _draw(scores: pd.DataFrame, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for crowded, colour in ((False, "tab:blue"), (True, "tab:orange")):
        own = scores.loc[crowded]
        name = "3 to 8 pixels apart" if crowded else "8 pixels apart or more"
        left.plot(own.index, own["recall"], "o-", color=colour, label=f"recall, {name}")
        left.plot(own.index, own["precision"], "s:", color=colour, label=f"precision, {name}")
        right.plot(own.index, own["red_only"], "o-", color=colour, label=name)
    right.axhspan(-0.05, 0.05, color="0.9", label="0.05")
    left.set(ylabel="share of the puncta", ylim=(0, 1.02))
    right.set(ylabel="error of the red-only fraction")
    for axes in (left, right):
        axes.set(xlabel="contrast of the planted puncta", xscale="log")
        axes.set_xticks(CONTRASTS, [f"{contrast:g}" for contrast in CONTRASTS], minor=False)
        axes.minorticks_off()
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)
