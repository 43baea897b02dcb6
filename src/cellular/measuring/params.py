"""Parameters of the read-out: which channel is what, and what counts as a punctum."""

import re
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, field_validator, model_validator

from cellular.base.params import Float, NoneOr, Section, Text
from cellular.imaging.fields import NAME


def _condition(text: str) -> str:
    name, _, pattern = text.partition("=")
    if not name or not pattern:
        raise ValueError("expected <name>=<pattern of wells>, such as fed=[C-H]*")
    return text


def _naming(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"not a regular expression ({error})") from None
    if "well" not in groups:
        raise ValueError("expected a regular expression with a group (?P<well>...)")
    return pattern


class MeasureParams(Section):
    """Which channel is what, what counts as a punctum, and which wells are compared."""

    section: ClassVar[str | None] = "measure"

    red: Text = "w2"
    """channel of the acid-proof protein (mRFP): the end of its files' names, <field>_w2.TIF, or the
    name or number (from 1) of a channel in images of several"""
    green: Text = "w1"
    """channel of the protein that acid quenches (EGFP), given in the same way"""
    smallest: Float = Field(0.35, gt=0)
    """µm, diameter of the smallest puncta: the channels are smoothed to that, and two puncta whose
    brightest points are closer count as one. Larger: less noise, fewer puncta in clusters"""
    largest: Float = Field(1.9, gt=0)
    """µm, diameter of the largest puncta: what is wider belongs to the surroundings"""
    min_area: Float = Field(0.15, ge=0)
    """µm², area of a punctum at half of its height, at least. Larger: fewer puncta that are noise,
    or small"""
    contrast: Float = Field(0.25, gt=0)
    """height of a punctum's brightest point above its surroundings in the cell, at least, in
    multiples of what those are above the field's background. Larger: fewer and brighter puncta"""
    noise: Float = Field(6.0, gt=0)
    """the same height in standard deviations of the noise at that brightness, at least, which
    decides in cells that are hardly brighter than the background"""
    names: NoneOr[Annotated[Text, AfterValidator(_naming)]] = None
    """regular expression for the whole name of a field of yours, its folder included, with the
    groups (?P<well>...) and, if there are several, (?P<timepoint>...); none: CELLULAR's names"""
    conditions: list[Annotated[Text, AfterValidator(_condition)]] = Field(
        ["fed=[C-H]*", "starved=[I-N]*"]
    )
    """the two conditions that are compared, the reference first, each with a pattern for its wells:
    C03 matches [C-H]*; [] in params.yaml: wells are not compared"""

    @model_validator(mode="after")
    def _two_channels(self) -> "MeasureParams":
        if self.red == self.green:
            raise ValueError(f"red and green are one channel, {self.red}; expected two")
        return self

    @field_validator("conditions")
    @classmethod
    def _two_or_none(cls, conditions: list[str]) -> list[str]:
        names = {condition.partition("=")[0] for condition in conditions}
        if len(conditions) not in (0, 2) or len(names) != len(conditions):
            raise ValueError("expected two conditions of different names, or none")
        return conditions

    def origin(self, field: str) -> dict[str, str]:
        """Return timepoint, well and condition, as far as the name of the field tells them."""
        found = (
            re.fullmatch(self.names, field)
            if self.names
            else NAME.fullmatch(field.rpartition("/")[2])
        )
        named = {key: text for key, text in found.groupdict().items() if text} if found else {}
        place = named.get("well", "")
        if "plate" in named:
            named["well"] = f"{named['plate']} {place}"
        for condition in self.conditions:
            name, _, pattern = condition.partition("=")
            if place and fnmatchcase(place, pattern):
                named["condition"] = name
                break
        return {key: named[key] for key in ("timepoint", "well", "condition") if key in named}
