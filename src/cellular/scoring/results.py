"""Results: files with the scores of a model on the fields of a split.

<split>_eval.json     all scores of the split
<split>_fields.csv    a row for each field, with its scores
<split>_cells.csv     a row for each cell, with its outcome (cellular.scoring.cells.COLUMNS)
curves/<split>_*.csv  what is plotted: AP against IoU, F1 by size, diameters

The first has the sha256 of the others, so that a table that was cut, changed, or written by another
evaluation is told.
"""

import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellular.base.errors import Faults, InputError
from cellular.base.files import digest, whole, write_json
from cellular.base.params import flat
from cellular.imaging.fields import origin
from cellular.imaging.matching import FOUND
from cellular.scoring.cells import COLUMNS
from cellular.scoring.groups import SIZES, groups, size_limits
from cellular.scoring.scores import (
    IOU_THRESHOLDS,
    FieldResult,
    Place,
    counts_of,
    nested,
    summarise,
    table_of_scores,
)
from cellular.scoring.uncertainty import SITE, Ends, intervals, kind_of

# The scores that one would report. They get an interval, and a name in tables.
REPORTED: dict[Place, str] = {
    ("objects", "average_precision", "0.5"): "AP@0.5",
    ("objects", "average_precision", "0.75"): "AP@0.75",
    ("objects", "average_precision", "0.9"): "AP@0.9",
    ("objects", "average_precision", "mean"): "AP, mean of IoU 0.5 to 0.95",
    ("objects", "precision"): "precision of cells",
    ("objects", "recall"): "recall of cells",
    ("objects", "f1"): "F1 of cells",
    ("objects", "panoptic_quality"): "panoptic quality",
    ("objects", "mean_iou"): "mean IoU of found cells",
    ("objects", "aggregated_jaccard"): "aggregated Jaccard index",
    ("objects", "boundary_f1", "2px"): "boundary F1 at 2 px",
    ("objects", "boundary_f1", "2pct"): "boundary F1 at 2 % of the diameter",
    ("cell", "precision"): "pixel precision of cell",
    ("cell", "recall"): "pixel recall of cell",
    ("cell", "f1"): "pixel F1 of cell",
    ("average", "f1"): "pixel F1, mean of cell and background",
    ("average", "jaccard"): "pixel Jaccard, mean of cell and background",
    ("count_error", "relative"): "error of the count, relative",
    ("diameter_error", "px"): "error of the diameter, px",
}


def files_of(folder: Path, split: str) -> dict[str, Path]:
    """Return the paths of all result files of a split."""
    return {
        "scores": folder / f"{split}_eval.json",
        "fields": folder / f"{split}_fields.csv",
        "cells": folder / f"{split}_cells.csv",
        "ap": folder / "curves" / f"{split}_ap.csv",
        "sizes": folder / "curves" / f"{split}_size.csv",
        "diameters": folder / "curves" / f"{split}_diameter.csv",
    }


def write_results(
    paths: Mapping[str, Path],
    results: Sequence[FieldResult],
    seed: int,
    unit: str = SITE,
    *,
    run: Mapping[str, Any] | None = None,
) -> dict[str, dict]:
    """Write all result files of a split to `paths`, and return the content of `<split>_eval.json`.

    `paths` has the names of `files_of`, and may lead elsewhere: to hidden files that get their own
    names later. The content has the scores of `cellular.scoring.scores.summarise`, those of
    `groups` of cells, and the 95 % intervals of the scores in `REPORTED`: `interval_by_site`,
    `_well`, `_field` or `_cell`, depending on what `cellular.scoring.uncertainty` draws at random,
    with `seed` and `unit`. `run` says how the results came about; it is stored with them.
    """
    ends = intervals(results, seed, unit)
    by_group = groups(results)
    known = {
        place: {"low": ends[place][0], "high": ends[place][1]}
        for place in REPORTED
        if place in ends
    }
    summary = summarise(results) | {
        "groups": by_group,
        f"interval_by_{kind_of(results, unit)}": nested(known),
    }
    cells = pd.concat([result.cells for result in results], ignore_index=True)
    _write_table(paths["fields"], _table_of_fields(results))
    _write_table(paths["cells"], cells)
    _write_table(paths["ap"], _precision_by_iou(summary, ends))
    _write_table(paths["sizes"], _by_size(by_group.get("size", {}), size_limits(results)))
    found = cells[cells["outcome"] == FOUND]
    _write_table(paths["diameters"], found[["field", "label", "diameter", "predicted_diameter"]])
    summary["run"] = dict(run or {})
    summary["files"] = {name: digest(path) for name, path in paths.items() if name != "scores"}
    write_json(paths["scores"], summary)
    return summary


def read_scores(folder: Path, splits: Sequence[str]) -> dict[str, dict]:
    """Return the content of `<split>_eval.json`, by split; `InputError` if a score is no number."""
    return {split: _read_scores(files_of(Path(folder), split)["scores"]) for split in splits}


def _read_scores(path: Path) -> dict:
    content = read_json(path)
    values = flat({key: value for key, value in content.items() if key not in ("run", "files")})
    wrong = [(name, value) for name, value in values if not _is_number(value)]
    if wrong or not isinstance(content.get("files"), dict):
        found = f"{wrong[0][0]} is {json.dumps(wrong[0][1])[:40]}" if wrong else "no hashes in it"
        raise InputError(f"{path}: not the scores that src/eval.py wrote ({found}); evaluate again")
    return content


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # NaN is not


def check_results(folder: Path, split: str) -> None:
    """Raise `InputError` unless all files of a split are there, as one evaluation wrote them."""
    paths = files_of(Path(folder), split)
    for path in paths.values():
        check_there(path)
    hashes = _read_scores(paths["scores"])["files"]
    Faults(
        f"{path}: not the table that src/eval.py wrote together with {paths['scores']}, since it "
        "has changed, was cut, or belongs to another evaluation; evaluate again"
        for name, path in paths.items()
        if name != "scores" and digest(path) != hashes.get(name)
    ).raise_all(folder)


def read_results(folder: Path, split: str) -> list[FieldResult]:
    """Read the results of a split again; `InputError` if a file is missing or has changed."""
    check_results(folder, split)
    paths = files_of(Path(folder), split)
    fields = read_table(paths["fields"], {"field": "string", "pixels": "int64"})
    table = read_table(paths["cells"], COLUMNS)[list(COLUMNS)]
    cells = dict(list(table.groupby("field", sort=False)))
    none = table.iloc[:0]
    return [
        FieldResult(field, cells.get(field, none).reset_index(drop=True), pixels)
        for field, pixels in fields[["field", "pixels"]].to_numpy().tolist()
    ]


def check_there(path: Path) -> None:
    """Raise `InputError` if a file or folder of results is missing."""
    if path.exists():
        return
    message = f"{path} does not exist; run the pipeline first, with `make repro`"
    if path.name.endswith("_eval.json") and any(path.parent.glob("*_eval.json")):
        message += ", and with eval.skip: [] in params.yaml, since only other splits were scored"
    raise InputError(message)


def read_table(path: Path, kinds: Mapping[Any, str] | None = None) -> pd.DataFrame:
    """Read a CSV file; `InputError` if there is none, or if it was cut or has other columns.

    Only empty cells of the table are missing values, since a field or a class may be called NA.
    """
    check_there(path)
    try:
        text = path.read_bytes().decode("utf-8")
        if not text.endswith("\n"):
            raise ValueError("its last line is cut")
        # Round trip: pandas' own way of reading numbers may change their last bit.
        table = pd.read_csv(
            io.StringIO(text),
            dtype=kinds,
            keep_default_na=False,
            na_values=[""],
            float_precision="round_trip",
        )
        missing = [name for name in kinds or () if name not in table]
        if missing:
            raise ValueError(f"no column {missing[0]}")
    except (OverflowError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a table of its stage ({reason}); run it again") from None
    return table


def read_json(path: Path) -> dict:
    """Read a JSON file of metrics; `InputError` if it is missing or not valid."""
    check_there(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no names with values")
        dict(flat(content))  # fails where objects are nested too deeply to be read
    except (RecursionError, ValueError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); run its stage again") from None
    return content


def _table_of_fields(results: Sequence[FieldResult]) -> pd.DataFrame:
    scores = {".".join(place): values for place, values in table_of_scores(results).items()}
    rows = [
        {
            "field": result.field,
            **{name: origin(result.field).get(name) for name in ("timepoint", "well", "site")},
            "pixels": result.pixels,
            **counts_of([result]),
        }
        for result in results
    ]
    return pd.concat([pd.DataFrame(rows), pd.DataFrame(scores)], axis=1)


def _precision_by_iou(summary: dict, ends: Mapping[Place, Ends]) -> pd.DataFrame:
    means = summary["objects"].get("average_precision", {})
    rows = []
    for threshold in IOU_THRESHOLDS:
        name = f"{threshold:g}"
        if name in means:
            place = ("objects", "average_precision", name)
            low, high = ends.get(place, (np.nan, np.nan))
            rows.append((threshold, means[name], low, high))
    return pd.DataFrame(rows, columns=["iou", "average_precision", "low", "high"])


def _by_size(by_size: dict[str, dict], limits: Sequence[float]) -> pd.DataFrame:
    ends = [0.0, *limits, np.nan]
    rows = [
        {"size": size, "from_px": ends[number], "to_px": ends[number + 1]} | by_size[size]
        for number, size in enumerate(SIZES)
        if size in by_size
    ]
    scores = ["cells", "found", "recall", "mean_iou", "precision", "f1"]
    return pd.DataFrame(rows, columns=["size", "from_px", "to_px", *scores])


def _write_table(path: Path, table: pd.DataFrame) -> None:
    # With eight digits an IoU just below 0.5 stays below it, in fields of up to 50 million pixels.
    with whole(path) as staging:
        table.to_csv(staging, index=False, float_format="%.8g", lineterminator="\n")
