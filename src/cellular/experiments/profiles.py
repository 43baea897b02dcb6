"""What an experiment changes in params.yaml: a profile, conf/<name>.yaml, and single values."""

import json
from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from cellular.base.cli import Parser
from cellular.base.errors import InputError
from cellular.base.params import flat, parse_params, read_params

RESERVED = ("true", "false", "null", "none", "nan", "inf")


def load_profile(path: Path) -> dict[str, Any]:
    """Return the values in a profile by dotted name, such as `train.n_epochs`.

    Raises `InputError` if there is no such file, or it does not hold names with values.
    """
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in path.parent.glob("*.yaml")))
        raise InputError(f"{path}: no such profile; there are: {known or 'none'}")
    return dict(flat(read_params(path)))


def add_flags(parser: Parser) -> None:
    """Add the flags with which scripts take a profile and single values, for `changes`."""
    parser.add_argument(
        "--profile", metavar="NAME", help="take the values of conf/NAME.yaml: quick, sample, ..."
    )
    text = "change a parameter of params.yaml, as `dvc exp run -S` does; may be given again"
    parser.add_argument(
        *("-S", "--set-param"), action="append", default=[], metavar="NAME=VALUE", help=text
    )


def add_workers(parser: Parser, what: str) -> None:
    """Add `--workers`, the number of experiments that run at once."""
    text = f"{what} that run at once; they share the cores, and get a GPU each (default: 1)"
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help=text)


def positive(text: str) -> int:
    """Return the whole number from 1 on that a flag was given."""
    if not text.isdecimal() or not int(text):
        raise ArgumentTypeError(f"expected a whole number from 1 on, found {text!r}")
    return int(text)


def changes(root: Path, profile: str | None, settings: Sequence[str]) -> dict[str, Any]:
    """Return what a profile and, over it, settings such as `train.n_epochs=3` change.

    Values are YAML: `[0,0]`, `null`, `1e-3`, text with or without quotes.
    """
    found = load_profile(root / "conf" / f"{profile}.yaml") if profile else {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise InputError(f"-S {setting}: expected name=value, such as train.n_epochs=3")
        found |= flat(parse_params(f"{name}: {value}".encode(), f"-S {setting}"))
    return found


def overridden(params_path: Path, overrides: dict[str, Any], where: Path) -> dict[str, Any]:
    """Return the content of params.yaml with `overrides` in it, not validated yet.

    Raises `InputError`, which names the file `where`, if a name leads into a value, as
    `dataset.name` does.
    """
    content = read_params(params_path)
    for name, value in overrides.items():
        *sections, last = name.split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise InputError(f"{where}: {name}: {section} is a value, not a section")
        place[last] = value
    return content


def flags(overrides: dict[str, Any]) -> list[str]:
    """Return overrides as flags of `dvc exp run`: `-S`, `name=value`, ..."""
    return [part for name, value in overrides.items() for part in ("-S", f"{name}={_hydra(value)}")]


def _hydra(value: Any) -> str:
    """Return a value in the syntax of Hydra's overrides, which DVC uses."""
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{','.join(map(_hydra, value))}]"
    text = str(value)  # YAML reads 2026-01-31 as a date
    # A plain word needs no quotes. Anything that Hydra could read as a number, as null or as part
    # of its own syntax does.
    plain = text.replace("_", "a").replace("-", "a").isalnum() and text.isascii()
    plain = plain and text[0].isalpha() and text.lower() not in RESERVED
    return text if plain else QuotedString(text, Quote.double).with_quotes()
