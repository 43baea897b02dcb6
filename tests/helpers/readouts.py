"""A made-up read-out: the files that the stage measure writes."""

import json

import numpy as np
import pandas as pd
from PIL import Image

from cellular.measuring.agreement import agreement, cost, recall_by_quarter, recall_sentence
from cellular.measuring.classes import classify
from cellular.measuring.effects import contrast, contrasts_by_time, course
from cellular.measuring.wells import READOUTS, by_field, by_well
from cellular.reporting.readout_wells import MAIN

CONDITIONS = ("fed", "starved")
SIX = {"P 1 C03": "fed", "P 1 C05": "fed", "P 1 C06": "fed"}
SIX |= {"P 1 I04": "starved", "P 1 I06": "starved", "P 1 K07": "starved"}
ONE = {"220518-ST C03": "fed"}
PLATE = {
    f"{row}{column:02}": CONDITIONS[row > "D"] for row in "ABCDEFGH" for column in range(1, 13)
}


def _cells_of(wells, source, shift=0.0, times=5):
    random = np.random.default_rng(0)
    rows = [
        {"source": source, "field": f"{well} {time}", "well": well, "condition": condition}
        | {"timepoint": f"{time:03}", "label": label, "class": "fed"}
        | {name: random.uniform(1, 9) + shift for name in READOUTS}
        for well, condition in wells.items()
        for time in range(1, times + 1)
        for label in (1, 2, 3, 4)
    ]
    cells = pd.DataFrame(rows)
    return cells.assign(red_only_fraction=cells["red_only_fraction"] / 10)


def _bearing_of(field):
    kinds = [("moved", amount) for amount in (0, -1, -2, 1)] + [("merged", 0.1)]
    rows = [
        {"field": field, "kind": kind, "amount": amount, "ap50": 1 - abs(amount) / 10}
        | {"readout": "red_puncta", "mean": 10.0 + amount, "difference": float(amount)}
        for kind, amount in kinds
    ]
    return pd.DataFrame(rows)


def write_readout(folder, wells, times=5):
    """Write what the stage measure does, with a model whose cells are larger."""
    annotated, predicted = (
        _cells_of(wells, *of, times) for of in (("annotated", 0), ("mine", 0.5))
    )
    cells = pd.concat([annotated, predicted])
    table = by_well(cells)
    judged = annotated["field"].iloc[[0]].tolist()
    outcomes = annotated[annotated["field"].isin(judged)][["field", "label"]]
    outcomes = outcomes.assign(predicted_label=outcomes["label"], outcome="found")
    recall = recall_by_quarter(annotated, outcomes)
    found = {"sources": {}, "contrasts": {}, "contrasts_by_time": {}, "courses": {}}
    for source, of in (("annotated", annotated), ("mine", predicted)):
        rows = table[table["source"] == source]
        found["sources"][source] = {"cells": len(of), "means": of[[*READOUTS]].mean().to_dict()}
        own = rows if len(wells) < 96 else rows.head(0)  # a test of so many takes its time
        for name in MAIN:
            for key, value in (
                ("contrasts", contrast(own, name, CONDITIONS)),
                ("contrasts_by_time", contrasts_by_time(own, name, CONDITIONS)),
                ("courses", course(rows, name)),
            ):
                found[key].setdefault(source, {})[name] = value
    found["judged"] = {"split": "test", "fields": judged}
    found["agreement"] = {"mine": agreement(annotated, predicted, outcomes)}
    found["recall"] = {"mine": recall_sentence(recall)}
    found["classes"] = classify(annotated)
    cell = {"picture": "cells/1.png", "source": "annotated", "field": judged[0], "label": 1}
    cell |= {"kind": "most", "red_puncta": 7, "green_puncta": 2, "area_um2": 300.4}
    found["gallery"] = [cell | {"red_only_fraction": 0.714}, cell | {"kind": "fewest"}]
    (folder / "readout" / "cells").mkdir(parents=True)
    Image.new("RGB", (402, 200)).save(folder / "readout" / "cells" / "1.png")
    (folder / "readout.json").write_text(json.dumps(found))
    costs = cost(annotated, predicted, outcomes).rename(columns={"field": "group"})
    tables = {
        "wells": table,
        "costs": costs.assign(source="mine", by="field"),
        "recall": recall.assign(source="mine"),
        "bearing": _bearing_of(judged[0]),
        "fields": by_field(cells).assign(flags=""),
    }
    for name, rows in tables.items():
        rows.to_csv(folder / "readout" / f"{name}.csv", index=False)
    return folder
