"""Profiles: files of parameters that differ from params.yaml, conf/<name>.yaml."""

import json
from pathlib import Path
from typing import Any

from cellular.base.errors import InputError
from cellular.base.params import flat, read_params

RESERVED = ("true", "false", "null", "none", "nan", "inf")


def load_profile(path: Path) -> dict[str, Any]:
    """Return the values in a profile by dotted name, such as `train.n_epochs`.

    Raises `InputError` if there is no such file, or it does not hold names with values.
    """
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in path.parent.glob("*.yaml")))
        raise InputError(f"{path}: no such profile; there are: {known or 'none'}")
    return dict(flat(read_params(path)))


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
    if isinstance(value, str):
        # A plain word needs no quotes. Anything that Hydra could read as a number, as null or as
        # part of its own syntax does.
        plain = value.replace("_", "a").replace("-", "a").isalnum() and value.isascii()
        plain = plain and value[0].isalpha() and value.lower() not in RESERVED
        return value if plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{','.join(map(_hydra, value))}]"
    return json.dumps(value, default=str)  # YAML reads 2026-01-31 as a date
