"""Overlays: outlines on the image, coloured by what the model found, missed and invented."""

import io

import cv2
import numpy as np
from PIL import Image
from skimage.segmentation import find_boundaries

from cellular.scores import overlaps

SIDE = 768  # pixels; enough to judge a cell of 120 px in a field of 2048, small enough for git
IOU = 0.5
# Okabe and Ito's colours, told apart by colour-blind readers (jfly.uni-koeln.de/color).
FOUND, PREDICTED, MISSED, INVENTED = (0, 158, 115), (255, 255, 255), (230, 159, 0), (204, 121, 167)
COLOURS = (FOUND, PREDICTED, MISSED, INVENTED)
GREYS = 256 - len(COLOURS)
GAMMA, BRIGHTEST = 0.6, 0.7
CAPTION = 34  # pixels of the strip below the image


def draw(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> Image.Image:
    """Draw true and predicted outlines on a field.

    A true cell that is matched at IoU 0.5 is green, its prediction white; a missed cell orange, an
    invented one pink.

    Parameters
    ----------
    image : (H, W) or (H, W, C)
    truth, predicted : (H, W) label maps, numbered 1 to n

    Returns
    -------
    palette image, its longer side at most 768 pixels, with a caption below
    """
    matched = overlaps(truth, predicted) >= IOU
    true_found = np.concatenate([[False], matched.any(axis=1)])
    predicted_found = np.concatenate([[False], matched.any(axis=0)])
    scale = min(1.0, SIDE / max(truth.shape))
    size = (round(truth.shape[1] * scale), round(truth.shape[0] * scale))
    canvas = _grey(cv2.resize(_plane(image), size, interpolation=cv2.INTER_AREA))
    for labels, found, colours in (
        (predicted, predicted_found, (PREDICTED, INVENTED)),
        (truth, true_found, (FOUND, MISSED)),
    ):
        small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
        edge = find_boundaries(small, mode="inner")
        for chosen, colour in ((found[small], colours[0]), (~found[small], colours[1])):
            canvas[edge & chosen] = GREYS + COLOURS.index(colour)
    counts = (
        (FOUND, f"{np.count_nonzero(true_found)} found (prediction white)"),
        (MISSED, f"{np.count_nonzero(~true_found[1:])} missed"),
        (INVENTED, f"{np.count_nonzero(~predicted_found[1:])} invented"),
    )
    picture = Image.fromarray(np.vstack([canvas, _caption(size[0], counts)]))
    picture.putpalette(
        [round(level * 255 / (GREYS - 1)) for level in range(GREYS) for _ in "RGB"]
        + [value for colour in COLOURS for value in colour]
    )
    return picture


def encode(picture: Image.Image) -> bytes:
    """Return a palette image as the bytes of a PNG; the same picture is the same bytes."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _plane(image: np.ndarray) -> np.ndarray:
    return (image if image.ndim == 2 else image.mean(axis=2)).astype(np.float32)


def _grey(plane: np.ndarray) -> np.ndarray:
    """Return the plane as grey levels, from its 1st to its 99th percentile, as Cellpose sees it.

    Dim cells are lifted, and the brightest stay below white, so that outlines are seen on both.
    """
    low, high = np.percentile(plane, (1, 99))
    scaled = np.clip((plane - low) / max(high - low, 1e-6), 0, 1)
    return np.round(scaled**GAMMA * BRIGHTEST * (GREYS - 1)).astype(np.uint8)


def _caption(width: int, counts: tuple) -> np.ndarray:
    strip = np.zeros((CAPTION, width), np.uint8)
    left = 10
    for colour, text in counts:
        index = GREYS + COLOURS.index(colour)
        cv2.rectangle(strip, (left, 10), (left + 14, 24), index, cv2.FILLED)
        cv2.putText(strip, text, (left + 22, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.5, GREYS - 1, 1)
        left += 40 + cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0]
    return strip
