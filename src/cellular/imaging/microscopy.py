"""Microscopy: images of every format with what a microscope says of them."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Image:
    """The pixels of an image, and what its file says of them."""

    pixels: np.ndarray  # (H, W) or (H, W, C)
    channels: tuple[str, ...] = ()  # names, one for each channel; (): not known
    pixel_size: float | None = None  # µm, edge of a pixel; None: not known

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the channels; those that are not known are numbered from 1."""
        count = self.pixels.shape[2] if self.pixels.ndim == 3 else 1
        return self.channels or tuple(f"channel_{number}" for number in range(1, count + 1))


class Source(Protocol):
    """An image that can be read when it is needed: a file, a member of an archive."""

    @property
    def name(self) -> str:
        """Its path below the folder of all images, with slashes and without its ending."""

    def digest(self) -> str:
        """Return a text that changes whenever the image does; it costs no full fetch."""

    def read(self) -> Image:
        """Return the image, or raise `InputError`."""
