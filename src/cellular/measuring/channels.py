"""Channels: the red and the green image of each field, and the label maps that belong to it."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellular.base.errors import InputError
from cellular.imaging.fields import MASKS
from cellular.imaging.images import is_mask
from cellular.imaging.microscopy import Image, Source
from cellular.measuring.params import MeasureParams

log = logging.getLogger(__name__)

PREDICTED = "pred_"  # begins the names of label maps that src/eval.py writes


class UnknownChannels(InputError):
    """It is not known which channel is which, or how large a pixel is."""


@dataclass(frozen=True)
class Channels:
    """Where the two channels of a field are: in files of their own, or in one image."""

    name: str  # of the field
    red: Source
    green: Source  # the same as `red` if one image holds both

    def read(
        self, params: MeasureParams, pixel_size: float | None = None
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Return red and green, (H, W) float32 each, and the edge of a pixel in µm.

        Parameters
        ----------
        pixel_size : µm, in place of what the files say

        Raises
        ------
        UnknownChannels
            If an image lacks a channel of that name or number, or the pixel size is not known.
        InputError
            If a file cannot be read, the channels differ in size, or a value is below 0.
        """
        image = self.red.read()
        other = image if self.green is self.red else self.green.read()
        if other is image and image.pixels.ndim == 2:
            raise UnknownChannels(
                f"{self.name}: one channel, expected files {self.name}_{params.red} and "
                f"{self.name}_{params.green}, or an image with both channels; set measure.red and "
                "measure.green (--red, --green)"
            )
        if image.pixels.dtype == np.uint8:
            log.warning(
                "%s: 8 bits; brightness and puncta of merged pictures mean nothing, so take the "
                "channels as the camera gave them",
                self.name,
            )
        red = _plane(self.red.name, image, params.red)
        green = _plane(self.green.name, other, params.green)
        if red.shape != green.shape:
            (a, b), (c, d) = red.shape, green.shape
            raise InputError(
                f"{self.name}: red has {b} x {a} pixels, green {d} x {c}; expected one size"
            )
        size = pixel_size or image.pixel_size or other.pixel_size
        if size is None:
            raise UnknownChannels(
                f"{self.name}: the file does not say how large a pixel is; set data.pixel_size, in "
                "µm (--pixel_size)"
            )
        if size > params.largest:
            raise InputError(
                f"{self.name}: a pixel of {size:g} µm is larger than the largest puncta, "
                f"{params.largest:g} µm; give the edge of a pixel in µm (--pixel_size)"
            )
        return red, green, size


def find_channels(sources: Iterable[Source], params: MeasureParams) -> dict[str, Channels]:
    """Return where the channels of each field are, sorted by the field's name.

    They are files of one channel, `<field>_<red>` and `<field>_<green>`. If there are none of that
    name, or channels are given by number, every image is taken for a field that holds both.

    Raises
    ------
    UnknownChannels
        If a field has one of the two files.
    """
    named = {source.name: source for source in sources}
    ends = f"_{params.red}", f"_{params.green}"
    fields = {name.removesuffix(end) for end in ends for name in named if name.endswith(end)}
    if not fields or params.red.isdecimal():
        return {name: Channels(name, named[name], named[name]) for name in sorted(named)}
    missing = sorted({name + end for name in fields for end in ends} - named.keys())
    if missing:
        more = f" (and {len(missing) - 1} more)" if missing[1:] else ""
        raise UnknownChannels(
            f"{missing[0]}: not there{more}; expected a file for each of both channels of a field"
        )
    return {name: Channels(name, *(named[name + end] for end in ends)) for name in sorted(fields)}


def find_labels(folder: Path) -> dict[str, Path]:
    """Return the label maps in a folder, by field: those of an output of src/segment.py, or others.

    A field's name is the path below the folder, without ending, and without `pred_` or `_masks`.

    Raises
    ------
    InputError
        If there is none.
    """
    folder = folder / "labels" if (folder / "labels").is_dir() else folder
    found = {}
    for path in sorted(filter(is_mask, folder.rglob("*"))):
        name = path.name.removesuffix(path.suffix).removesuffix(".ome").removesuffix(MASKS)
        found[path.with_name(name.removeprefix(PREDICTED)).relative_to(folder).as_posix()] = path
    if not found:
        raise InputError(f"{folder}: no label maps, expected <field>.png or .tif")
    return found


def _plane(where: str, image: Image, channel: str) -> np.ndarray:
    """Return a channel by its name or number; an image of one channel is that channel."""
    planes = np.atleast_3d(image.pixels)
    names = [name.casefold() for name in image.names]
    if planes.shape[2] == 1:
        index = 0
    elif channel.casefold() in names:
        index = names.index(channel.casefold())
    elif channel.isdecimal() and 1 <= int(channel) <= len(names):
        index = int(channel) - 1
    else:
        raise UnknownChannels(
            f"{where}: no channel {channel!r}, there are {', '.join(image.names)}; set measure.red "
            "and measure.green (--red, --green) to a name, or a number from 1"
        )
    plane = planes[..., index].astype(np.float32)
    if plane.min() < 0:
        raise InputError(
            f"{where}: {plane.min():g} is the lowest value, expected grey values from 0 on"
        )
    return plane
