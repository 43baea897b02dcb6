"""Reproduction: whether this run gave the numbers of the committed run, on whatever machine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tabulate import tabulate

from cellular.scoring.scores import flat
from cellular.scoring.summary import DIGITS


@dataclass(frozen=True)
class Number:
    """A number of the summary, in the committed run and in this one; NaN where it is missing."""

    name: str
    committed: float
    here: float
    tolerance: float

    @property
    def fault(self) -> str:
        """Say why the number is not reproduced; empty if it is."""
        if math.isnan(self.here):
            return "missing here"
        if math.isnan(self.committed):
            return "not committed"
        # Both are rounded decimals: their difference may be off by a last bit.
        close = abs(self.here - self.committed) <= self.tolerance + 1e-9
        return "" if close else "outside the tolerance"


def numbers_of(committed: dict, here: dict, tolerances: dict) -> list[Number]:
    """Return every number of two summaries; one without a tolerance has to be equal.

    Parameters
    ----------
    committed, here : two summaries (`cellular.scoring.summary`)
    tolerances : the tolerance of each number, by its name with dots, or in the same nested form
    """
    before, after, allowed = (dict(flat(content)) for content in (committed, here, tolerances))
    return [
        Number(name, before.get(name, math.nan), after.get(name, math.nan), allowed.get(name, 0.0))
        for name in before | after
    ]


def changed_parameters(committed: dict, here: dict) -> list[str]:
    """Return the names, with dots, of the parameters that differ between two params.yaml."""
    before, after = dict(flat(committed)), dict(flat(here))
    return [
        name
        for name in before | after
        if name not in before or name not in after or before[name] != after[name]
    ]


def table(numbers: Sequence[Number]) -> str:
    """Return the numbers as a Markdown table."""
    rows = [
        (
            number.name,
            _decimal(number.committed),
            _decimal(number.here),
            _decimal(number.here - number.committed, "+"),
            _decimal(number.tolerance),
            number.fault,
        )
        for number in numbers
    ]
    return tabulate(
        rows,
        headers=["number", "committed", "here", "difference", "tolerance", ""],
        tablefmt="github",
        colalign=("left", "right", "right", "right", "right", "left"),
        disable_numparse=True,
    )


def sentence(numbers: Sequence[Number]) -> str:
    """Say in one sentence whether the committed run was reproduced."""
    if not numbers:
        return "Nothing to compare: neither summary holds a number."
    faults = [f"{number.name} {number.fault}" for number in numbers if number.fault]
    if faults:
        return f"Not reproduced: of {len(numbers)} numbers {len(faults)}: {', '.join(faults)}."
    exactly = all(number.here == number.committed for number in numbers)
    within = "" if exactly else ", within the tolerance for other machines"
    return f"Reproduced: all {len(numbers)} numbers are those of the committed run{within}."


def _decimal(value: float, sign: str = "") -> str:
    return "–" if math.isnan(value) else f"{value:{sign}.{DIGITS}f}"
