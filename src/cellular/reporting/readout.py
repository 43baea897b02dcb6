"""Read-out: the section of the page on autophagy in wells, and on what errors of a model do to it.

It is made from what the stage measure wrote: `readout.json`, and tables and pictures in `readout`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cellular.measuring import classes
from cellular.measuring.wells import READOUTS
from cellular.reporting.embedding import embedded
from cellular.reporting.parts import Part, Table, number, title_of
from cellular.reporting.readout_errors import (
    agreement_part,
    bearing_part,
    costs_part,
    mean_costs,
    percent,
    recall_part,
)
from cellular.reporting.readout_wells import IN_FIGURES, contrast_part, course_part, plates_part
from cellular.scoring.results import read_json, read_table

NAMES = SUMMARY, FOLDER = "readout.json", "readout"  # in the folder of metrics
TEXTS = {  # the columns of each table that are texts, even if they look like numbers
    "wells.csv": ("source", "well", "condition", "timepoint"),
    "costs.csv": ("source", "by", "group", "readout"),
    "recall.csv": ("source", "readout"),
    "bearing.csv": ("field", "kind", "readout"),
    "fields.csv": ("source", "field", "flags"),
}
QUALITY = 80  # of WebP, at which small marks stay sharp


@dataclass(frozen=True)
class Readout:
    """The section: sentences, then parts."""

    lead: Sequence[str]
    parts: Sequence[Part] = ()


def read_readout(metrics_dir: Path, precision: Mapping[str, Mapping[str, float]]) -> Readout | None:
    """Return the section on the read-out, None if the stage measure did not run.

    Parameters
    ----------
    metrics_dir : has what the stage wrote
    precision : by split and model, average precision at an IoU of 0.5

    Raises
    ------
    InputError
        If a file is missing or cut.
    KeyError, TypeError, ValueError
        If a file is not as the stage writes it.
    """
    if not (metrics_dir / SUMMARY).exists():
        return None
    found = read_json(metrics_dir / SUMMARY)
    if "reason" in found:
        return Readout([found["reason"]])
    folder = metrics_dir / FOLDER
    wells, fields = _table(folder, "wells.csv"), _table(folder, "fields.csv")
    if not any(of["cells"] for of in found["sources"].values()):
        return Readout(["There is no cell in any field, so nothing is read."], [_quality(fields)])
    sources = list(found["sources"])
    lead, parts = [_units(found["sources"], wells)], [_means(found["sources"])]
    contrasts = found.get("contrasts", {}), found.get("contrasts_by_time", {})
    parts += [
        plates_part(wells, sources),
        course_part(wells, sources, found["courses"]),
        contrast_part(sources, *contrasts),
    ]
    if "judged" in found:
        own = precision.get(found["judged"]["split"], {})
        errors = _errors(folder, found, fields, own)
        lead, parts = [*lead, *errors.lead], [*parts, *errors.parts]
    if cells := found.get("gallery"):
        parts.append(_gallery(folder, cells))
    if "classes" in found:
        parts.append(_classes(found["classes"]))
    parts.append(_quality(fields))
    return Readout(lead, parts)


def _table(folder: Path, name: str) -> pd.DataFrame:
    return read_table(folder / name, dict.fromkeys(TEXTS[name], "string"))


def _errors(
    folder: Path, found: Mapping[str, Any], fields: pd.DataFrame, precision: Mapping[str, float]
) -> Readout:
    """Return what is said of the models on judged fields."""
    models = list(found["agreement"])
    costs, recall = mean_costs(_table(folder, "costs.csv"), models), _recall(found, models, fields)
    last = models[-1]
    lead = [_cost(last, costs[last], found["judged"]), f"{last}: {recall[last]}"]
    parts = [
        agreement_part(found["agreement"]),
        costs_part(costs),
        recall_part(_table(folder, "recall.csv"), recall),
        bearing_part(_table(folder, "bearing.csv"), costs, precision),
    ]
    return Readout(lead, parts)


def _units(sources: Mapping[str, Any], wells: pd.DataFrame) -> str:
    """Say what is measured, and what N is."""
    names = sorted(wells["well"].unique())
    only = f" ({names[0]})" if len(names) == 1 else ""
    count = (
        f"here N is {len(names)}{only}"
        if names
        else "here N is unknown, since no name of a field tells its well"
    )
    cells = ", ".join(f"{of['cells']} ({source})" for source, of in sources.items())
    return (
        "How much autophagy there is in a cell is read from its red and green puncta. N is the "
        "well, not the cell, since cells of one well share their treatment: "
        f"{count}. Cells, by whose outlines they have: {cells}."
    )


def _cost(model: str, costs: Mapping[str, Any], judged: Mapping[str, Any]) -> str:
    """Say what a model's outlines do to the two main read-outs."""
    changes = [
        f"{READOUTS[name].name} {number(costs[name]['predicted'])}, annotated "
        f"{number(costs[name]['annotated'])} ({number(percent(costs[name]), sign=True)} %)"
        for name in IN_FIGURES
        if name in costs
    ]
    fields = len(judged["fields"])
    where = f"On {fields} field{'s' if fields > 1 else ''} of {judged['split']}"
    if not changes:
        none = "since no field has both its cells and annotated ones"
        return f"{where}, no mean of {model} is compared, {none}."
    return (
        f"{where}, the outlines of {model} give these means: {'; '.join(changes)}. Models are "
        "judged there only, since other fields may have been in the training."
    )


def _recall(
    found: Mapping[str, Any], models: Sequence[str], fields: pd.DataFrame
) -> dict[str, str]:
    """Say of each model which annotated cells it finds, or that it finds no cell."""
    judged = fields[fields["field"].isin(found["judged"]["fields"])]
    cells = judged.groupby("source")["cells"].sum()
    known = {model: "no cell is annotated there." for model in models} | found["recall"]
    none = "it finds no cell there."
    return {model: sentence if cells.get(model) else none for model, sentence in known.items()}


def _means(sources: Mapping[str, Any]) -> Part:
    lines = [
        [title_of(name), *(number(of["means"].get(name)) for of in sources.values())]
        for name in READOUTS
    ]
    caption = "Means over all cells, by whose outlines they have"
    return Part("All cells", tables=[Table(caption, ["read-out", *sources], {"": lines})])


def _gallery(folder: Path, cells: Sequence[Mapping[str, Any]]) -> Part:
    text = (
        "Whole cells with the most red puncta, and large ones with the fewest: red and green "
        "channel, each stretched between two percentiles of the cell; beside it with its red "
        "puncta. A circle is around one without green, a square around one that is green, too. "
        "Select a picture to enlarge it."
    )
    pictures = [embedded(folder / cell["picture"], _caption(cell), QUALITY) for cell in cells]
    return Part("Cells with most and fewest red puncta", [text], pictures=pictures)


def _caption(cell: Mapping[str, Any]) -> str:
    share = cell.get("red_only_fraction")
    green = "" if share is None else f", {100 * share:.0f} % of them without green"
    return (
        f"{cell['kind']}: {cell['red_puncta']} red puncta{green}; {cell['green_puncta']} green "
        f"puncta; {cell['area_um2']:.0f} µm² ({cell['source']} cell {cell['label']} of "
        f"{cell['field']})"
    )


def _classes(found: Mapping[str, Any]) -> Part:
    coefficients = found.get("coefficients", {})
    lines = [[title_of(name), number(value, sign=True)] for name, value in coefficients.items()]
    caption = "What one standard deviation of a read-out adds to the log odds of unfed"
    tables = [Table(caption, ["read-out", "coefficient"], {"": lines})] if lines else []
    return Part("Class of a cell", [classes.sentence(dict(found))], tables=tables)


def _quality(fields: pd.DataFrame) -> Part:
    flagged = fields.dropna(subset="flags").drop_duplicates("field")
    lines = flagged[["field", "flags"]].to_numpy().tolist()
    if not lines:
        text = "No field is flagged for shifted channels, saturation or focus."
        return Part("Quality of the fields", [text])
    caption = "Fields whose read-outs should be looked at first"
    table = Table(caption, ["field", "flags"], {"": lines})
    return Part("Quality of the fields", tables=[table])
