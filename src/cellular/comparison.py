"""Comparison: the scores of two models side by side."""

import json
from pathlib import Path

from tabulate import tabulate

from cellular.errors import InputError

# Where a score stands in <split>_eval.json, and what a reader calls it.
ROWS = {
    ("objects", "average_precision", "0.5"): "AP@0.5",
    ("objects", "average_precision", "0.75"): "AP@0.75",
    ("objects", "average_precision", "0.9"): "AP@0.9",
    ("objects", "tp", "0.5"): "cells found (IoU 0.5)",
    ("objects", "fn", "0.5"): "cells missed",
    ("objects", "fp", "0.5"): "cells invented",
    ("cell", "precision"): "pixel precision of cell",
    ("cell", "recall"): "pixel recall of cell",
    ("cell", "f1"): "pixel F1 of cell",
    ("average", "f1"): "pixel F1, mean of cell and background",
    ("average", "jaccard"): "pixel Jaccard, mean of cell and background",
}


def markdown(metrics_dir: Path, models: tuple[str, str], splits: tuple[str, ...]) -> str:
    """Return a Markdown table a split: each score of both models, and the second minus the first.

    Reads `<metrics_dir>/<model>/<split>_eval.json`; `InputError` tells which is missing.
    """
    return "\n\n".join(_table(Path(metrics_dir), models, split) for split in splits)


def _table(metrics_dir: Path, models: tuple[str, str], split: str) -> str:
    results = []
    for model in models:
        path = metrics_dir / model / f"{split}_eval.json"
        if not path.is_file():
            raise InputError(f"{path}: not there; run the pipeline with `make repro` first")
        results.append(json.loads(path.read_text(encoding="utf-8")))
    lines = []
    for place, name in ROWS.items():
        first, second = (_at(result, place) for result in results)
        style = "d" if isinstance(first, int) else ".3f"
        told = [format(first, style), format(second, style), format(second - first, f"+{style}")]
        lines.append([name, *told])
    return tabulate(
        lines,
        headers=[f"{split} ({results[0]['fields']} fields)", *models, "difference"],
        tablefmt="github",
        colalign=("left", "right", "right", "right"),
        disable_numparse=True,
    )


def _at(result: dict, place: tuple[str, ...]) -> float:
    for key in place:
        result = result[key]
    return result
