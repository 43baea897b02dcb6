"""Tables and the figure of a cross-validation, and the sentences that say what they tell."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from tabulate import tabulate

from cellular.experiments.folds import SCORES, by_fold, summary
from cellular.scoring.uncertainty import LEVEL, smallest_p

KINDS = {"timepoint": "time point"}  # what folds leave out, where it is called otherwise
INK, COLOUR = "black", "#0072B2"  # a blue that differs from black in brightness, too
COLUMNS = 4  # panels of the figure side by side
STYLE = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}


SEEN_SITES = (
    "Folds show the same sites at different times, so models have seen much the same cells: this "
    "compares recipes on these sites, and says nothing of others."
)


def as_text(
    folds: pd.DataFrame,
    by: str,
    difference: dict[str, Any] | None = None,
    names: tuple[str, str] = ("", ""),
    seen_sites: bool = False,
) -> str:
    """Return the sentences and the tables of a cross-validation as Markdown.

    Parameters
    ----------
    folds : as `by_fold` takes them, with the numbers of fields and cells
    by : what a fold leaves out
    difference : from `paired`, of the recipes `names`
    seen_sites : whether fields of one site are in several folds
    """
    parts = [sentence(folds, by), *([SEEN_SITES] if seen_sites else []), markdown(folds, by)]
    if difference:
        parts.append(sentence_of_difference(difference, names))
        parts.append(markdown_of_difference(difference, names))
    return "\n\n".join(parts)


def markdown(folds: pd.DataFrame, by: str) -> str:
    """Return a Markdown table of the folds' scores, with means and intervals in its last rows."""
    means, over = by_fold(folds), summary(folds)
    sizes = folds.groupby("group", sort=False)[["fields", "cells"]].first()
    rows = [
        [group, *sizes.loc[group], *(_number(means.loc[group, name]) for name in SCORES)]
        for group in means.index
    ]
    rows.append(["mean", "", "", *(_number(over.get(name, {}).get("mean")) for name in SCORES)])
    rows.append(["95 % interval", "", "", *(_interval(over.get(name, {})) for name in SCORES)])
    spreads = [_number(over.get(name, {}).get("seed_sd")) for name in SCORES]
    if any(spreads):
        rows.append(["sd over seeds", "", "", *spreads])
    return _table(rows, [KINDS.get(by, by), "fields", "cells", *SCORES.values()])


def markdown_of_difference(found: dict[str, Any], names: tuple[str, str]) -> str:
    """Return a Markdown table of what `paired` has found, for recipes of these names."""
    rows = [
        [
            SCORES[name],
            _number(score["first"]),
            _number(score["second"]),
            _number(score["difference"], "+.3f"),
            _interval(score, "+.3f"),
            _number(score.get("p"), ".3g"),
        ]
        for name, score in found["scores"].items()
    ]
    return _table(rows, ["score", *names, "difference", "95 % interval", "p"])


def _table(rows: list[list[Any]], headers: list[str]) -> str:
    return tabulate(
        rows,
        headers,
        tablefmt="github",
        colalign=("left", *["right"] * (len(headers) - 1)),
        disable_numparse=True,
    )


def _number(value: float | None, style: str = ".3f") -> str:
    return "" if value is None or np.isnan(value) else format(value, style)


def _interval(score: dict[str, float], style: str = ".3f") -> str:
    return f"{score['low']:{style}} to {score['high']:{style}}" if "low" in score else ""


def sentence(folds: pd.DataFrame, by: str) -> str:
    """Say how the table came about, and what n is."""
    count, seeds = folds["group"].nunique(), sorted(folds["seed"].unique())
    kind = KINDS.get(by, by)
    averaged = f", each the mean of {len(seeds)} seeds" if len(seeds) > 1 else ""
    return (
        f"Each {kind} was left out once: its fields are scored by models that were trained without "
        f"them, and validated on the next {kind}. n = {count} folds{averaged}, not fields or "
        "cells; the interval is Student's t over folds. Their training fields overlap, so it is "
        "somewhat too narrow."
    )


def sentence_of_difference(found: dict[str, Any], names: tuple[str, str]) -> str:
    """Say what the test compares, and the smallest p that it can give."""
    count, seeds = len(found["groups"]), ", ".join(map(str, found["seeds"]))
    least = smallest_p(count)
    few = ", so that so few folds cannot tell which recipe is better" * (least > 1 - LEVEL)
    return (
        f"{names[0]} minus {names[1]}, fold by fold: n = {count} folds that both have (seeds "
        f"{seeds}). p is that of the sign-flip permutation test over folds, of one score at a "
        f"time; with {count} folds it is at least {least:.3g}{few}."
    )


def draw(folds: pd.DataFrame, by: str) -> Figure:
    """Draw each score by fold: a dot for the fold, rings for its seeds; below, mean and interval.

    Parameters
    ----------
    folds : as `by_fold` takes them
    by : what a fold leaves out, for the title of the axis
    """
    means, over = by_fold(folds), summary(folds)
    places = {group: -number for number, group in enumerate(means.index)}
    bottom = -len(places) - 0.5  # of the mean, half a row apart from the folds
    lines = math.ceil(len(SCORES) / COLUMNS)
    with rc_context(STYLE):
        figure = Figure(figsize=(13, lines * (1.6 + 0.3 * len(places))), layout="constrained")
        panels = figure.subplots(lines, COLUMNS, sharey=True)
        for panel, (name, title) in zip(panels.flat, SCORES.items(), strict=True):
            dots: dict[str, Any] = {"linestyle": "none", "marker": "o"}
            if folds["seed"].nunique() > 1:
                rings = {"color": "0.45", "markerfacecolor": "none", "label": "a seed"}
                panel.plot(folds[name], folds["group"].map(places), **dots, **rings)
            panel.plot(means[name], [*places.values()], **dots, color=COLOUR, label="fold")
            if score := over.get(name):
                low, high = (score.get(end, score["mean"]) for end in ("low", "high"))
                ends = [[score["mean"] - low], [high - score["mean"]]]
                style = {"fmt": "D", "capsize": 4, "label": "mean and 95 % interval"}
                panel.errorbar(score["mean"], bottom, xerr=ends, color=INK, **style)
                panel.axvline(score["mean"], color=INK, linewidth=0.8, linestyle=":")
            panel.set(title=title, ylim=(bottom - 0.6, 0.6))
            panel.set_yticks([*places.values(), bottom], [*places, "mean"])
            panel.grid(axis="y", linewidth=0.6, color="0.85")
        for panel in panels[:, 0]:
            panel.set_ylabel(f"{KINDS.get(by, by)} left out")
        handles = panels[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False)
    return figure
