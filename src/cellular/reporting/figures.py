"""Figures: curves of two models, as SVG that takes its colours from the page it is embedded in."""

import html
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Style = dict[str, Any]  # matplotlib's names of properties, with their values

# Placeholders for the page's own colours, which differ in light and dark mode. They are replaced in
# the text of the SVG.
INK, FAINT, MODELS = "#010203", "#010204", ("#010205", "#010206")
ON_THE_PAGE = {
    INK: "currentColor",
    FAINT: "var(--faint)",
    MODELS[0]: "var(--first)",
    MODELS[1]: "var(--second)",
}
# The two models differ in more than colour.
LINES: list[Style] = [{"linestyle": "--", "marker": "s"}, {"linestyle": "-", "marker": "o"}]
BARS: list[Style] = [{"hatch": "//"}, {"hatch": ""}]
POINTS: list[Style] = [{"marker": "s", "markerfacecolor": "none"}, {"marker": "o"}]
SIZE = 5.6, 4.2  # inches
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cellular",
    "text.parse_math": False,  # a model's name may contain a dollar sign
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


def precision_by_iou(identifier: str, models: Sequence[str], curves: Sequence[pd.DataFrame]) -> str:
    """Draw average precision against the IoU threshold, with the 95 % interval of each model."""

    def draw(axes: Axes) -> None:
        for name, curve, colour, line in zip(models, curves, MODELS, LINES, strict=True):
            style = line | {"label": name, "color": colour, "markersize": 4, "linewidth": 2}
            axes.plot(curve["iou"], curve["average_precision"], **style)
            band: Style = {"color": colour, "alpha": 0.18, "linewidth": 0}
            axes.fill_between(curve["iou"], curve["low"], curve["high"], **band)
        axes.set(xlabel="IoU threshold", ylabel="average precision", ylim=(0, 1))
        axes.legend()

    return as_svg(identifier, "Average precision against IoU threshold", draw)


def losses(table: pd.DataFrame) -> str:
    """Draw training and validation loss by epoch."""

    def draw(axes: Axes) -> None:
        for name, line in (("train_loss", ":"), ("valid_loss", "-")):
            known = table[["epoch", name]].dropna()
            style: Style = {"color": MODELS[1], "linestyle": line, "linewidth": 2}
            axes.plot(known["epoch"], known[name], label=name.replace("_", " "), **style)
        axes.set(xlabel="epoch", ylabel="loss")
        axes.legend()

    return as_svg("loss", "Training and validation loss by epoch", draw)


def f1_by_size(identifier: str, models: Sequence[str], tables: Sequence[pd.DataFrame]) -> str:
    """Draw F1 of cells in each quarter of sizes, as bars side by side."""

    def draw(axes: Axes) -> None:
        width = 0.38
        for number, (name, table) in enumerate(zip(models, tables, strict=True)):
            places = np.arange(len(table)) + (number - 0.5) * width
            style = BARS[number] | {"color": MODELS[number], "edgecolor": FAINT, "linewidth": 0}
            axes.bar(places, table["f1"].fillna(0), width * 0.92, label=name, **style)
        labels = [_range_of(row) for row in tables[0].itertuples()]
        axes.set_xticks(np.arange(len(labels)), labels)
        axes.set(xlabel="diameter of the cells, px", ylabel="F1 of cells", ylim=(0, 1))
        axes.grid(axis="x", visible=False)
        axes.legend(ncols=2, loc="upper left")

    return as_svg(identifier, "F1 of cells by their size", draw)


def diameters(identifier: str, models: Sequence[str], tables: Sequence[pd.DataFrame]) -> str:
    """Draw the predicted against the annotated diameter of each found cell."""
    points = [table[["diameter", "predicted_diameter"]].to_numpy() for table in tables]
    return _against(identifier, "diameter of found cells", ", px", models, points)


def counts(identifier: str, models: Sequence[str], tables: Sequence[pd.DataFrame]) -> str:
    """Draw the predicted against the annotated number of cells of each field."""
    points = [table[["cells", "predictions"]].to_numpy() for table in tables]
    return _against(identifier, "number of cells", "", models, points)


def _against(
    identifier: str, what: str, unit: str, models: Sequence[str], points: Sequence[np.ndarray]
) -> str:
    """Draw what is predicted against what is annotated, with the line on which both are equal.

    Parameters
    ----------
    points : of each model, (n, 2) annotated and predicted values
    """

    def draw(axes: Axes) -> None:
        every = np.concatenate(points)
        if len(every):
            ends = (0.9 * every.min(), 1.05 * max(1, every.max()))
            axes.plot(ends, ends, color=INK, linewidth=0.8)
            axes.set(xlim=ends, ylim=ends)
        for name, of, colour, point in zip(models, points, MODELS, POINTS, strict=True):
            style = point | {"color": colour, "alpha": 0.75, "linestyle": "none"}
            axes.plot(*of.T, markersize=4 if len(every) > 100 else 7, label=name, **style)
        axes.set(xlabel=f"annotated {what}{unit}", ylabel=f"predicted {what}{unit}")
        axes.set_aspect("equal")
        axes.legend(loc="upper left")

    return as_svg(identifier, f"Predicted against annotated {what}", draw)


def _range_of(row: Any) -> str:
    if pd.isna(row.to_px):
        return f"over {row.from_px:.0f}"
    return f"{row.from_px:.0f} to {row.to_px:.0f}" if row.from_px else f"to {row.to_px:.0f}"


def as_svg(
    identifier: str,
    title: str,
    draw: Callable[..., None],
    size: tuple[float, float] = SIZE,
    panels: int = 1,
) -> str:
    """Return a figure as an SVG element.

    Parameters
    ----------
    identifier : what all identifiers in it begin with
    title : what screen readers say
    draw : gets the axes of each panel, side by side, which share their vertical axis
    size : width and height in inches, at which letters are 11 points high
    """
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(*figure.subplots(1, panels, sharey=True, squeeze=False)[0])
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = text.replace('<style type="text/css">*', "<style>svg *")  # not the whole page's
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # A hundredth of a point is enough, and words end otherwise than coordinates.
    text = re.sub(r"(\d\.\d\d)\d+(?=[ \n\",)])", r"\1", text)
    text = re.sub(r'id="', f'id="{identifier}-', text)
    text = re.sub(r"(href=\"#|url\(#)", rf"\g<1>{identifier}-", text)
    for colour, shown in ON_THE_PAGE.items():
        text = text.replace(colour, shown)
    # The page decides the size, and screen readers read the title.
    text = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>',
        lambda found: (
            f'<svg viewBox="{found[1]}" role="img" aria-label="{html.escape(title)}" '
            'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        ),
        text,
        count=1,
        flags=re.DOTALL,
    )
    return text
