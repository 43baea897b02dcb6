"""Real cells without their puncta, and puncta of known number, place, size and contrast in them."""

from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pandas as pd
import tifffile

from benchmarks._sample import CORNER, raw
from cellular.fetching import members
from cellular.imaging.images import read_labels
from cellular.measuring.puncta import NORMAL
from cellular.measuring.quality import background_of

PIXEL_SIZE = cast(float, members.PIXEL_SIZE)  # µm
SMOOTH = 3.0  # pixels; what is finer counts as noise, and is drawn anew
WIDEST = 25  # pixels; what is wider belongs to the cell
FAINTEST = 0.1  # of the level around it; half of the least contrast that is found, or less
NOISE = 3.0  # standard deviations of the smoothed noise
MARGIN = 6  # pixels between the middle of a spot and the edge of its cell
APART = 8.0  # pixels between two spots, at least, unless they are crowded
CROWDED = 3.0, 8.0  # pixels from a spot of a cluster to its nearest neighbour
IN_CLUSTER = 6  # spots
SIGMA = 1.2, 3.0  # pixels; full widths at half maximum of 0.5 to 1.2 µm


def real_fields(folder: Path, small: bool = False) -> list[tuple[np.ndarray, ...]]:
    """Return red, green, (H, W) float32 each, and the annotated label map of five time points.

    `small`: of the top left corner of each. `folder` is a new one, for the files of the sample.
    """
    source = raw(folder)
    part = slice(CORNER) if small else slice(None)
    fields = []
    for path in sorted((source / "masks").glob("*.tif")):
        names = (f"{path.stem}_w{number}.TIF" for number in (2, 1))
        channels = (tifffile.imread(source / "channels" / name) for name in names)
        cut = (channel[part, part].astype(np.float32) for channel in channels)
        fields.append((*cut, read_labels(path)[part, part]))
    return fields


def camera_of(channel: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the noise's variance over the grey value, in a channel.

    Photons give a straight line (Janesick, Photon Transfer, 2007); on the sample, it is one.
    """
    smooth = cv2.GaussianBlur(channel, (0, 0), SMOOTH)
    values = np.stack([smooth.ravel(), np.abs(channel - smooth).ravel()])[:, ::5]
    steps = np.array_split(values[:, np.argsort(values[0])], 50, axis=1)
    level, spread = np.array([np.median(step, axis=1) for step in steps], np.float64).T
    kept = 1 - 3 / (4 * np.pi * SMOOTH**2)  # of the variance, in what smoothing takes away
    variance = np.maximum((NORMAL * spread) ** 2 / kept, 1e-6)
    slope, intercept = np.polyfit(level, variance, 1, w=1 / variance)
    return float(slope), float(intercept)


def noise_at(level: np.ndarray, camera: tuple[float, float]) -> np.ndarray:
    """Return the standard deviation of the noise of pixels of that grey value."""
    return np.sqrt(np.maximum(camera[0] * level + camera[1], 0))


def emptied(channel: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Replace the puncta of all cells by what is around them, and draw the noise anew.

    What stands out by far less than the detector asks for goes, with the pixels around it. What
    stays is the cell's uneven brightness; the noise of another seed is another.

    Parameters
    ----------
    channel : (H, W) grey values
    labels : (H, W) label map

    Returns
    -------
    (H, W) float32, whole numbers from 0 on
    """
    camera = camera_of(channel)
    smooth = cv2.GaussianBlur(channel, (0, 0), SMOOTH)
    around = cv2.morphologyEx(smooth, cv2.MORPH_OPEN, _disc(WIDEST))
    around = cv2.GaussianBlur(around, (0, 0), SMOOTH)
    fine = noise_at(around, camera) / (2 * np.sqrt(np.pi) * SMOOTH)
    least = np.maximum(NOISE * fine, FAINTEST * (around - background_of(smooth, labels)))
    punctum = cv2.dilate((smooth - around > least).astype(np.uint8), _disc(5)) > 0
    level = np.where(punctum, around, smooth)
    return _drawn(level, noise_at(level, camera), np.random.default_rng(seed))


def planted(
    red: np.ndarray,
    green: np.ndarray,
    labels: np.ndarray,
    counts: np.ndarray | int,
    red_only: np.ndarray | float,
    contrast: tuple[float, float],
    seed: int,
    crowded: bool = False,
    sigma: tuple[float, float] = SIGMA,
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Plant Gaussian spots in the red channel, and the same ones in green unless they are red only.

    Parameters
    ----------
    red, green : (H, W) grey values, as `emptied` returns them
    labels : (H, W) label map
    counts : (cells,) by label, or one number for all; where a cell has no room, there are fewer
    red_only : share of the spots that are not planted in green; (cells,) by label, or one for all
    contrast : least and most height of a spot, divided by what the channel is above the field's
        background around it; both channels have the same
    crowded : in clusters, with `CROWDED` pixels from one to the next; otherwise, at least `APART`
    sigma : pixels, least and most standard deviation of a spot

    Returns
    -------
    red and green, and a row for each spot: label, y, x, sigma, contrast, double (bool), and its
    height in standard deviations of the noise, snr_red and snr_green (0 if it is not there)
    """
    random = np.random.default_rng(seed)
    spots = _places(labels, counts, crowded, random)
    of_cell = np.unique(labels[labels > 0])
    share = np.broadcast_to(red_only, of_cell.shape)[np.searchsorted(of_cell, spots["label"])]
    spots["sigma"] = random.uniform(*sigma, len(spots))
    spots["contrast"] = random.uniform(*contrast, len(spots))
    spots["double"] = random.random(len(spots)) >= share
    channels = []
    for name, channel, there in (("red", red, True), ("green", green, spots["double"])):
        camera = camera_of(channel)
        smooth = cv2.GaussianBlur(channel, (0, 0), SMOOTH)
        level = smooth[spots["y"].round().astype(int), spots["x"].round().astype(int)]
        height = spots["contrast"] * np.maximum(level - background_of(smooth, labels), 0) * there
        spots[f"snr_{name}"] = height / noise_at(level, camera)
        light = _light(channel.shape, spots, height.to_numpy())
        channels.append(_drawn(channel + light, noise_at(light, (camera[0], 0.0)), random))
    return channels[0], channels[1], spots


def _disc(width: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))


def _drawn(level: np.ndarray, noise: np.ndarray, random: np.random.Generator) -> np.ndarray:
    values = level + noise * random.standard_normal(level.shape, dtype=np.float32)
    return np.clip(np.rint(values), 0, np.iinfo(np.uint16).max).astype(np.float32)


def _light(shape: tuple[int, ...], spots: pd.DataFrame, heights: np.ndarray) -> np.ndarray:
    """Return the sum of the spots: (H, W) float32."""
    light = np.zeros(shape, np.float32)
    for y, x, sigma, height in zip(spots["y"], spots["x"], spots["sigma"], heights, strict=True):
        reach = int(np.ceil(4 * sigma))
        top, left = max(0, round(y) - reach), max(0, round(x) - reach)
        part = light[top : round(y) + reach + 1, left : round(x) + reach + 1]
        down, across = (np.arange(side) for side in part.shape)
        part += height * np.outer(
            np.exp(-(((down + top - y) / sigma) ** 2) / 2),
            np.exp(-(((across + left - x) / sigma) ** 2) / 2),
        ).astype(np.float32)
    return light


def _places(
    labels: np.ndarray, counts: np.ndarray | int, crowded: bool, random: np.random.Generator
) -> pd.DataFrame:
    """Return label, y and x of spots in the middle of pixels that lie deep enough in a cell."""
    reach = np.ones((2 * MARGIN + 1, 2 * MARGIN + 1), np.uint8)
    framed = cv2.copyMakeBorder(
        labels.astype(np.float32), *(MARGIN,) * 4, cv2.BORDER_CONSTANT, value=[0.0]
    )
    same = (cv2.erode(framed, reach) == cv2.dilate(framed, reach))[MARGIN:-MARGIN, MARGIN:-MARGIN]
    inner = np.where(same, labels, 0)
    cells = np.unique(labels[labels > 0])
    places = np.flatnonzero(inner)
    places = places[np.argsort(inner.ravel()[places], kind="stable")]
    bounds = np.searchsorted(inner.ravel()[places], cells)
    rows = []
    for cell, count, own in zip(
        cells, np.broadcast_to(counts, cells.shape), np.split(places, bounds[1:]), strict=True
    ):
        y, x = np.divmod(random.permutation(own), labels.shape[1])
        chosen = _choose(np.stack([y, x], axis=1), int(count), crowded)
        rows += [(cell, *place) for place in chosen]
    return pd.DataFrame(rows, columns=["label", "y", "x"]).astype(
        {"label": int, "y": float, "x": float}
    )


def _choose(candidates: np.ndarray, count: int, crowded: bool) -> np.ndarray:
    """Take candidates, (n, 2) in a random order, one after the other, as far as there is room."""
    chosen: list[np.ndarray] = []
    while len(chosen) < count and len(candidates):
        in_cluster = crowded and len(chosen) % IN_CLUSTER
        near = slice(-in_cluster, None) if in_cluster else slice(None)
        least, most = CROWDED if in_cluster else (APART, np.inf)
        distance = np.full(len(candidates), np.inf)
        for place in chosen[near]:
            distance = np.minimum(distance, np.hypot(*(candidates - place).T))
        fits = np.flatnonzero((distance >= least) & (distance <= most) | (not chosen))
        if not fits.size:
            break
        chosen.append(candidates[fits[0]])
    return np.array(chosen).reshape(-1, 2)
