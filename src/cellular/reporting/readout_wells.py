"""Wells on the page: plates, courses in time, and the difference between two conditions."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cellular.measuring import effects
from cellular.measuring.wells import READOUTS
from cellular.reporting import readout_figures as figures
from cellular.reporting.embedding import Figure
from cellular.reporting.parts import Part, Table, interval, number, title_of

SHOWN = {"red_puncta": ".1f", "red_only_fraction": ".2f"}  # in figures, with their digits
MAIN = ("area_um2", "ratio", *SHOWN)  # in tables
PLATES = 4  # that are drawn at most
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
    counts = wells.groupby("source")["well"].nunique().reindex(sources).fillna(0)
    source = str(counts.idxmax())
    rows = wells[wells["source"] == source].groupby("well")
    means, cells = rows[[*READOUTS]].mean(), rows["cells"].sum()
    places = places_of(means.index)
    texts = [] if len(means) > 1 else ["There are not two wells, so no plate is drawn."]
    if len(places) > PLATES and len(means) > 1:
        texts.append(f"Of {len(places)} plates, the first {PLATES} are drawn.")
    lines = [
        [str(well), str(cells[well]), *(number(row[name]) for name in MAIN)]
        for well, row in means.iterrows()
    ]
    caption = f"Means of each well, over cells and then over time points; outlines: {source}"
    table = Table(caption, ["well", "cells", *map(title_of, MAIN)], {"": lines})
    drawn = _plates(means, places, source) if len(means) > 1 else []
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


def _plates(means: pd.DataFrame, places: Places, source: str) -> list[Figure]:
    drawn = []
    for number_, (plate, wells) in enumerate(list(places.items())[:PLATES], 1):
        rows, columns = (max(place[axis] for place in wells) for axis in (0, 1))
        layout = next(size for size in LAYOUTS if rows < size[0] and columns < size[1])
        for name, digits in SHOWN.items():
            known = {place: means.loc[well, name] for place, well in wells.items()}
            known = {place: value for place, value in known.items() if pd.notna(value)}
            if not known:
                continue
            title = f"{READOUTS[name].name}, plate {plate}".rstrip(" ").removesuffix(", plate")
            scale = figures.scale_of(means[name].dropna().to_numpy())
            svg = figures.plate(f"plate-{number_}-{name}", title, known, layout, scale, digits)
            caption = f"{title}: means of wells; outlines: {source}. Wells without cells are empty."
            drawn.append(Figure(svg, _capital(caption), figures.least_width(layout)))
    return drawn


def course_part(wells: pd.DataFrame, sources: Sequence[str], found: Found) -> Part:
    """Show the read-outs by time point, with the outlines of each source.

    Parameters
    ----------
    wells : rows of `cellular.measuring.wells.by_well`; time points that are no numbers are left out
    sources : of outlines
    found : lists of what `cellular.measuring.effects.course` returned, by source and read-out
    """
    time = pd.to_numeric(wells["timepoint"], errors="coerce").astype("float64")
    timed = wells.assign(timepoint=time).dropna(subset="timepoint")
    title = "Course in time"
    if timed["timepoint"].nunique() < 2:
        return Part(title, ["There are not two time points, so nothing is said about time."])
    styles = figures.styles_of(sources)
    drawn = [
        Figure(
            figures.courses(f"course-{name}", READOUTS[name].name, timed, styles, name),
            f"{_capital(READOUTS[name].name)} by time point: means over the cells of a well, a "
            "line for each well.",
        )
        for name in SHOWN
    ]
    means = timed.groupby(["timepoint", "source"])[[*READOUTS]].mean()
    groups = {
        title_of(name): [
            [f"{time:g}", *(number(row.get(source)) for source in sources)]
            for time, row in means[name].unstack("source").iterrows()
        ]
        for name in MAIN
    }
    table = Table("Means over wells", ["time point", *sources], groups)
    texts = [effects.sentence(item) for name in SHOWN for item in found[sources[0]][name]]
    said = f"With {sources[0]} outlines:" if len(sources) > 1 else ""
    return Part(title, [" ".join([said, *texts]).strip()], drawn, [table], _changes(found))


def _changes(found: Found) -> dict[str, Table]:
    groups = {
        title_of(name): [
            [
                " ".join([source, *([item["condition"]] if "condition" in item else [])]),
                number(item.get("slope"), sign=True),
                interval(item),
                str(item["wells"]),
            ]
            for source, items in found.items()
            for item in items[name]
        ]
        for name in MAIN
    }
    columns = ["outlines", "change a time point", "95 % interval", "wells"]
    return {"Changes with time": Table("Slopes of wells, their mean", columns, groups)}


def contrast_part(found: Found, by_time: Mapping[str, Mapping[str, list]]) -> Part:
    """Show the difference between two conditions, with the outlines of each source.

    Parameters
    ----------
    found : what `cellular.measuring.effects.contrast` returned, by source and read-out; empty if no
        conditions are compared
    by_time : what `contrasts_by_time` of that module returned
    """
    if not found:
        text = "No conditions are compared: the parameter measure.conditions names none."
        return Part("Conditions", [text])
    first, of_first = next(iter(found.items()))
    reference, other = of_first[MAIN[0]]["conditions"]
    title = f"{_capital(other)} against {reference}"
    if not any("difference" in item for of in found.values() for item in of.values()):
        return Part(title, [_capital(of_first["red_puncta"]["reason"]) + "."])
    said = f"With {first} outlines: " if len(found) > 1 else ""
    texts = [said + effects.sentence(of_first[name]) for name in SHOWN]
    texts.append("A difference is claimed if its 95 % interval excludes 0.")
    groups = {
        title_of(name): [_difference(source, of[name]) for source, of in found.items()]
        for name in MAIN
    }
    timed = {
        f"{title_of(name)}, time point {items[0]['timepoint']}": [
            _difference(source, item) for source, item in zip(by_time, items, strict=True)
        ]
        for name in MAIN
        for items in zip(*(of[name] for of in by_time.values()), strict=False)
    }
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


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
