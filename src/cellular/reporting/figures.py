"""Figures: curves of two models, as SVG that takes its colours from the page it stands in."""

import io
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Stand for the page's own colours, which differ in light and dark; replaced in the SVG's text.
INK, FAINT, MODELS = "#010203", "#010204", ("#010205", "#010206")
ON_THE_PAGE = {
    INK: "currentColor",
    FAINT: "var(--faint)",
    MODELS[0]: "var(--first)",
    MODELS[1]: "var(--second)",
}
DASHES = ("--", "-")  # two models are told apart without colour as well
MARKERS = ("s", "o")
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cellular",
    "text.parse_math": False,  # a model's name may hold a dollar
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def precision_by_iou(models: Sequence[str], curves: Sequence[pd.DataFrame]) -> str:
    """Draw average precision against the IoU threshold, with the 95 % interval of each model."""

    def draw(axes: Axes) -> None:
        for number, (name, curve) in enumerate(zip(models, curves, strict=True)):
            axes.plot(curve["iou"], curve["average_precision"], label=name, **_line(number))
            axes.fill_between(
                curve["iou"], curve["low"], curve["high"],
                color=MODELS[number], alpha=0.18, linewidth=0,
            )  # fmt: skip
        axes.set(xlabel="IoU threshold", ylabel="average precision", ylim=(0, 1))
        axes.legend()

    return _svg("ap", "Average precision against IoU threshold", draw)


def losses(table: pd.DataFrame) -> str:
    """Draw training and validation loss by epoch."""

    def draw(axes: Axes) -> None:
        for number, name in enumerate(("train_loss", "valid_loss")):
            known = table[["epoch", name]].dropna()
            axes.plot(
                known["epoch"], known[name], label=name.replace("_", " "),
                color=MODELS[1], linestyle=(":", "-")[number], linewidth=2,
            )  # fmt: skip
        axes.set(xlabel="epoch", ylabel="loss")
        axes.legend()

    return _svg("loss", "Training and validation loss by epoch", draw)


def f1_by_size(models: Sequence[str], tables: Sequence[pd.DataFrame]) -> str:
    """Draw F1 of cells in each quarter of sizes, as bars side by side."""

    def draw(axes: Axes) -> None:
        width = 0.38
        for number, (name, table) in enumerate(zip(models, tables, strict=True)):
            places = np.arange(len(table)) + (number - 0.5) * width
            axes.bar(
                places, table["f1"].fillna(0), width * 0.92, label=name,
                color=MODELS[number], hatch=("//", "")[number], edgecolor=FAINT, linewidth=0,
            )  # fmt: skip
        labels = [_range_of(row) for row in tables[0].itertuples()]
        axes.set_xticks(np.arange(len(labels)), labels)
        axes.set(xlabel="diameter of the cells, px", ylabel="F1 of cells", ylim=(0, 1))
        axes.grid(axis="x", visible=False)
        axes.legend(ncols=2, loc="upper left")

    return _svg("size", "F1 of cells by their size", draw)


def diameters(models: Sequence[str], tables: Sequence[pd.DataFrame]) -> str:
    """Draw the predicted against the annotated diameter of each found cell."""

    def draw(axes: Axes) -> None:
        every = pd.concat([table[["diameter", "predicted_diameter"]] for table in tables])
        if len(every):
            ends = [0.9 * float(every.min().min()), 1.05 * float(every.max().max())]
            axes.plot(ends, ends, color=INK, linewidth=0.8)
            axes.set(xlim=ends, ylim=ends)
        for number, (name, table) in enumerate(zip(models, tables, strict=True)):
            axes.scatter(
                table["diameter"], table["predicted_diameter"], s=14, label=name,
                marker=MARKERS[number], facecolors=("none", MODELS[1])[number],
                edgecolors=MODELS[number], linewidths=0.9, alpha=0.75,
            )  # fmt: skip
        axes.set(xlabel="annotated diameter, px", ylabel="predicted diameter, px")
        axes.set_aspect("equal")
        axes.legend(loc="upper left")

    return _svg("diameter", "Predicted against annotated diameter of found cells", draw)


def _line(number: int) -> dict:
    return {
        "color": MODELS[number],
        "linestyle": DASHES[number],
        "marker": MARKERS[number],
        "markersize": 4,
        "linewidth": 2,
    }


def _range_of(row) -> str:
    if pd.isna(row.to_px):
        return f"over {row.from_px:.0f}"
    return f"{row.from_px:.0f} to {row.to_px:.0f}" if row.from_px else f"to {row.to_px:.0f}"


def _svg(name: str, title: str, draw) -> str:
    """Return a figure as an SVG element whose identifiers begin with `name`."""
    with rc_context(STYLE):
        figure = Figure(figsize=(5.6, 4.2), layout="constrained")
        draw(figure.add_subplot())
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = text.replace('<style type="text/css">*', "<style>svg *")  # not the whole page's
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'id="', f'id="{name}-', text)
    text = re.sub(r"(href=\"#|url\(#)", rf"\g<1>{name}-", text)
    for colour, shown in ON_THE_PAGE.items():
        text = text.replace(colour, shown)
    # The page decides how large it is, and readers are told what it shows.
    text = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>',
        rf'<svg viewBox="\1" role="img" aria-label="{title}" xmlns="http://www.w3.org/2000/svg" '
        r'xmlns:xlink="http://www.w3.org/1999/xlink">',
        text,
        count=1,
        flags=re.DOTALL,
    )
    return text
