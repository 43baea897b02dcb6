"""Errors on the page: what a model's outlines do to the read-outs, and how much these bear."""

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

import pandas as pd

from cellular.measuring.agreement import PARTS, QUARTERS
from cellular.measuring.wells import READOUTS
from cellular.reporting import readout_figures as figures
from cellular.reporting.embedding import Figure
from cellular.reporting.parts import Part, Table, interval, number, title_of
from cellular.reporting.readout_wells import MAIN

CURVE_READOUT = "red_puncta"  # whose curves are drawn
Costs = Mapping[str, Mapping[Any, Any]]  # by model and read-out
BORNE = 10  # percent that its mean may change


def agreement_part(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Part:
    """Show how far single cells agree.

    Parameters
    ----------
    found : what `cellular.measuring.agreement.agreement` returned, by model
    """
    text = (
        "Each cell that a model found is compared with its annotated partner. Bias: the mean of "
        "predicted minus annotated; 95 % of the differences are expected between the limits of "
        "agreement (Bland and Altman). Concordance (Lin): 1 if all pairs are equal, 0 if they have "
        "nothing to do with each other."
    )
    groups = {
        title_of(name): [
            [
                model,
                str(of[name]["n"]),
                number(of[name].get("bias"), sign=True),
                interval(of[name]),
                number(of[name].get("concordance")),
            ]
            for model, of in found.items()
        ]
        for name in READOUTS
    }
    columns = ["outlines", "cells", "bias", "limits of agreement", "concordance"]
    caption = "Agreement of found cells with the annotated ones"
    return Part("Errors cell by cell", [text], **_main_and_all(caption, columns, groups))


def costs_part(costs: Costs) -> Part:
    """Show by how much means differ, and which errors of a model make the difference.

    Parameters
    ----------
    costs : from `mean_costs`
    """
    text = (
        "The difference between the predicted and the annotated mean is the sum of four parts: "
        "found cells have other outlines, cells are merged or split, cells are missed, and false "
        "positives are added."
    )
    plain, signed = ("annotated", "predicted"), ("difference", *PARTS)
    groups = {
        title_of(name): [
            [model]
            + [number(of[name][column]) for column in plain]
            + [number(of[name][column], sign=True) for column in signed]
            for model, of in costs.items()
            if name in of
        ]
        for name in READOUTS
    }
    heads = [name.replace("_", " ") for name in (*plain, *signed)]
    tables = _main_and_all("Means over the cells of judged fields", ["outlines", *heads], groups)
    return Part("Errors of the mean", [text], **tables)


def mean_costs(costs: pd.DataFrame, models: Sequence[str]) -> Costs:
    """Return the means over fields of what `cellular.measuring.agreement.cost` tells.

    Parameters
    ----------
    costs : with source, by and group
    models : whose costs, in this order

    Returns
    -------
    by model and read-out: annotated, predicted, difference, and its parts
    """
    of_fields = costs[costs["by"] == "field"]
    return {
        model: rows.groupby("readout").mean(numeric_only=True).to_dict("index")
        for model in models
        for rows in [of_fields[of_fields["source"] == model]]
    }


def _main_and_all(
    caption: str, columns: Sequence[str], groups: Mapping[str, list[list[str]]]
) -> dict[str, Any]:
    """Return a table of the main read-outs, and one of the others that is folded."""
    main = {title: groups[title] for title in map(title_of, MAIN)}
    others = {title: rows for title, rows in groups.items() if title not in main}
    other = Table(f"{caption}: other read-outs", columns, others)
    return {
        "tables": [Table(caption, columns, main)],
        "folded": {f"{caption}: other read-outs": other},
    }


def recall_part(recalls: pd.DataFrame, sentences: Mapping[str, str]) -> Part:
    """Show which annotated cells are found.

    Parameters
    ----------
    recalls : rows of `cellular.measuring.agreement.recall_by_quarter`, with source
    sentences : by model, from `recall_sentence` of that module
    """
    models = list(sentences)
    groups: dict[str, list[list[str]]] = {}
    for keys, rows in recalls.groupby(["readout", "quarter"], sort=False):
        readout, quarter = str(keys[0]), int(str(keys[1]))
        where, names = QUARTERS[readout]
        of = rows.set_index("source")["recall"]
        first = rows.iloc[0]
        groups.setdefault(f"{where}, {READOUTS[readout].unit}", []).append(
            [
                names[quarter - 1],
                f"{number(first['low'])} to {number(first['high'])}",
                str(first["cells"]),
                *(f"{100 * of[model]:.0f} %" if model in of else "–" for model in models),
            ]
        )
    columns = ["quarter", "values", "cells", *(f"found by {model}" for model in models)]
    table = Table("Annotated cells that are found (IoU 0.5), by quarters", columns, groups)
    texts = [f"{model}: {text}" for model, text in sentences.items()]
    return Part("Who is found, and who is missed", texts, tables=[table])


def bearing_part(table: pd.DataFrame, costs: Costs, precision: Mapping[str, float]) -> Part:
    """Show how much error the mean of `CURVE_READOUT` bears.

    Parameters
    ----------
    table : rows of `cellular.measuring.perturbed.bearing` of some fields
    costs : from `mean_costs`
    precision : by model, its AP at an IoU of 0.5, where it is known
    """
    title, name = "How much error the read-out bears", READOUTS[CURVE_READOUT].name
    annotated = table["mean"] - table["difference"]
    rows = table[(table["readout"] == CURVE_READOUT) & (annotated > 0)]  # 0 has no percent
    if rows.empty:
        text = (
            f"No field has an annotated mean of {name} above 0, so no change in percent is shown."
        )
        return Part(title, [text])
    curves = _curves(rows)
    models = {
        model: (precision[model], percent(of[CURVE_READOUT]))
        for model, of in costs.items()
        if model in precision and of.get(CURVE_READOUT, {}).get("annotated")
    }
    styles = figures.styles_of(list(costs))
    texts = [
        f"Annotated outlines were moved by 1 to 5 pixels, or annotated cells merged at random, and "
        f"measured again. The mean of {name} stays within {BORNE} % of the annotated one "
        f"{'; '.join(_borne(*item) for item in curves.items())}.",
        "Of two segmentations with the same AP@0.5, the one that merges or misses other cells may "
        "change the mean more: AP alone does not tell the error of a read-out.",
    ]
    svg = figures.bearing("bearing", name, curves, models, styles)
    caption = (
        "Change of the mean against the AP@0.5 that such outlines would have. The models' own "
        "errors are of all kinds at once."
    )
    return Part(title, texts, [Figure(svg, caption)])


def percent(cost: Mapping[str, float]) -> float:
    """Return by how many percent a predicted mean differs from the annotated one, NaN for 0."""
    return 100 * cost["difference"] / cost["annotated"] if cost["annotated"] else nan


def _curves(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return ap50 and percent, means over fields, by what was done to the outlines."""
    change = 100 * table["difference"] / (table["mean"] - table["difference"])
    means = table.assign(percent=change).groupby(["kind", "amount"])[["ap50", "percent"]].mean()
    means = means.reset_index()
    is_moved, amount = means["kind"] == "moved", means["amount"]
    chosen = {
        "moved inwards": is_moved & (amount <= 0),
        "moved outwards": is_moved & (amount >= 0),
        "merged": ~is_moved | (amount == 0),
    }
    return {
        kind: means[rows].sort_values("amount", key=abs, ignore_index=True)
        for kind, rows in chosen.items()
    }


def _borne(kind: str, curve: pd.DataFrame) -> str:
    """Say up to where the mean changes by at most `BORNE` percent."""
    borne = (curve["percent"].abs() <= BORNE).cummin()
    last = curve[borne].iloc[-1]
    if kind == "merged":
        done = f"up to {100 * last['amount']:.0f} % of the cells are merged"
    else:
        done = f"outlines are {kind} by up to {abs(last['amount']):.0f} px"
    return f"if {done} (AP@0.5 {last['ap50']:.2f})"
