"""Parameters: values from params.yaml or from the command line, checked before anything uses them.

Each stage has a module `params` with a pydantic model of its section of params.yaml. The same
fields are the flags of the stage's script (`cellular.base.cli`), so that the default, the bounds
and the description of a parameter stand in one place.
"""

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML, YAMLError

from cellular.base.errors import InputError

NETWORK_DIAMETER = 30.0  # pixels; the size at which Cellpose's networks, but for nuclei, see cells

CELL_DIAMETER_HELP = (
    "resize the training fields once, so that their cells have this diameter in pixels on "
    "average, and let the network see cells at that size, in evaluation too; none: fields keep "
    "their size, and the network sees cells of 30 pixels, as Cellpose does. Larger: finer "
    "outlines, more pixels to compute"
)
UNIT_HELP = (
    "what is drawn at random for the intervals, with all its fields. site: fields of one site "
    "(plate, well, site) are alike, at all time points; well: sites of one well are alike, too"
)


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is not a number")
    return value


def _none(value: Any) -> Any:
    # On the command line null is the word none.
    return None if isinstance(value, str) and value.lower() in ("none", "null", "") else value


def _text(value: Any) -> Any:
    # YAML, and `dvc exp run -S`, read a word of digits as a number, and 2026-01-31 as a date.
    words = isinstance(value, int | float | date) and not isinstance(value, bool)
    return str(value) if words else value


T = TypeVar("T")
Int = Annotated[int, BeforeValidator(_no_bool)]
Float = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Text = Annotated[Annotated[str, Field(min_length=1)], BeforeValidator(_text)]
NoneOr = Annotated[T | None, BeforeValidator(_none)]
Channels = Annotated[list[Annotated[Int, Field(ge=0, le=3)]], Field(min_length=2, max_length=2)]
Unit = Literal["site", "well"]
Precision = Annotated[Literal["auto", "32", "tf32", "bf16", "fp16"], BeforeValidator(_text)]


class Section(BaseModel):
    """A group of parameters: unknown names are errors, and values never change once read."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True
    )
    section: ClassVar[str | None] = None  # its name in params.yaml; None: the top level


SectionT = TypeVar("SectionT", bound=Section)


def validate(model: type[SectionT], values: dict[str, Any], where: str) -> SectionT:
    """Return `values` as `model`, or raise one `InputError` that names every fault in them."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            # An entry of a list is named by the list: `formats`, not `formats.0`.
            name = ".".join(part for part in fault["loc"] if isinstance(part, str))
            if fault["type"] == "extra_forbidden":
                known = ", ".join(sorted(_section_at(model, fault["loc"][:-1]).model_fields))
                reason = f"no such parameter; known here: {known}"
            else:
                # "Value error, ..." is pydantic's prefix for our own sentences.
                reason = fault["msg"].removeprefix("Value error, ")
                if fault["type"] == "model_type":
                    reason = "expected a section with names and values"
                if not isinstance(fault["input"], dict):
                    reason += f" (found {fault['input']!r})"
            faults.append(f"{name + ': ' if name else ''}{reason}")
        if len(faults) == 1:
            raise InputError(f"{where}: {faults[0]}") from None
        raise InputError("\n  ".join([f"{where}: {len(faults)} faults", *faults])) from None


def _section_at(model: type[Section], names: Sequence[str | int]) -> type[Section]:
    """Return the section inside `model` that a path of names leads to."""
    for name in names:
        model = cast(type[Section], model.model_fields[str(name)].annotation)
    return model


def read_params(path: Path) -> dict[str, Any]:
    """Return the content of a params.yaml, not validated yet; `InputError` if it is no mapping."""
    try:
        return parse_params(Path(path).read_bytes(), path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; run from the repository's root") from None


def parse_params(text: bytes, where: object) -> dict[str, Any]:
    """Return the names and values in a text of YAML in UTF-8; `where` it is goes into errors.

    The parser is that of DVC, so that each value is the same to both. A name that is given twice is
    an error.
    """
    try:
        values = YAML(typ="safe").load(text.decode())
    except (YAMLError, ValueError, RecursionError) as error:
        # ValueError: not UTF-8, or a date or a number that there cannot be.
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        reason = f"line {mark.line + 1}: {problem}" if mark else " ".join(str(error).split())
        raise InputError(f"{where} is not valid YAML in UTF-8: {reason}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{where} holds {type(values).__name__}, expected names with values")
    return values


def flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give the values of nested dicts with their names: the keys on the way, joined by dots."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
