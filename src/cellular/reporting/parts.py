"""Parts of a page: sentences, figures, tables and pictures under a heading."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from cellular.measuring.wells import READOUTS
from cellular.reporting.embedding import Figure, Picture

UNKNOWN = "–"


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    caption: str
    columns: Sequence[str]
    groups: Mapping[str, Sequence[Sequence[str]]]  # rows by the name of their group, "" for none


@dataclass(frozen=True)
class Part:
    """What the page shows under a heading, in this order."""

    title: str
    texts: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    folded: Mapping[str, Table] = field(default_factory=dict)  # by what one selects to see it
    pictures: Sequence[Picture] = ()


def number(value: Any, *, sign: bool = False) -> str:
    """Write a number with three digits or more, never as 1.2e+03; a dash if it is missing.

    >>> number(14), number(0.12345, sign=True), number(1234)
    ('14.0', '+0.123', '1234')
    """
    if value is None or pd.isna(value):
        return UNKNOWN
    style = ".0f" if abs(value) >= 999.5 else "#.3g"
    return format(value + 0.0, f"{'+' * sign}{style}").removesuffix(".")


def capital(text: str) -> str:
    """Return a text with its first letter as a capital."""
    return text[:1].upper() + text[1:]


def interval(found: Mapping[str, Any]) -> str:
    """Write the ends `low` and `high`; a dash if there are none."""
    if "low" not in found:
        return UNKNOWN
    return f"{number(found['low'], sign=True)} to {number(found['high'], sign=True)}"


def title_of(readout: str) -> str:
    """Return the name of a read-out, with its unit if it has one."""
    name, unit = READOUTS[readout]
    return f"{name}, {unit}" if unit else name
