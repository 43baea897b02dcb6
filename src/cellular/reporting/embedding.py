"""Embedding: pictures and figures as parts of a page that loads nothing from elsewhere."""

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cellular.imaging.images import read_image

NARROW, WIDE = 410, 600  # pixels; wider figures have a row of the page for themselves
QUALITY = 50  # of WebP, at which outlines stay sharp


@dataclass(frozen=True)
class Figure:
    """A figure and its caption."""

    svg: str
    caption: str

    @property
    def width(self) -> int:
        """Pixels at which the letters in it are 11 pixels high."""
        found = re.search(r'viewBox="0 0 ([\d.]+)', self.svg)
        return round(float(found[1])) if found else 0

    @property
    def kind(self) -> str:
        """How the page shows it: "" at any width, else it scrolls where there is no room for it."""
        return "" if self.width <= NARROW else "scrolls" if self.width <= WIDE else "scrolls wide"


@dataclass(frozen=True)
class Picture:
    """A picture as it is embedded in the page."""

    data: str  # data URI
    width: int  # pixels
    height: int
    title: str


def embedded(path: Path, title: str, quality: int = QUALITY) -> Picture:
    """Read a picture and make it small enough for a page."""
    return embedded_image(Image.fromarray(np.ascontiguousarray(read_image(path))), title, quality)


def embedded_image(picture: Image.Image, title: str, quality: int = QUALITY) -> Picture:
    """Make a picture, grey or in RGB, small enough for a page."""
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=quality, method=6)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return Picture(f"data:image/webp;base64,{data}", *picture.size, title)
