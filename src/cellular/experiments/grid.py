"""The grid: the paper's experiments, each a DVC experiment, and one table of their scores."""

import csv
import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from cellular.base.errors import InputError
from cellular.base.files import whole, write_json
from cellular.base.params import Section, validate
from cellular.experiments.profiles import flags, load_profile, overridden

log = logging.getLogger(__name__)

PUBLISHED = ("cyto", "cyto2")
REACHABLE = ("scellseg", "scratch")  # without Cellpose's model server: the sample's own
SHOWN_IOU = ("0.5", "0.75", "0.9")
MODELS = ("pretrained", "finetuned")
ORDER = ("test", "valid", "train")  # of the table: what counts first


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
    output : gets paper_table.md, .csv and .json
    model : what the whole of params.yaml is validated with
    weights : to start from; default: cyto and cyto2, on the sample scellseg and scratch
    data : the user's own folder in place of the profile's data set

    Returns
    -------
    list of dict
        A row for each weights, model and split.

    Raises
    ------
    InputError
        If the profile is not valid or an experiment fails; what is finished is kept.
    """
    path = root / "conf" / f"{profile}.yaml"
    overrides = load_profile(path)
    if data is not None:
        folder = _data_folder(data)
        version = _fingerprint(folder)
        overrides |= {"dataset": "local", "data.path": str(folder), "data.version": version}
    if not weights:
        dataset = overridden(root / "params.yaml", overrides, path)["dataset"]
        weights = REACHABLE if dataset == "sample" else PUBLISHED
    rows = []
    for name in weights:
        chosen = overrides | {"train.model_type": name}
        params = validate(model, overridden(root / "params.yaml", chosen, path), str(path))
        code = _git(root, "diff", "HEAD", "--", "src", "dvc.yaml")  # changes not yet committed
        identity = hashlib.sha256((params.model_dump_json() + code).encode()).hexdigest()[:6]
        experiment = f"{profile}-{Path(name).name}-{identity}"
        if _reference(root, experiment) is None:
            log.info("running %s", experiment)
            _run(root, experiment, chosen)
        else:
            log.info("%s is finished", experiment)
        rows += _rows(root, experiment, name)
    _write(rows, output)
    return rows


def _data_folder(path: Path) -> Path:
    """Return the folder of images and masks that a path to either of them means."""
    path = path.resolve()
    if not path.is_dir():
        raise InputError(f"{path}: no such folder of masks")
    return path.parent if path.name == "masks" else path


def _fingerprint(folder: Path) -> str:
    """Return a word that changes when a file of the folder is added, removed or written to."""
    listing = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            told = path.stat()
            listing.update(f"{path}\0{told.st_size}\0{told.st_mtime_ns}\n".encode())
    return f"v{listing.hexdigest()[:12]}"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"git {arguments[0]} failed in {root}: {done.stderr.strip()}")
    return done.stdout


def _reference(root: Path, experiment: str) -> str | None:
    """Return the git reference of a finished experiment on this commit, or None."""
    head = _git(root, "rev-parse", "HEAD").strip()
    # Where DVC keeps experiments: https://dvc.org/doc/user-guide/experiment-management
    name = f"refs/exps/{head[:2]}/{head[2:]}/{experiment}"
    return name if _git(root, "for-each-ref", name).strip() else None


def _run(root: Path, experiment: str, overrides: dict[str, Any]) -> None:
    """Run one experiment in a copy of the repository: the workspace stays as it is."""
    command = ["dvc", "exp", "run", "--temp", "--name", experiment, *flags(overrides)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # What DVC tells goes to standard error: standard output is for the table.
    done = subprocess.run(command, cwd=root, env=os.environ | {"PATH": path}, stdout=sys.stderr)
    if done.returncode or _reference(root, experiment) is None:
        raise InputError(
            f"experiment {experiment} failed (dvc says why above); mend it and run again: "
            "finished experiments are not run again"
        )


def _rows(root: Path, experiment: str, weights: str) -> list[dict[str, Any]]:
    from dvc.api import DVCFileSystem  # takes seconds to import

    files = DVCFileSystem(str(root), rev=_git(root, "rev-parse", _reference(root, experiment)).strip())
    rows = []
    for model in MODELS:
        for split in ORDER:
            result = json.loads(files.read_text(f"metrics/{model}/{split}_eval.json"))
            row = {"weights": weights, "model": model, "split": split, "fields": result["fields"]}
            # The mean of cell and background is "average" in the file, as in the paper; beside
            # average precision the word would mislead.
            for kind, told in (("cell", "cell"), ("average", "mean")):
                row |= {f"{told} {score}": value for score, value in result[kind].items()}
            precisions = result["objects"].get("average_precision", {})
            row |= {f"AP@{threshold}": precisions.get(threshold) for threshold in SHOWN_IOU}
            rows.append(row | {"experiment": experiment})
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    return tabulate(list(rows), headers="keys", tablefmt="github", floatfmt=".3f")


def _write(rows: Sequence[dict[str, Any]], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    with whole(output / "paper_table.md") as staging:
        staging.write_text(markdown(rows) + "\n", encoding="utf-8")
    with whole(output / "paper_table.csv") as staging, staging.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_json(output / "paper_table.json", {"rows": list(rows)})
