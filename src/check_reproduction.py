"""Check whether this run gave the numbers of the committed run.

Example:
    python src/check_reproduction.py
"""

import argparse
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from cellular.base import cli
from cellular.base.errors import InputError
from cellular.base.params import read_params
from cellular.reporting.reproduction import changed_parameters, numbers_of, sentence, table
from cellular.scoring.results import read_json


def main(argv: Sequence[str] | None = None) -> str:
    """Return a table of all numbers, and a sentence."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit code 0 whatever the answer: on another machine, or after a change of\n"
        "parameters, other numbers are no error.",
    )
    parser.add_argument(
        "--summary",
        type=Path,
        default=Path("metrics/summary.json"),
        help="(default: metrics/summary.json)",
    )
    parser.add_argument(
        "--tolerances",
        type=Path,
        default=Path("metrics/tolerances.json"),
        help="how far each number may differ (default: metrics/tolerances.json)",
    )
    parser.add_argument("--revision", default="HEAD", help="commit to compare with (default: HEAD)")
    args = parser.parse_args(argv)
    committed = yaml.safe_load(_committed(args.revision, Path("params.yaml")))
    changed = changed_parameters(committed, read_params(Path("params.yaml")))
    if changed:
        return (
            f"This run is another experiment than that of {args.revision}: params.yaml differs in "
            f"{', '.join(changed)}. `dvc metrics diff` compares the two."
        )
    summary = json.loads(_committed(args.revision, args.summary))
    tolerances = read_json(args.tolerances).get("tolerances", {})
    numbers = numbers_of(summary, read_json(args.summary), tolerances)
    return f"{table(numbers)}\n\n{sentence(numbers)}"


def _committed(revision: str, path: Path) -> str:
    """Return the text of a file as it is in a commit."""
    name = f"{revision}:./{os.path.relpath(path)}"
    done = subprocess.run(["git", "show", name], capture_output=True, text=True)
    if done.returncode:
        raise InputError(
            f"{path} of {revision} cannot be read ({done.stderr.strip()}); run in a git clone of "
            "the repository, or name a commit that has the file: --revision"
        )
    return done.stdout


if __name__ == "__main__":
    cli.run(main)
