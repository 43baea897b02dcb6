"""The grid: the paper's experiments, each a DVC experiment, and one table of their scores."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from cellular.base.errors import InputError
from cellular.base.files import together, write_json
from cellular.base.params import Section
from cellular.experiments.profiles import load_profile, overridden
from cellular.experiments.runner import Experiment, identified, read_json, run_all

PAPER = "paper"  # the profile with the paper's parameters
PUBLISHED = ("cyto", "cyto2")
REACHABLE = ("scellseg", "scratch")  # for the sample: these do not need Cellpose's model server
SHOWN_IOU = ("0.5", "0.75", "0.9")
MODELS = ("pretrained", "finetuned")
ORDER = ("test", "valid", "train")  # of the rows: the split that matters most comes first


def run_grid(
    root: Path,
    profile: str,
    output: Path,
    model: type[Section],
    *,
    weights: Sequence[str] = (),
    data: Path | None = None,
) -> list[dict[str, Any]]:
    """Run every experiment of the grid that is not finished yet, and write the table.

    Parameters
    ----------
    root : the repository
    profile : name of a file in conf/
    output : folder for paper_table.md, .csv and .json
    model : validates the whole of params.yaml
    weights : to start from; default: cyto and cyto2, on the sample scellseg and scratch
    data : the user's own folder, in place of the profile's data set

    Returns
    -------
    list of dict
        A row for each combination of weights, model and split.

    Raises
    ------
    InputError
        If the profile is not valid, or an experiment fails; finished experiments are kept.
    """
    path = root / "conf" / f"{profile}.yaml"
    overrides = chosen(path, data)
    if not weights:
        dataset = overridden(root / "params.yaml", overrides, path)["dataset"]
        weights = REACHABLE if dataset == "sample" else PUBLISHED
    rows = []
    # Claimed now, since it would be late to learn after hours that they cannot be written.
    with together(*(output / f"paper_table.{kind}" for kind in ("md", "csv", "json"))) as tables:
        experiments = []
        for name in weights:
            changed = overrides | {"train.model_type": name}
            named = identified(root, f"{profile}-{Path(name).name}", changed, model, path)
            experiments.append(Experiment(named, changed))
        commits = run_all(root, experiments)
        for experiment in experiments:
            first = {"weights": experiment.overrides["train.model_type"]}
            last = {"experiment": experiment.name}
            rows += [first | row | last for row in _scores(root, commits[experiment.name])]
        _write(rows, *tables)
    return rows


def chosen(profile: Path, data: Path | None) -> dict[str, Any]:
    """Return what a profile and the user's own folder, if one is given, change in params.yaml."""
    overrides = load_profile(profile)
    if data is not None:
        folder = _data_folder(data)
        version = _fingerprint(folder)
        overrides |= {"dataset": "local", "data.path": str(folder), "data.version": version}
        if profile.stem == PAPER:  # its number is the diameter of CELLULAR's cells
            overrides["diameter.pretrained"] = "annotated"
    return overrides


def _data_folder(path: Path) -> Path:
    """Return the folder that holds images and masks, given that folder or its folder of masks."""
    path = path.resolve()
    if not path.is_dir():
        raise InputError(f"{path}: no such folder of masks")
    return path.parent if path.name == "masks" else path


def _fingerprint(folder: Path) -> str:
    """Return a word that changes when a file of the folder is added, removed or written to."""
    listing = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            listing.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return f"v{listing.hexdigest()[:12]}"


def _scores(root: Path, commit: str) -> list[dict[str, Any]]:
    """Return a row of scores for each model and split of an experiment."""
    rows = []
    for model in MODELS:
        for split in ORDER:
            result = read_json(root, commit, f"metrics/{model}/{split}_eval.json")
            row = {"model": model, "split": split, "fields": result["fields"]}
            # In the file, as in the paper, the mean of cell and background is called "average".
            # In the table that name could be taken for average precision.
            for kind, shown in (("cell", "cell"), ("average", "mean")):
                row |= {f"{shown} {score}": value for score, value in result[kind].items()}
            precisions = result["objects"].get("average_precision", {})
            row |= {f"AP@{threshold}": precisions.get(threshold) for threshold in SHOWN_IOU}
            rows.append(row)
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    return tabulate(list(rows), headers="keys", tablefmt="github", floatfmt=".3f")


def _write(rows: Sequence[dict[str, Any]], as_markdown: Path, as_csv: Path, as_json: Path) -> None:
    as_markdown.write_text(markdown(rows) + "\n", encoding="utf-8")
    with as_csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_json(as_json, {"rows": list(rows)})
