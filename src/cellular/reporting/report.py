"""Report: one page of HTML with the results of a run, both models side by side.

The page holds everything that it shows: it asks no server for scripts, fonts or pictures.
"""

import base64
import io
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError
from PIL import Image

from cellular.base import devices
from cellular.base.errors import InputError
from cellular.base.files import check_new, whole
from cellular.base.params import flat
from cellular.imaging.images import read_image
from cellular.reporting import figures
from cellular.reporting.comparison import (
    COUNTED,
    DECIDES,
    FEWEST_FIELDS,
    SplitComparison,
    compare,
)
from cellular.scoring.bootstrap import BY_FIELD
from cellular.scoring.results import REPORTED, check_there, files_of, read_json, read_table

QUALITY = 78  # of WebP, at which outlines stay sharp
PACKAGES = ("cellpose", "torch", "numpy", "scipy", "scikit-image", "opencv-python-headless",
            "lightning-fabric", "pandas", "dvc")  # fmt: skip
KINDS = {
    "class": "class",
    "well": "well",
    "timepoint": "time point",
    "size": "size (quarters of the annotated cells)",
    "crowding": "crowding (crowded: half of the outline touches other cells)",
    "border": "frame of the image",
}


@dataclass(frozen=True)
class Picture:
    """A picture as it stands in the page."""

    data: str  # data URI
    width: int
    height: int
    title: str


@dataclass(frozen=True)
class SplitReport:
    """What the page shows of one split."""

    name: str
    comparison: SplitComparison
    scores: list[tuple[str, list[tuple[str, str]]]]  # name; of both models and the difference,
    # value and interval
    groups: list[tuple[str, list[tuple[str, list[str]]]]]  # kind; group, its cells and scores
    figures: list[tuple[str, str]]  # SVG, caption
    pictures: list[Picture]


def write_report(
    metrics_dir: Path,
    models: tuple[str, str],
    splits: Sequence[str],
    params: dict[str, Any],
    sources: Sequence[dict[str, str]],
    output: Path,
    *,
    example: Path | None = None,
    seed: int = 0,
    force: bool = False,
) -> Path:
    """Write the report of a run.

    Parameters
    ----------
    metrics_dir : holds what the stages prepare, train and evaluate wrote
    models : the two folders in it
    params : the parameters of the run, which the page lists
    sources : data and weights, each with name, what, url, licence and citation
    example : gets a copy of the picture of the first split's worst field, by the second model
    seed : decides the resamples of the intervals

    Raises
    ------
    InputError
        If a file is missing.
    """
    metrics_dir, output = Path(metrics_dir), Path(output)
    for path in filter(None, (output, example)):
        check_new(path, force)
    comparisons = compare(metrics_dir, models, splits, seed)
    try:
        page = _page(metrics_dir, models, comparisons, params, sources)
    except (KeyError, TypeError, ValueError, UndefinedError) as error:
        raise InputError(
            f"{metrics_dir}: a file in it is not as the stages write it ({error}); run them anew"
        ) from None
    with whole(output) as staging:
        staging.write_text(page, encoding="utf-8")
    if example is not None:
        worst = _drawn(metrics_dir / models[1], splits[0])[0]
        with whole(Path(example)) as staging:
            staging.write_bytes(worst.read_bytes())
    return output


def _page(
    metrics_dir: Path,
    models: tuple[str, str],
    comparisons: Sequence[SplitComparison],
    params: dict[str, Any],
    sources: Sequence[dict[str, str]],
) -> str:
    templates = Environment(
        loader=PackageLoader("cellular.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("report.html").render(
        models=models,
        splits=[_split(metrics_dir, models, item) for item in comparisons],
        counted=COUNTED,
        losses=figures.losses(read_table(metrics_dir / "train.csv")),
        training=read_json(metrics_dir / "train.json"),
        prepared=read_json(metrics_dir / "prepare.json"),
        sources=sources,
        params=params,
        parameters=[
            (name, value if isinstance(value, str) else json.dumps(value))
            for name, value in flat(params)
        ],
        environment=_environment(params),
        unit_told=unit_told,
    )


def _split(metrics_dir: Path, models: tuple[str, str], comparison: SplitComparison) -> SplitReport:
    split = comparison.split
    folders = [metrics_dir / model for model in models]
    curves = {
        name: [read_table(files_of(folder, split)[name]) for folder in folders]
        for name in ("ap", "sizes", "diameters")
    }
    summaries = [read_json(files_of(folder, split)["scores"]) for folder in folders]
    drawn = []
    if all(len(table) for table in curves["ap"]):
        drawn.append(
            (figures.precision_by_iou(models, curves["ap"]),
             "Average precision, as cells have to overlap more with their predictions to count as "
             "found. Bands: 95 % intervals.")
        )  # fmt: skip
    if all(len(table) for table in curves["sizes"]):
        drawn.append(
            (figures.f1_by_size(models, curves["sizes"]),
             "F1 of cells at IoU 0.5, by quarters of the annotated cells' diameters.")
        )  # fmt: skip
    drawn.append(
        (figures.diameters(models, curves["diameters"]),
         "Diameter of each found cell, as a circle of its area; on the line, it is right.")
    )  # fmt: skip
    return SplitReport(
        split,
        comparison,
        _scores(comparison),
        _groups([summary["groups"] for summary in summaries]),
        [(_named(svg, split), caption) for svg, caption in drawn],
        _pictures(folders, models, split),
    )


def _named(svg: str, split: str) -> str:
    """Return a figure with identifiers of its own in a page that shows it for several splits."""
    for mark in ('id="', 'href="#', "url(#"):
        svg = svg.replace(mark, f"{mark}{split}-")
    return svg


def _scores(comparison: SplitComparison) -> list[tuple[str, list[tuple[str, str]]]]:
    return [
        (REPORTED[place], [
            _with_interval(score.first, score.intervals[0], ".3f"),
            _with_interval(score.second, score.intervals[1], ".3f"),
            _with_interval(score.difference, score.interval, "+.3f"),
        ])
        for place, score in comparison.scores.items()
    ]  # fmt: skip


def _with_interval(value: float, ends: tuple[float, float] | None, style: str) -> tuple[str, str]:
    told = "" if ends is None else f"({ends[0]:{style}} to {ends[1]:{style}})"
    return format(value, style), told


def _groups(of_models: Sequence[dict]) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Return by kind the groups: name and cells; recall and, where known, F1 of both models."""
    kinds = []
    for kind, told in KINDS.items():
        first, second = (groups.get(kind, {}) for groups in of_models)
        lines = [
            (name, [str(scores["cells"]), *(_group_score(groups.get(name, {}), score)
                    for score in ("recall", "f1") for groups in (first, second))])
            for name, scores in first.items()
        ]  # fmt: skip
        if lines:
            kinds.append((told, lines))
    return kinds


def _group_score(scores: dict, name: str) -> str:
    return f"{scores[name]:.3f}" if name in scores else "–"


def _drawn(folder: Path, split: str) -> list[Path]:
    """Return the pictures of a split: its fields, the worst first, then the sheet of cells."""
    images = folder / "images"
    check_there(images)
    table = read_table(files_of(folder, split)["fields"], {"field": "string"})
    column = ".".join(DECIDES)
    order = dict(zip(table["field"], table[column], strict=True))
    fields = sorted((images / split).glob("*.png"), key=lambda path: order.get(path.stem, np.inf))
    if not fields:
        raise InputError(f"{images / split}: no picture of a field there; evaluate anew")
    return fields + [path for path in [images / f"{split}_worst_cells.png"] if path.exists()]


def _pictures(folders: Sequence[Path], models: Sequence[str], split: str) -> list[Picture]:
    """Return the pictures of both models side by side; the worst fields of each may differ."""
    drawn = [_drawn(folder, split) for folder in folders]
    shown = []
    for paths in zip_longest(*drawn):
        for path, model in zip(paths, models, strict=True):
            if path is not None:
                name = path.stem if path.parent.name == split else "worst cells"
                shown.append(_picture(path, f"{name}, {model}"))
    return shown


def _picture(path: Path, title: str) -> Picture:
    picture = Image.fromarray(np.ascontiguousarray(read_image(path)))
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=QUALITY, method=6)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return Picture(f"data:image/webp;base64,{data}", *picture.size, title)


def _environment(params: dict[str, Any]) -> list[tuple[str, str]]:
    device = devices.choose()
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else (
            torch.cpu.get_capabilities().get("cpu_name")
            or platform.processor()
            or platform.machine()
        )
    )
    told = [
        ("system", f"{platform.system()} {platform.machine()}"),
        ("device", f"{device.type}: {name}, {os.cpu_count()} CPU cores, "
                   f"{torch.get_num_threads()} threads"),
        ("arithmetic of training", devices.choose_precision(device, params["train"]["precision"])),
        ("arithmetic of evaluation", "32" if params["eval"]["resample"]
         else devices.choose_precision(device, params["eval"]["precision"])),
        ("Python", platform.python_version()),
    ]  # fmt: skip
    return told + [(package, version(package)) for package in PACKAGES]


def unit_told(comparison: SplitComparison) -> str:
    """Return in words what the intervals of a split resample."""
    if comparison.resampled == BY_FIELD:
        few = ", which are few: they are narrower than they should be"
        told = f"resampling its {comparison.fields} fields"
        return told + (few if comparison.fields < FEWEST_FIELDS else "")
    return "resampling the cells of its one field, which says nothing of other fields"
