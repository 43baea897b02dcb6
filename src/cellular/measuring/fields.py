"""Fields of the read-out: the two channels of the reporter, and the label maps of their cells."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cellular.base.errors import InputError
from cellular.imaging.microscopy import Image, Source
from cellular.measuring.params import MeasureParams


@dataclass(frozen=True)
class Channels:
    """The two channels of a field, in files of their own or in one image."""

    name: str
    red: Source
    green: Source  # the same source as `red` if one image holds both

    def read(self, params: MeasureParams) -> tuple[np.ndarray, np.ndarray, float | None]:
        """Return red and green, (H, W) float32 each, and the pixel size in µm if the files say it.

        Raises
        ------
        InputError
            If a channel cannot be read, or they differ in size, or a value is below 0 or no number.
        """
        image = self.red.read()
        planes = [_plane(self.red.name, image, params.red)]
        if self.green is not self.red:
            image = self.green.read()
        planes.append(_plane(self.green.name, image, params.green))
        for plane, source in zip(planes, (self.red, self.green), strict=True):
            if not np.isfinite(plane).all() or plane.min() < 0:
                raise InputError(
                    f"{source.name}: values below 0, or that are no numbers; expected the grey "
                    "values of the camera, from 0 on"
                )
        if planes[0].shape != planes[1].shape:
            (a, b), (c, d) = (plane.shape for plane in planes)
            raise InputError(
                f"{self.name}: red has {b} x {a} pixels, green {d} x {c}; expected channels of one "
                "size"
            )
        return planes[0], planes[1], image.pixel_size


def find_channels(sources: Iterable[Source], params: MeasureParams) -> dict[str, Channels]:
    """Return the fields that have both channels, sorted by name.

    They are files of one channel, `<field>_<red>` and `<field>_<green>`; where no file is named
    so, every image is a field that may hold both.
    """
    named = {source.name: source for source in sources}
    ends = f"_{params.red}", f"_{params.green}"
    fields = {
        name.removesuffix(ends[0]): (source, named.get(name.removesuffix(ends[0]) + ends[1]))
        for name, source in named.items()
        if name.endswith(ends[0])
    }
    if not fields:
        fields = {name: (source, source) for name, source in named.items()}
    lacking = [name for name, (_, green) in fields.items() if green is None]
    if lacking:
        raise InputError(
            f"{lacking[0]}: {ends[0]} is there and {ends[1]} is not"
            f"{f', and of {len(lacking) - 1} fields more' if lacking[1:] else ''}; expected both "
            "channels of each field"
        )
    return {name: Channels(name, *fields[name]) for name in sorted(fields)}  # type: ignore[arg-type]


def _plane(where: str, image: Image, channel: str) -> np.ndarray:
    """Return a channel by its name or its number from 1 on; an image of one channel is it."""
    pixels = image.pixels
    if pixels.ndim == 2:
        return pixels.astype(np.float32)
    names = [name.casefold() for name in image.names]
    if channel.casefold() in names:
        return pixels[..., names.index(channel.casefold())].astype(np.float32)
    if channel.isdecimal() and 1 <= int(channel) <= pixels.shape[2]:
        return pixels[..., int(channel) - 1].astype(np.float32)
    raise InputError(
        f"{where}: no channel {channel!r} among {', '.join(image.names)}; set measure.red and "
        "measure.green to a name or a number"
    )
