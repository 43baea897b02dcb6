"""Report: one page of HTML with the results of a run, both models side by side.

The page holds everything that it shows: it loads no scripts, fonts or pictures from elsewhere.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import UndefinedError

from cellular.base.errors import InputError
from cellular.base.files import check_apart, check_new, together
from cellular.base.params import flat
from cellular.imaging.masks import FAR
from cellular.reporting import figures
from cellular.reporting.comparison import DECIDES, SplitComparison, compare
from cellular.reporting.embedding import Figure, Picture, embedded
from cellular.reporting.readout import NAMES, read_readout
from cellular.reporting.templates import template
from cellular.scoring.results import check_there, files_of, read_json, read_scores, read_table
from cellular.scoring.scores import typical_first
from cellular.scoring.uncertainty import SITE

SHA256, DIGITS = 64, 12  # length of a hash, and how much of it is shown
KINDS = {
    "class": "class",
    "well": "well",
    "timepoint": "time point",
    "size": "size (quarters of the annotated cells)",
    "crowding": "crowding (crowded: half of the outline touches other cells)",
    "border": "frame of the image",
}
FIGURES = {
    "ap": (
        figures.precision_by_iou,
        "Average precision, by the IoU that a cell needs to count as found. Bands: 95 % intervals.",
    ),
    "sizes": (
        figures.f1_by_size,
        "F1 of cells at IoU 0.5, by quarters of the annotated cells' diameters.",
    ),
    "fields": (
        figures.counts,
        "Number of cells, one point a field. On the line, as many are predicted as annotated.",
    ),
    "diameters": (
        figures.diameters,
        "Diameters of found cells, as circles of their area. On the line, the prediction is right.",
    ),
}

Run = dict[str, Any]  # what a training or an evaluation recorded about itself, by names with dots


@dataclass(frozen=True)
class SplitReport:
    """What the page shows of one split."""

    name: str
    comparison: SplitComparison
    groups: dict[str, list[tuple[str, dict, dict]]]  # by kind: name, scores of both models
    figures: list[Figure]
    pictures: list[Picture]


def write_report(
    metrics_dir: Path,
    models: tuple[str, str],
    splits: Sequence[str],
    params: dict[str, Any],
    sources: Sequence[dict[str, str]],
    revision: dict[str, str],
    output: Path,
    *,
    example: Path | None = None,
    seed: int = 0,
    unit: str = SITE,
    force: bool = False,
) -> Path:
    """Write the report of a run.

    Parameters
    ----------
    metrics_dir : has the files that the stages prepare, train and evaluate wrote
    models : names of the two models' folders in it
    params : the parameters of the run, which the page lists
    sources : data and weights, each with name, what, url, licence and citation
    revision : date and code of the run, from `revision_of`
    example : file for a copy of the picture of the first split's typical field, by the second model
    seed, unit : as for `cellular.reporting.comparison.compare`
    force : replace files that exist

    Raises
    ------
    InputError
        If a file is missing or not as its stage writes it, or an output exists.
    """
    metrics_dir, output = Path(metrics_dir), Path(output)
    outputs = [output, *([Path(example)] if example else [])]
    inputs = (*models, "prepare.json", "train.csv", "train.json", *NAMES)
    check_apart(outputs, [metrics_dir / name for name in inputs])
    check_new(*outputs, force=force)
    comparisons = compare(metrics_dir, models, splits, seed, unit)
    try:
        page = _page(metrics_dir, models, comparisons, params, sources, revision)
    except (KeyError, TypeError, ValueError, UndefinedError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{metrics_dir}: a file in it is not as the stages write it ({reason}); run them again"
        ) from None
    with together(*outputs) as stagings:
        stagings[0].write_text(page, encoding="utf-8")
        for staging in stagings[1:]:
            typical = _drawn(metrics_dir / models[1], splits[0])[0][0]
            staging.write_bytes(typical.read_bytes())
    return output


def _page(
    metrics_dir: Path,
    models: tuple[str, str],
    comparisons: Sequence[SplitComparison],
    params: dict[str, Any],
    sources: Sequence[dict[str, str]],
    revision: dict[str, str],
) -> str:
    folders = [metrics_dir / model for model in models]
    splits = [item.split for item in comparisons]
    scores = [read_scores(folder, splits) for folder in folders]
    training = read_json(metrics_dir / "train.json")
    of_training = {"training": dict(flat(training.get("run", {})))}
    of_scores = {
        f"{model}, {split}": dict(flat(of[split]["run"]))
        for split in splits
        for model, of in zip(models, scores, strict=True)
    }
    of_second = {split: of_scores[f"{models[1]}, {split}"] for split in splits}
    return template("report.html").render(
        models=models,
        head=revision | _computed(params["dataset"], models[1], of_second),
        warnings=[text for name, run in of_scores.items() for text in diameter_warnings(name, run)],
        splits=[
            _split(folders, models, item, [of[item.split]["groups"] for of in scores])
            for item in comparisons
        ],
        readout=read_readout(metrics_dir, _precision(comparisons)),
        losses=figures.losses(_losses(metrics_dir / "train.csv", training)),
        training=training,
        prepared=read_json(metrics_dir / "prepare.json"),
        sources=sources,
        params=params,
        parameters=[
            (name, value if isinstance(value, str) else json.dumps(value))
            for name, value in flat(params)
        ],
        runs=[*of_training, *of_scores],
        environment=environment([*of_training.values(), *of_scores.values()]),
    )


def _precision(comparisons: Sequence[SplitComparison]) -> dict[str, dict[str, float]]:
    """Return AP@0.5 by split and model, where it is defined."""
    found = {}
    for item in comparisons:
        if row := item.scores.get(DECIDES):
            numbers = row.first.number, row.second.number
            found[item.split] = dict(zip(item.models, numbers, strict=True))
    return found


def _computed(dataset: str, model: str, runs: Mapping[str, Run]) -> dict[str, str]:
    """Return data, weights and device of a model's scores, by split, for the head of the page."""
    hashes = ", ".join(f"{split} {_shown(run.get('data'))}" for split, run in runs.items())
    run = next(iter(runs.values()))
    return {
        "data": f"{dataset}; sha256 of {hashes}",
        "weights": f"{model}; sha256 {_shown(run.get('weights'))}",
        "device": f"{_shown(run.get('device_name'))}, precision {_shown(run.get('precision'))}",
    }


def diameter_warnings(name: str, run: Run) -> list[str]:
    """Say that a model was given another diameter than that of the annotated cells, if it was."""
    used, annotated = run.get("diameter.used"), run.get("diameter.annotated")
    if not used or not annotated or 1 / FAR <= used / annotated <= FAR:
        return []
    return [
        f"{name}: the model was told that cells are {used:.0f} px across; the annotated ones are "
        f"{annotated:.0f} px. Its scores may be low for that reason alone."
    ]


def environment(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return what all runs recorded, a row for each property: a value each, or one for all."""
    rows = []
    for name in dict.fromkeys(name for run in runs for name in run):
        values = [_shown(run.get(name)) for run in runs]
        title = name.removeprefix("versions.").replace("_", " ").replace(".", ", ")
        rows.append((title, values if len(set(values)) > 1 else values[:1]))
    return rows


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)[:DIGITS] if len(str(value)) == SHA256 else str(value)


def _losses(path: Path, training: dict[str, Any]) -> pd.DataFrame:
    """Read the losses of all epochs; `InputError` if they do not end as train.json says."""
    table = read_table(path, {"epoch": "int64", "train_loss": "float64", "valid_loss": "float64"})
    if len(table) != training["epochs"] or table["train_loss"].iloc[-1] != training["train_loss"]:
        raise InputError(
            f"{path}: its last epoch is not that of train.json; one of them was cut or belongs to "
            "another training: run the stage train again"
        )
    return table


def _split(
    folders: Sequence[Path],
    models: tuple[str, str],
    comparison: SplitComparison,
    groups: Sequence[dict],
) -> SplitReport:
    return SplitReport(
        comparison.split,
        comparison,
        _groups(*groups),
        _figures(folders, models, comparison.split),
        _pictures(folders, models, comparison.split),
    )


def _figures(folders: Sequence[Path], models: tuple[str, str], split: str) -> list[Figure]:
    """Draw the curves of both models; a figure without any point is left out."""
    drawn = []
    for name, (draw, caption) in FIGURES.items():
        tables = [read_table(files_of(folder, split)[name]) for folder in folders]
        if any(map(len, tables)):
            drawn.append(Figure(draw(f"{split}-{name}", models, tables), caption))
    return drawn


def _groups(first: dict, second: dict) -> dict[str, list[tuple[str, dict, dict]]]:
    """Return by kind the groups of cells: the name of each, and its scores for both models."""
    return {
        title: [(name, of, second.get(kind, {}).get(name, {})) for name, of in first[kind].items()]
        for kind, title in KINDS.items()
        if kind in first
    }


def _drawn(folder: Path, split: str) -> list[tuple[Path, str, str]]:
    """Return the pictures of a split: a typical field, the worst fields, the worst cells.

    Each comes with the name of what it shows, and with what is said about it.
    """
    images = folder / "images"
    check_there(images)
    table = read_table(files_of(folder, split)["fields"], {"field": "string"})
    precision = table[".".join(DECIDES)].to_numpy(float)
    drawn = []
    for place, index in enumerate(typical_first(precision)):
        field = table["field"][index]
        rank = ("typical: the median", "the worst", "among the worst")[min(place, 2)]
        note = f"{rank} of {len(table)} fields" if len(table) > 1 else "the only field"
        score = f"{precision[index]:.3f}".replace("nan", "undefined")
        drawn.append((images / split / f"{field}.png", field, f": {note}, AP@0.5 {score}"))
    drawn = [item for item in drawn if item[0].exists()]
    if not drawn:
        raise InputError(f"{images / split}: no picture of a field there; evaluate again")
    cells = images / f"{split}_worst_cells.png"
    return drawn + [(cells, "worst cells", "")] * cells.exists()


def _pictures(folders: Sequence[Path], models: Sequence[str], split: str) -> list[Picture]:
    """Return the pictures of both models in turn; their worst fields may differ."""
    drawn = [_drawn(folder, split) for folder in folders]
    return [
        embedded(item[0], f"{item[1]}, {model}{item[2]}")
        for of_both in zip_longest(*drawn)
        for item, model in zip(of_both, models, strict=True)
        if item
    ]
