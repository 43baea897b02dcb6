"""Figures of the read-out: plates, courses in time, and how much error the read-out bears."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.ticker import MaxNLocator

from cellular.measuring.measurement import ANNOTATED
from cellular.reporting.figures import INK, LINES, MODELS, POINTS, SIZE, Style, as_svg

WELL = 0.5  # inches a well is wide, so that a number of five letters fits into it
DIAMETER = 0.92  # of a circle, in widths of a well
FRAME = 0.6, 1.3  # inches beside and below a plate, for the names of rows and the scale
PANEL = 3.2  # inches, one of several beside one another
POINTS_AN_INCH = 72
CONDITIONS: list[Style] = [{"linestyle": "-"}, {"linestyle": "--"}, {"linestyle": ":"}]
STEPS = 6  # colours of the scale of a plate, at most
COLOURS = "cividis"  # looks alike to the colour-blind (Nuñez et al., PLoS ONE 13:e0199239, 2018)
LETTERS: Style = {"fontsize": 10, "ha": "center", "va": "center"}
DARK = 0.18  # luminance below which white letters have more contrast than black ones (WCAG 2)
ANNOTATED_LINE: Style = {"linestyle": "-.", "marker": "^"}
PERTURBED_LINES: dict[str, Style] = {
    "moved inwards": {"linestyle": "--", "marker": "v"},
    "moved outwards": {"linestyle": "-", "marker": "^"},
    "merged": {"linestyle": ":", "marker": "D"},
}


def styles_of(sources: Sequence[str]) -> dict[str, Style]:
    """Return colour, line and marker of each source: the models' are those of the other figures."""
    found: dict[str, Style] = {}
    models = [name for name in sources if name != ANNOTATED]
    for name in sources:
        place = models.index(name) % len(MODELS) if name in models else 0
        drawn: Style = LINES[place] | {"color": MODELS[place]}
        found[name] = drawn if name in models else ANNOTATED_LINE | {"color": INK}
    return found


def scale_of(values: np.ndarray) -> BoundaryNorm:
    """Return the steps of a scale with round ends, for all plates of a read-out."""
    ends = MaxNLocator(STEPS - 1).tick_values(values.min(), values.max())
    return BoundaryNorm(ends, colormaps[COLOURS].N)


def plate(
    identifier: str,
    title: str,
    wells: Mapping[tuple[int, int], float],
    layout: tuple[int, int],
    scale: BoundaryNorm,
    digits: str,
) -> str:
    """Draw a plate: its wells as circles with their values, those without data empty.

    Parameters
    ----------
    wells : by row and column, from 0 on, a value
    layout : numbers of rows and columns
    digits : how values are written, such as ".1f"
    """

    def draw(axes: Axes) -> None:
        size = (POINTS_AN_INCH * WELL * DIAMETER) ** 2  # of the circle's box, in points
        rows, columns = np.indices(layout).reshape(2, -1)
        empty: Style = {"facecolor": "none", "edgecolor": INK, "linewidth": 0.5, "alpha": 0.4}
        axes.scatter(columns, rows, s=size, **empty)
        (rows, columns), values = np.array(list(wells)).T, np.array(list(wells.values()))
        shown: Style = {"s": size, "c": values, "cmap": COLOURS, "norm": scale, "linewidth": 0}
        filled = axes.scatter(columns, rows, **shown)
        for (row, column), value in wells.items():
            luminance = filled.to_rgba(np.array([value]))[0, :3] ** 2.2 @ (0.2126, 0.7152, 0.0722)
            ink = "white" if luminance < DARK else "black"
            axes.text(column, row, format(value, digits), color=ink, **LETTERS)
        axes.set_xticks(range(layout[1]), [str(column + 1) for column in range(layout[1])])
        axes.set_yticks(range(layout[0]), [row_name(row) for row in range(layout[0])])
        axes.set(xlim=(-0.6, layout[1] - 0.4), ylim=(layout[0] - 0.4, -0.6), aspect="equal")
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        bar = axes.figure.colorbar(
            filled, ax=axes, location="bottom", shrink=0.6, aspect=30, pad=0.02
        )
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.ax.tick_params(length=0)

    size = layout[1] * WELL + FRAME[0], layout[0] * WELL + FRAME[1]
    return as_svg(identifier, title, draw, size)


def row_name(row: int) -> str:
    """Return A to Z, then AA, AB and so on, of a row from 0 on."""
    return chr(65 + row) if row < 26 else "A" + chr(65 + row - 26)


def courses(
    identifier: str, name: str, wells: pd.DataFrame, sources: Sequence[str], readout: str
) -> str:
    """Draw a read-out against the time point, a line for each well and source of outlines.

    One well is drawn once, with all sources on top of one another; several wells are drawn in a
    panel for each source, with a kind of line for each condition.

    Parameters
    ----------
    wells : rows of `cellular.measuring.wells.by_well`, `timepoint` as numbers in their order, no
        `condition` missing
    sources : of outlines, in an order that decides their colours; those without wells are left out
    """
    known = {
        name: style for name, style in styles_of(sources).items() if name in {*wells["source"]}
    }
    panels = 1 if wells["well"].nunique() == 1 else len(known)

    def draw(*axes: Axes) -> None:
        for number, (source, style) in enumerate(known.items()):
            own = axes[number % panels]
            rows = wells[wells["source"] == source]
            if panels == 1:
                own.plot(*_lines(rows, readout), **style, markersize=4, label=source)
            else:
                own.set_title(source, color=style["color"], fontsize=11)
                for line, (condition, of) in zip(
                    CONDITIONS, rows.groupby("condition"), strict=False
                ):
                    thin: Style = line | {"color": style["color"], "linewidth": 0.8}
                    own.plot(*_lines(of, readout), **thin, label=str(condition))
            own.set(xlabel="time point")
            own.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].set(ylabel=name)
        axes[0].legend()

    return as_svg(
        identifier, f"{name} by time point", draw, (max(SIZE[0], PANEL * panels), SIZE[1]), panels
    )


def _lines(wells: pd.DataFrame, readout: str) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of the lines of all wells, one after the other, with gaps between them."""
    gap = pd.DataFrame({"timepoint": [np.nan], readout: [np.nan]})
    rows = [part for _, well in wells.groupby("well") for part in (well, gap)]
    table = pd.concat(rows)[["timepoint", readout]].astype("float64")
    return table["timepoint"].to_numpy(), table[readout].to_numpy()


def bearing(
    identifier: str,
    name: str,
    curves: Mapping[str, pd.DataFrame],
    models: Mapping[str, tuple[float, float]],
    styles: Mapping[str, Style],
) -> str:
    """Draw by how many percent a mean changes against the AP of perturbed outlines.

    Parameters
    ----------
    curves : by what was done to the outlines, the keys of `PERTURBED_LINES`: ap50 and percent
    models : by model, its own AP and difference in percent
    """

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=INK, linewidth=0.8)
        for kind, table in curves.items():
            style: Style = PERTURBED_LINES[kind] | {"color": INK, "linewidth": 1.2, "markersize": 4}
            axes.plot(table["ap50"], table["percent"], label=kind, **style)
        for number, (model, place) in enumerate(models.items()):
            point = POINTS[number % len(POINTS)] | {"color": styles[model]["color"]}
            axes.plot(*place, **point, linestyle="none", markersize=9, label=model)
        axes.set(xlabel="AP@0.5", ylabel=f"difference of {name}, %")
        axes.legend(loc="best")

    return as_svg(identifier, f"Difference of {name} against AP@0.5", draw)
