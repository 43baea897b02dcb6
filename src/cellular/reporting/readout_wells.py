"""Wells on the page: plates, courses in time, and the difference between two conditions."""

import re
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import pandas as pd

from cellular.measuring import effects
from cellular.measuring.wells import READOUTS
from cellular.reporting import readout_figures as figures
from cellular.reporting.embedding import Figure
from cellular.reporting.parts import Part, Table, capital, interval, number, title_of

IN_FIGURES = {"red_puncta": ".1f", "red_only_fraction": ".3f"}  # with their digits
MAIN = ("area_um2", "ratio", *IN_FIGURES)  # in tables
DRAWN = 384  # wells, or empty places, at most: four plates of 96, or one of 384
LAYOUTS = (8, 12), (16, 24), (32, 48)  # rows and columns of plates of 96, 384 and 1536 wells
PLACE = re.compile(r"(?:(.*) )?([A-Z]|A[A-F])(\d{1,2})")  # plate, row and column of a well

Places = dict[str, dict[tuple[int, int], str]]  # by plate, and by row and column from 0: the well
Found = Mapping[str, Mapping[str, Any]]  # what was found, by source and by read-out


def plates_part(wells: pd.DataFrame, sources: Sequence[str]) -> Part:
    """Show the mean of each well over its time points, on plates and in a table.

    Parameters
    ----------
    wells : rows of `cellular.measuring.wells.by_well`
    sources : of outlines; the one with most wells is shown, the first of several
    """
    counts = [wells.loc[wells["source"] == name, "well"].nunique() for name in sources]
    source = sources[counts.index(max(counts))]
    rows = wells[wells["source"] == source].groupby("well")
    means, cells = rows[[*READOUTS]].mean(), rows["cells"].sum().astype(str)
    if len(means) < 2:
        found = f"one well, {means.index[0]}" if len(means) else "no well that is known"
        return Part("Wells", [f"There is {found}, so no plate is drawn."])
    lines = means[[*MAIN]].map(number).assign(well=means.index, cells=cells)
    caption = f"Means of each well, over cells and then over time points; outlines: {source}"
    table = Table(
        caption,
        ["well", "cells", *map(title_of, MAIN)],
        {"": lines[["well", "cells", *MAIN]].to_numpy().tolist()},
    )
    places = places_of(list(means.index))
    rows_and_columns = layout_of(places)
    most = max(1, DRAWN // prod(rows_and_columns))
    texts = [f"Of {len(places)} plates, {most} are drawn."] if len(places) > most else []
    drawn = _plates(means, dict(list(places.items())[:most]), rows_and_columns, source)
    return Part("Wells", texts, drawn, folded={"Means of each well": table})


def places_of(wells: Sequence[str]) -> Places:
    """Return where wells lie, by the ends of their names, such as C03; others are left out."""
    found: Places = {}
    for well in sorted(wells):
        named = PLACE.fullmatch(well)
        if named and 1 <= int(named[3]) <= LAYOUTS[-1][1]:
            row = ord(named[2][-1]) - ord("A") + 26 * (len(named[2]) - 1)
            found.setdefault(named[1] or "", {})[row, int(named[3]) - 1] = well
    return found


def layout_of(places: Places) -> tuple[int, int]:
    """Return rows and columns of the smallest kind of plate that has all these places."""
    found = [place for wells in places.values() for place in wells] or [(0, 0)]
    rows, columns = np.max(found, axis=0)
    return next(size for size in LAYOUTS if rows < size[0] and columns < size[1])


def _plates(
    means: pd.DataFrame, places: Places, layout: tuple[int, int], source: str
) -> list[Figure]:
    drawn = []
    for count, (plate, wells) in enumerate(places.items(), 1):
        for name, digits in IN_FIGURES.items():
            values = means[name].dropna()
            known = {place: values[well] for place, well in wells.items() if well in values.index}
            if known:
                title = capital(READOUTS[name].name) + (f", plate {plate}" if plate else "")
                scale = figures.scale_of(values.to_numpy())
                svg = figures.plate(f"plate-{count}-{name}", title, known, layout, scale, digits)
                caption = f"{title}: means of wells; outlines: {source}. Empty: no value."
                drawn.append(Figure(svg, caption))
    return drawn


def course_part(wells: pd.DataFrame, sources: Sequence[str], found: Found) -> Part:
    """Show the read-outs by time point, with the outlines of each source.

    Parameters
    ----------
    wells : rows of `cellular.measuring.wells.by_well`; time points that are no numbers are left out
    sources : of outlines
    found : lists of what `cellular.measuring.effects.course` returned, by source and read-out
    """
    timed = _timed(wells)
    title = "Course in time"
    if timed["timepoint"].nunique() < 2:
        return Part(title, ["There are not two time points, so nothing is said about time."])
    drawn = [
        Figure(
            figures.courses(f"course-{name}", READOUTS[name].name, timed, sources, name),
            f"{capital(READOUTS[name].name)} by time point: means over the cells of a well, a "
            "line for each well.",
        )
        for name in IN_FIGURES
    ]
    first = next(source for source in sources if source in found)
    texts = [
        f"With {first} outlines: {effects.sentence(item)}"
        for name in IN_FIGURES
        for item in found[first].get(name, [])
    ]
    folded = {"Change from one time point to the next": _changes(sources, found)}
    return Part(title, texts, drawn, [_means_by_time(timed, sources)], folded)


def _timed(wells: pd.DataFrame) -> pd.DataFrame:
    """Return the wells at time points that are numbers, in their order."""
    time = pd.to_numeric(wells["timepoint"], errors="coerce").astype("float64")
    condition = wells["condition"].fillna("condition unknown")
    timed = wells.assign(timepoint=time, condition=condition).dropna(subset="timepoint")
    return timed.sort_values("timepoint", kind="stable")


def _means_by_time(timed: pd.DataFrame, sources: Sequence[str]) -> Table:
    groups = {}
    conditions = timed.groupby("condition")
    for name in MAIN:
        for condition, rows in conditions:
            means = rows.groupby(["timepoint", "source"])[name].mean().unstack("source")
            group = title_of(name) + (f", {condition}" if len(conditions) > 1 else "")
            groups[group] = [
                [f"{time:g}", *(number(row.get(source)) for source in sources)]
                for time, row in means.iterrows()
            ]
    return Table("Means over wells", ["time point", *sources], groups)


def _changes(sources: Sequence[str], found: Found) -> Table:
    groups = {
        title_of(name): [
            [
                f"{source} {item.get('condition', '')}",
                number(item.get("slope"), sign=True),
                interval(item),
                str(item["wells"]),
            ]
            for source in sources
            for item in found.get(source, {}).get(name, [])
        ]
        for name in MAIN
    }
    columns = ["outlines", "change", "95 % interval", "wells"]
    return Table("Change from one time point to the next, mean over wells", columns, groups)


def contrast_part(sources: Sequence[str], found: Found, by_time: Found) -> Part:
    """Show the difference between two conditions, with the outlines of each source.

    Parameters
    ----------
    sources : of outlines
    found : what `cellular.measuring.effects.contrast` returned, by source and read-out; empty if
        nothing is compared
    by_time : what `contrasts_by_time` of that module returned
    """
    if not found:
        text = (
            "Wells are not compared: none is known, or measure.conditions names no two conditions."
        )
        return Part("Conditions", [text])
    sources = [source for source in sources if source in found]
    first = found[sources[0]]
    reference, other = first[MAIN[0]]["conditions"]
    title = f"{capital(other)} against {reference}"
    if not any("difference" in found[source][name] for source in sources for name in MAIN):
        return Part(title, [f"{capital(first[MAIN[0]]['reason'])}."])
    texts = [f"With {sources[0]} outlines: {effects.sentence(first[name])}" for name in IN_FIGURES]
    groups = {
        title_of(name): [_difference(source, found[source][name]) for source in sources]
        for name in MAIN
    }
    timed: dict[str, list[list[str]]] = {}
    for name in MAIN:
        for source in sources:
            for item in by_time.get(source, {}).get(name, []):
                group = f"{title_of(name)}, time point {item['timepoint']}"
                timed.setdefault(group, []).append(_difference(source, item))
    columns = ["outlines", "difference", "95 % interval", "p", "smallest p", "wells"]
    caption = f"Differences of the means of wells, {other} minus {reference}"
    folded = {"By time point": Table(f"{caption}, by time point", columns, timed)} if timed else {}
    return Part(title, texts, tables=[Table(caption, columns, groups)], folded=folded)


def _difference(source: str, found: Mapping[str, Any]) -> list[str]:
    return [
        source,
        number(found.get("difference"), sign=True),
        interval(found),
        number(found.get("p")),
        number(found.get("smallest_p")),
        " and ".join(f"{count} {name}" for name, count in reversed(found["wells"].items())),
    ]
