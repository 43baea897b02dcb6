"""Check whether this run gave the numbers of the committed run.

Example:
    python src/check_reproduction.py
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# First: from here on an interrupt ends in one line.
from cellular.base import cli  # isort: skip
import numpy as np
import pandas as pd
from tabulate import tabulate

from cellular.base.errors import InputError
from cellular.base.params import flat, parse_params, read_params
from cellular.scoring.results import read_json


def main(argv: Sequence[str] | None = None) -> str:
    """Return a table of all numbers, and a sentence."""
    parser = cli.Parser(
        __doc__,
        epilog="Exit code 0 whatever the answer: on another machine, or after a change of\n"
        "parameters, other numbers are no error.",
    )
    parser.path("--summary", help="the numbers of this run", default="metrics/summary.json")
    text = "how far each number may differ"
    parser.path("--tolerances", help=text, default="metrics/tolerances.json")
    parser.add_argument("--revision", default="HEAD", help="commit to compare with (default: HEAD)")
    args = parser.parse_args(argv)
    before = dict(flat(_committed(args.revision, Path("params.yaml"))))
    now = dict(flat(read_params(Path("params.yaml"))))
    missing = object()
    changed = [name for name in before | now if before.get(name, missing) != now.get(name, missing)]
    if changed:
        return (
            f"This run is another experiment than that of {args.revision}: params.yaml differs in "
            f"{', '.join(changed)}. `dvc metrics diff` compares the two."
        )
    committed = _committed(args.revision, args.summary)
    here, tolerances = read_json(args.summary), read_json(args.tolerances).get("tolerances", {})
    try:
        numbers = compare(committed, here, tolerances)
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{args.summary} or {args.tolerances}, here or in {args.revision}: numbers with names "
            f"are expected ({error}); run the pipeline again, or take the committed files"
        ) from None
    return f"{markdown(numbers)}\n\n{sentence(numbers)}"


def _committed(revision: str, path: Path) -> dict[str, Any]:
    """Return the content of a file of names with values, YAML or JSON, as it is in a commit."""
    name = f"{revision}:./{os.path.relpath(path)}"
    done = subprocess.run(["git", "show", name], capture_output=True)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise InputError(
            f"{path} of {revision} cannot be read ({reason}); run in a git clone of the "
            "repository, or name a commit that has the file: --revision"
        )
    return parse_params(done.stdout, f"{path} of {revision}")


def compare(committed: dict, here: dict, tolerances: dict) -> pd.DataFrame:
    """Return a row for each number of two summaries; one without a tolerance has to be equal.

    Parameters
    ----------
    committed, here : two summaries (`cellular.scoring.summary`)
    tolerances : the tolerance of each number, by its name with dots

    Returns
    -------
    columns committed, here, difference, tolerance, and fault: empty if the number is reproduced
    """
    names = list(dict(flat(committed)) | dict(flat(here)))
    sources = {"committed": committed, "here": here, "tolerance": tolerances}
    columns = {
        key: pd.Series(dict(flat(source)), names).astype(float) for key, source in sources.items()
    }
    table = pd.DataFrame(columns).assign(tolerance=columns["tolerance"].fillna(0))
    table.insert(2, "difference", table["here"] - table["committed"])
    # Both are rounded decimals: their difference may be off by a last bit.
    outside = table["difference"].abs() > table["tolerance"] + 1e-9
    faults = [table["here"].isna(), table["committed"].isna(), outside]
    messages = ["missing here", "not committed", "outside the tolerance"]
    return table.assign(fault=np.select(faults, messages, ""))


def markdown(numbers: pd.DataFrame) -> str:
    """Return the numbers as a Markdown table."""
    shown = numbers.copy().astype(object)
    for name in ("committed", "here", "difference", "tolerance"):
        style = "{:+.4f}" if name == "difference" else "{:.4f}"
        shown[name] = [style.format(value) for value in numbers[name]]
    rows = shown.replace(["nan", "+nan"], "–").reset_index().to_numpy().tolist()
    return tabulate(rows, ["number", *numbers.columns[:-1], ""], "github", disable_numparse=True)


def sentence(numbers: pd.DataFrame) -> str:
    """Say in one sentence whether the committed run was reproduced."""
    faults = numbers.loc[numbers["fault"] != "", "fault"]
    if numbers.empty:
        return "Nothing to compare: neither summary holds a number."
    if len(faults):
        named = ", ".join(f"{name} {fault}" for name, fault in faults.items())
        return f"Not reproduced: of {len(numbers)} numbers {len(faults)}: {named}."
    if (numbers["difference"] == 0).all():
        return f"Reproduced: all {len(numbers)} numbers are those of the committed run."
    return (
        f"Reproduced: all {len(numbers)} numbers are those of the committed run, within the "
        "tolerance for other machines. Commit this run before you experiment, so that "
        "`dvc metrics diff` compares with the numbers of your own machine."
    )


if __name__ == "__main__":
    cli.run(main)
