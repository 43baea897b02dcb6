"""Say whether this run gave the numbers of the committed run.

Example:
    python src/check_reproduction.py
"""

import argparse
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cellular.base import cli
from cellular.base.errors import InputError
from cellular.reporting.reproduction import numbers_of, sentence, table
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
    parser.add_argument("--revision", default="HEAD", help="the commit to compare with")
    args = parser.parse_args(argv)
    if _git("diff", "--name-only", args.revision, "--", "params.yaml"):
        return (
            f"params.yaml is not that of {args.revision}, so this run is another experiment: "
            "compare the two with `dvc metrics diff`."
        )
    committed = json.loads(_git("show", f"{args.revision}:./{args.summary}"))
    tolerances = read_json(args.tolerances)["tolerances"]
    numbers = numbers_of(committed, read_json(args.summary), tolerances)
    return f"{table(numbers)}\n\n{sentence(numbers)}"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    cli.run(main)
