"""Pictures: fields in grey below coloured lines, as PNGs with a palette."""

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

STEP = 6  # between the grey levels that are used: half the bytes, and no visible difference
GAMMA, BRIGHTEST = 0.6, 0.7


def plane(image: np.ndarray) -> np.ndarray:
    """Return the mean of the channels of an image, (H, W) or (H, W, C): (H, W) float32."""
    return (image if image.ndim == 2 else image.mean(axis=2)).astype(np.float32)


def percentiles(image: np.ndarray) -> tuple[float, float]:
    """Return the 1st and 99th percentile of a field, of every eighth pixel each way."""
    low, high = np.percentile(plane(image[::8, ::8]), (1, 99))
    return float(low), float(high)


def grey(values: np.ndarray, ends: tuple[float, float], greys: int) -> np.ndarray:
    """Return a plane as grey levels, stretched between two percentiles as Cellpose does it.

    Dim cells are brightened, and the brightest stay below white, so that outlines can be seen on
    both.

    Parameters
    ----------
    values : (H, W)
    ends : what becomes black, and what becomes the brightest grey
    greys : number of grey levels in the palette, see `palette_image`

    Returns
    -------
    (H, W) uint8, indices into the palette
    """
    low, high = ends
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    return STEP * np.round(scaled**GAMMA * BRIGHTEST * (greys - 1) / STEP).astype(np.uint8)


def palette_image(indices: np.ndarray, colours: Iterable[tuple[int, int, int]]) -> Image.Image:
    """Return a picture whose palette is grey levels, black to white, and then the colours.

    Parameters
    ----------
    indices : (H, W) uint8; of n colours, the first has the index 256 - n
    colours : red, green and blue, 0 to 255
    """
    colours = list(colours)
    greys = 256 - len(colours)
    picture = Image.fromarray(indices)
    picture.putpalette(
        [round(level * 255 / (greys - 1)) for level in range(greys) for _ in "RGB"]
        + [value for colour in colours for value in colour]
    )
    return picture


def encode(picture: Image.Image) -> bytes:
    """Return a palette image as the bytes of a PNG; the same picture is the same bytes."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()
