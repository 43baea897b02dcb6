"""Reproduction: whether a run gave the numbers of the committed run, on whatever machine it ran."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tabulate import tabulate


@dataclass(frozen=True)
class Number:
    """A number of the summary, committed and here; NaN where one of the two is missing."""

    name: str
    committed: float
    here: float
    tolerance: float

    @property
    def reproduced(self) -> bool:
        """Tell whether the two differ by no more than the tolerance."""
        # Both are rounded to four digits: their difference may be off by a last bit.
        return abs(self.here - self.committed) <= self.tolerance + 1e-9


def numbers_of(committed: dict, here: dict, tolerances: dict) -> list[Number]:
    """Return every number of two summaries; one without a tolerance has to be equal.

    Parameters
    ----------
    committed, here : two summaries (`cellular.scoring.summary`)
    tolerances : the tolerance of each number, in the same nested form
    """
    before, after, allowed = (dict(flat(content)) for content in (committed, here, tolerances))
    return [
        Number(
            name,
            before.get(name, math.nan),
            after.get(name, math.nan),
            allowed.get(name, 0.0),
        )
        for name in before | after
    ]


def table(numbers: list[Number]) -> str:
    """Return the numbers as a Markdown table."""
    rows = [
        (
            number.name,
            f"{number.committed:.4f}",
            f"{number.here:.4f}",
            f"{number.here - number.committed:+.4f}",
            f"{number.tolerance:.4f}",
            "" if number.reproduced else "outside",
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


def sentence(numbers: list[Number]) -> str:
    """Say in one line whether the committed run was reproduced."""
    outside = [number.name for number in numbers if not number.reproduced]
    if not outside:
        if all(number.here == number.committed for number in numbers):
            return f"Reproduced: all {len(numbers)} numbers are those of the committed run."
        return (
            f"Reproduced: all {len(numbers)} numbers are those of the committed run, within the "
            "tolerance for other machines."
        )
    return (
        f"Not reproduced: {len(outside)} of {len(numbers)} numbers are outside of their tolerance "
        f"({', '.join(outside)})."
    )


def flat(content: dict, prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", float(value)
