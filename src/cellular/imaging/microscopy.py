"""Microscopy: images of every format with what a microscope says of them."""

import io
import logging
import math
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

import numpy as np
import tifffile

from cellular.base.errors import InputError
from cellular.imaging.images import (
    SUFFIXES,
    TIFF,
    channels_last,
    check_axes,
    check_pixels,
    decode,
    reading_tiff,
    tiff_pixels,
)

MICROSCOPES = {".czi": "bioio_czi", ".nd2": "bioio_nd2", ".lif": "bioio_lif"}  # bioio's plug-ins
FORMATS = (*SUFFIXES, *MICROSCOPES)  # endings of the files that `read` reads
MOST_DIFFERENCE = 0.01  # of the two edges of a pixel that is called a square
MICROMETRES = {  # in a unit, as OME-XML and ImageJ write it; \u03bc is the Greek letter
    **{"pm": 1e-6, "Å": 1e-4, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "in": 25_400.0},
    **dict.fromkeys(("µm", "\u03bcm", r"\u00B5m", "um", "micron", "microns"), 1.0),
    **{"inch": 25_400.0},
}


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


@dataclass(frozen=True)
class _Stored:
    """An open image as its file stores it."""

    shape: tuple[int, ...]
    axes: str  # tifffile's letter for each axis
    pixels: Callable[[], np.ndarray]  # reads them
    named: bool = True  # see `channels_last`
    alpha: bool = False  # whether the last channel may say how opaque each pixel is
    channels: tuple[str, ...] = ()
    pixel_size: float | None = None


def read(
    path: Path,
    *,
    content: bytes | None = None,
    axes: str | None = None,
    channel_names: Sequence[str] = (),
) -> Image:
    """Read an image with any number of channels.

    PNG, JPEG and TIFF are read, with what ImageJ and OME-XML say in a TIFF. CZI, ND2 and LIF are
    read by bioio, which is the extra `formats`; tiles are put side by side. The names of channels
    are not known if one is missing or there twice. The pixel size is not known if its unit is no
    length, or if its edges differ by more than a hundredth; if they differ less it is their mean.

    Parameters
    ----------
    content : the bytes of the file, where it lies in an archive; `path` then only names it
    axes : a letter for each axis of the file's array, in place of those in the file: Y, X, and C or
        S for channels; other letters stand for axes of length 1
    channel_names : one for each channel, in place of those in the file

    Raises
    ------
    InputError
        If the file is missing, damaged, not of one of these formats, a stack, several images, or
        transparent, if it cannot be told which axis is channels, or if `axes` or `channel_names` do
        not fit to it.
    """
    path = Path(path)
    try:
        with _opened(path, content) as stored:
            letters = _letters(path, stored, axes)
            remedy = f"save each of them, or a projection, as a file{_proposal(stored)}"
            check_axes(path, stored.shape, letters, named=True, remedy=remedy)
            pixels = stored.pixels()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if letters.index("X") < letters.index("Y"):
        pixels = pixels.swapaxes(letters.index("X"), letters.index("Y"))
        letters = letters.translate({ord("X"): "Y", ord("Y"): "X"})
    pixels = channels_last(path, pixels, letters, named=True)
    check_pixels(path, pixels)
    if stored.alpha and axes is None:
        pixels = _opaque(path, pixels, stored)
    return Image(pixels, _names(path, pixels, channel_names, stored), stored.pixel_size)


def check_letters(axes: str) -> None:
    """Raise `InputError` unless `axes` can name those of an image: one Y, one X, at most one C."""
    letters = axes.upper()
    counts = {letter: letters.count(letter) for letter in "YXCS"}
    if not letters.isalpha() or counts["Y"] != 1 or counts["X"] != 1:
        raise InputError(f"axes {axes!r}: expected one Y and one X, as in CYX, YXC or YX")
    if counts["C"] + counts["S"] > 1:
        raise InputError(f"axes {axes!r}: two axes of channels (C or S), expected at most one")


def _opened(path: Path, content: bytes | None) -> AbstractContextManager[_Stored]:
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path}: no image that can be read, expected {', '.join(FORMATS)}")
    if content is None and not path.is_file():
        raise InputError(f"{path}: no such image file")
    if suffix in MICROSCOPES:
        return _opened_by_bioio(path, content)
    return _opened_tiff(path, content) if suffix in TIFF else _decoded(path, content)


@contextmanager
def _decoded(path: Path, content: bytes | None) -> Iterator[_Stored]:
    pixels = decode(path, path.read_bytes() if content is None else content)
    alpha = pixels.ndim == 3 and pixels.shape[2] == 4
    yield _Stored(pixels.shape, "YXC"[: pixels.ndim], lambda: pixels, alpha=alpha)


@contextmanager
def _opened_tiff(path: Path, content: bytes | None) -> Iterator[_Stored]:
    file = path.open("rb") if content is None else io.BytesIO(content)
    with file, reading_tiff(path, file) as tiff:
        series, *others = tiff.series
        count = 1 + sum(not each.keyframe.is_reduced for each in others)  # without thumbnails
        if count > 1:
            raise InputError(f"{path}: {count} images, expected one; save each of them as a file")
        if any(page is None for page in series.pages):
            raise InputError(f"{path}: planes are missing, or in other files; save all in one file")
        said = _of_ome if tiff.is_ome else _of_imagej  # which says nothing of other files
        channels, pixel_size = said(tiff)
        page = series.keyframe
        inks = page.photometric == tifffile.PHOTOMETRIC.SEPARATED  # CMYK
        yield _Stored(
            series.shape,
            series.axes,
            lambda: tiff_pixels(path, tiff),
            tiff.is_imagej or tiff.is_ome,
            alpha=inks or any(extra in (1, 2) for extra in page.extrasamples),
            channels=channels,
            pixel_size=pixel_size,
        )


def _of_ome(tiff: tifffile.TiffFile) -> tuple[tuple[str, ...], float | None]:
    """Return the names of the channels and the pixel size that OME-XML gives of its first image."""
    pixels = ElementTree.fromstring(tiff.ome_metadata or "").find("{*}Image/{*}Pixels")
    if pixels is None:
        return (), None
    y, x = (
        float(pixels.get(f"PhysicalSize{axis}", "nan"))
        * MICROMETRES.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"), math.nan)
        for axis in "YX"
    )
    return tuple(each.get("Name", "") for each in pixels.findall("{*}Channel")), _edge(y, x)


def _of_imagej(tiff: tifffile.TiffFile) -> tuple[tuple[str, ...], float | None]:
    """Return the names of the channels and the pixel size that ImageJ wrote."""
    said = tiff.imagej_metadata or {}
    unit = MICROMETRES.get(str(said.get("unit")), math.nan)
    y, x = (unit / each if each else math.nan for each in tiff.series[0].keyframe.resolution[::-1])
    return tuple(" ".join(str(label).split()) for label in said.get("Labels", ())), _edge(y, x)


def _edge(y: float, x: float) -> float | None:
    """Return the edge of a square pixel, from two in µm; None if they are unknown or differ."""
    known = 0 < y < math.inf and 0 < x < math.inf  # not so for NaN
    return (y + x) / 2 if known and abs(y - x) <= MOST_DIFFERENCE * max(y, x) else None


@contextmanager
def _opened_by_bioio(path: Path, content: bytes | None) -> Iterator[_Stored]:
    suffix = path.suffix.lower()
    open_image = _bioio(path)
    with _on_disk(path, content) as file:
        try:
            image = open_image(file)
            if (count := _scenes(image, file)) != 1:
                raise InputError(
                    f"{path}: {count} images (scenes), expected one; save each of them as a file, "
                    "such as OME-TIFF"
                )
            size = image.physical_pixel_sizes
            y, x = size.Y or math.nan, size.X or math.nan
            if suffix == ".nd2" and y == x == 1:  # what nd2 gives where the file has no calibration
                y = x = math.nan
            axes = "".join(
                axis for axis in image.dims.order if axis in "YX" or image.dims[axis][0] > 1
            )
            yield _Stored(
                tuple(image.dims[axis][0] for axis in axes),
                axes,
                lambda: image.get_image_data(axes),
                channels=tuple(map(str, image.channel_names or ())),
                pixel_size=_edge(y, x),
            )
        except InputError:
            raise
        except Exception as error:  # each plug-in raises its own
            reason = textwrap.shorten(str(error) or type(error).__name__, 300)
            raise InputError(
                f"{path}: no readable {suffix} file, or cut short ({reason}); fetch it again"
            ) from None


def _bioio(path: Path) -> Callable[[Path], Any]:
    """Return what opens files with the suffix of `path`."""
    suffix = path.suffix.lower()
    try:
        bioio, plugin = import_module("bioio"), import_module(MICROSCOPES[suffix])
    except ImportError as error:
        raise InputError(
            f"{path}: {suffix} files need the extra formats ({error}); install it with "
            "make extras, or pip install '.[formats]'"
        ) from None
    logging.getLogger("bioio").setLevel(logging.ERROR)  # its warning only repeats the error
    return partial(bioio.BioImage, reader=plugin.Reader)


def _scenes(image: Any, file: Path) -> int:
    """Return the number of scenes in a file that bioio has opened."""
    if file.suffix.lower() != ".czi":
        return len(image.scenes)
    # bioio counts the scenes of a CZI in metadata that not every program writes.
    shapes = import_module("aicspylibczi").CziFile(file).get_dims_shape()
    return len({scene for shape in shapes for scene in range(*shape.get("S", (0, 1)))})


@contextmanager
def _on_disk(path: Path, content: bytes | None) -> Iterator[Path]:
    """Give the path of a file; bioio reads no bytes in memory."""
    if content is None:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        file.write_bytes(content)
        yield file


def _letters(path: Path, stored: _Stored, given: str | None) -> str:
    """Return a letter for each axis: the given ones, those in the file, or what can be told.

    It can be told where just one of three axes is shorter than 5, and is the first or the last.
    """
    if given is not None:
        check_letters(given)
        if len(given) != len(stored.shape):
            raise InputError(
                f"{path}: {len(stored.shape)} axes of the lengths {stored.shape}, but --axes "
                f"{given} names {len(given)}; give a letter for each"
            )
        return given.upper()
    long = [axis for axis, count in zip(stored.axes, stored.shape, strict=True) if count > 1]
    if stored.named or not {"Q", "I"}.intersection(long):
        return stored.axes
    sizes = [count for count in stored.shape if count > 1]
    short = [place for place, count in enumerate(sizes) if count < 5]
    if len(sizes) == 2:
        return _spread("YX", stored.shape)
    if len(sizes) == 3 and short in ([0], [2]):
        return _spread("CYX" if short == [0] else "YXC", stored.shape)
    raise InputError(
        f"{path}: shape {stored.shape}, and the file does not say what the axes are; save each "
        f"plane as a file{_proposal(stored)}"
    )


def _spread(letters: str, shape: tuple[int, ...]) -> str:
    """Return the letters on the axes longer than 1, and Z on the others."""
    left = iter(letters)
    return "".join(next(left) if count > 1 else "Z" for count in shape)


def _proposal(stored: _Stored) -> str:
    """Return what to say of `--axes`, if one of three axes may be channels; else nothing."""
    if sum(count > 1 for count in stored.shape) != 3:
        return ""
    proposed = _spread("CYX", stored.shape)
    if not stored.named and "Q" in stored.axes:  # not even Y and X are known
        proposed += f" or {_spread('YXC', stored.shape)}"
    return f"; or, if one axis is channels, give --axes {proposed}"


def _opaque(path: Path, pixels: np.ndarray, stored: _Stored) -> np.ndarray:
    """Return an image without its last channel, which has to be one value everywhere."""
    if (pixels[..., -1] != pixels[0, 0, -1]).any():
        raise InputError(
            f"{path}: transparent parts or CMYK, expected grey, RGB or channels; save it as one "
            f"of these, or, if the last is a channel like the others, give --axes {stored.axes}"
        )
    pixels = pixels[..., :-1]
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def _names(
    path: Path, pixels: np.ndarray, given: Sequence[str], stored: _Stored
) -> tuple[str, ...]:
    """Return the names of the channels: those that were given, or those in the file, or ()."""
    count = pixels.shape[2] if pixels.ndim == 3 else 1
    if given and (len(given) != count or len(set(given)) != count):
        raise InputError(
            f"{path}: {count} channels, but the names {', '.join(given)}; give {count} different "
            "names with --channel-names"
        )
    known = all(stored.channels) and len(set(stored.channels)) == len(stored.channels) == count
    return tuple(given) or (stored.channels if known else ())
