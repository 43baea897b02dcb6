"""Inputs: what the network sees of an image, and images that it cannot see."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cellular.base.errors import InputError
from cellular.imaging.fields import SMALLEST_SIDE, channels_of
from cellular.network.segmentation import check_large_enough
from cellular.network.settings import Settings


def seen_planes(where: object, pixels: np.ndarray, channels: Sequence[int]) -> np.ndarray:
    """Return the plane, or the two planes, of an image that the network sees.

    Cellpose would choose them itself, but from six channels on it takes them for planes in depth.

    Parameters
    ----------
    where : the image is; it goes into errors
    pixels : (H, W) or (H, W, C)
    channels : Cellpose's pair, the channel to segment and the nuclear one; 0 is grey, and none

    Returns
    -------
    (H, W) or (H, W, 2), for the settings of `of_planes`

    Raises
    ------
    InputError
        If the image lacks a channel, or has less than 10 pixels a side.
    """
    count = pixels.shape[2] if pixels.ndim == 3 else 1
    chosen = channels_of(pixels, channels)
    if max(chosen) > count:
        raise InputError(
            f"{where}: {count} channels, without channel {max(chosen)} that the model is to see; "
            f"choose among 0 (grey) to {min(count, 3)} with --channels"
        )
    height, width = pixels.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        raise InputError(
            f"{where}: {width} x {height} pixels, expected {SMALLEST_SIDE} a side at least"
        )
    if pixels.ndim == 2:
        return pixels
    if chosen == [0]:
        return pixels.astype(np.float32).mean(axis=2)  # as Cellpose does
    return pixels[..., [number - 1 for number in chosen]].squeeze()


def of_planes(settings: Settings) -> Settings:
    """Return the settings for images from `seen_planes`."""
    return replace(settings, channels=(1, 2))


def check_scaled(where: object, pixels: np.ndarray, scale: float) -> None:
    """Raise `InputError` if nothing is left of an image when it is resized by `scale`."""
    try:
        check_large_enough(pixels, scale)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
