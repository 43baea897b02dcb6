"""Results of segmentation, to be compared."""

import csv
import hashlib
from pathlib import Path


def results(output: Path) -> dict[str, str]:
    """Return a hash of each file of results; of images.csv, its rows without the seconds.

    run.json, which holds the command, is left out, and so is what is hidden.
    """
    found = {}
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output).as_posix()
        if path.is_file() and not name.startswith(".") and name != "run.json":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    found["images.csv"] = str([row | {"seconds": ""} for row in images_of(output).values()])
    return found


def images_of(output: Path) -> dict[str, dict[str, str]]:
    """Return the rows of images.csv by the names of their images."""
    with (output / "images.csv").open(encoding="utf-8", newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


def times(output: Path) -> dict[str, int]:
    """Return when each file was written, but for those that every run writes."""
    return {
        str(path.relative_to(output)): path.stat().st_mtime_ns
        for path in output.rglob("*")
        if path.is_file() and path.suffix != ".lock" and path.parent != output
    }
