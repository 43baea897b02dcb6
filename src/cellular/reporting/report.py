"""Report: one page of HTML with the results of a run, both models side by side.

The page holds everything that it shows: it loads no scripts, fonts or pictures from elsewhere.
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
from cellular.reporting.comparison import DECIDES, SplitComparison, compare
from cellular.scoring.results import check_there, files_of, read_json, read_table
from cellular.scoring.uncertainty import SITE

QUALITY = 78  # of WebP, at which outlines stay sharp
PACKAGES = (
    "cellpose",
    "torch",
    "numpy",
    "scipy",
    "scikit-image",
    "opencv-python-headless",
    "lightning-fabric",
    "pandas",
    "dvc",
)
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
    "diameters": (
        figures.diameters,
        "Diameters of found cells, as circles of their area. On the line, the prediction is right.",
    ),
}


@dataclass(frozen=True)
class Group:
    """A group of cells, with its scores (`cellular.scoring.groups`) for both models."""

    name: str
    first: dict[str, float]
    second: dict[str, float]


@dataclass(frozen=True)
class Kind:
    """All groups of one kind, such as all wells."""

    name: str
    groups: list[Group]


@dataclass(frozen=True)
class Figure:
    """A figure and its caption."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Picture:
    """A picture as it is embedded in the page."""

    data: str  # data URI
    width: int  # pixels
    height: int
    title: str


@dataclass(frozen=True)
class SplitReport:
    """What the page shows of one split."""

    name: str
    comparison: SplitComparison
    kinds: list[Kind]
    figures: list[Figure]
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
    example : file for a copy of the picture of the first split's worst field, by the second model
    seed, unit : as for `cellular.reporting.comparison.compare`
    force : replace files that exist

    Raises
    ------
    InputError
        If a file is missing or not as its stage writes it, or an output exists.
    """
    metrics_dir, output = Path(metrics_dir), Path(output)
    for path in filter(None, (output, example)):
        check_new(path, force)
    comparisons = compare(metrics_dir, models, splits, seed, unit)
    try:
        page = _page(metrics_dir, models, comparisons, params, sources)
    except (KeyError, TypeError, ValueError, UndefinedError) as error:
        raise InputError(
            f"{metrics_dir}: a file in it is not as the stages write it ({error}); run them again"
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
    )


def _split(metrics_dir: Path, models: tuple[str, str], comparison: SplitComparison) -> SplitReport:
    split = comparison.split
    folders = [metrics_dir / model for model in models]
    first, second = (read_json(files_of(folder, split)["scores"])["groups"] for folder in folders)
    return SplitReport(
        split,
        comparison,
        _kinds(first, second),
        _figures(folders, models, split),
        _pictures(folders, models, split),
    )


def _figures(folders: Sequence[Path], models: tuple[str, str], split: str) -> list[Figure]:
    """Draw the curves of both models; a figure without any point is left out."""
    drawn = []
    for name, (draw, caption) in FIGURES.items():
        tables = [read_table(files_of(folder, split)[name]) for folder in folders]
        if any(map(len, tables)):
            drawn.append(Figure(draw(f"{split}-{name}", models, tables), caption))
    return drawn


def _kinds(first: dict, second: dict) -> list[Kind]:
    """Return the groups of cells by kind, from the `groups` in the scores of both models."""
    kinds = []
    for kind in filter(first.get, KINDS):
        of_second = second.get(kind, {})
        groups = [Group(name, of, of_second.get(name, {})) for name, of in first[kind].items()]
        kinds.append(Kind(KINDS[kind], groups))
    return kinds


def _drawn(folder: Path, split: str) -> list[Path]:
    """Return the pictures of a split: its fields, the worst first, then its worst cells."""
    images = folder / "images"
    check_there(images)
    table = read_table(files_of(folder, split)["fields"], {"field": "string"})
    column = ".".join(DECIDES)
    order = dict(zip(table["field"], table[column], strict=True))
    fields = sorted((images / split).glob("*.png"), key=lambda path: order.get(path.stem, np.inf))
    if not fields:
        raise InputError(f"{images / split}: no picture of a field there; evaluate again")
    return fields + [path for path in [images / f"{split}_worst_cells.png"] if path.exists()]


def _pictures(folders: Sequence[Path], models: Sequence[str], split: str) -> list[Picture]:
    """Return the pictures of both models in turn; their worst fields may differ."""
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
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor()
    cores = f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads"
    # Cellpose's own eval, which `resample` chooses, computes in 32 bits.
    evaluation = "32" if params["eval"]["resample"] else params["eval"]["precision"]
    return [
        ("system", f"{platform.system()} {platform.machine()}"),
        ("device", f"{device.type}: {name or platform.machine()}, {cores}"),
        ("arithmetic of training", devices.choose_precision(device, params["train"]["precision"])),
        ("arithmetic of evaluation", devices.choose_precision(device, evaluation)),
        ("Python", platform.python_version()),
        *((package, version(package)) for package in PACKAGES),
    ]
