"""Small fields of the reporter: round cells with spots in red, some of which are green, too."""

from pathlib import Path

import numpy as np
import tifffile

from cellular.imaging.images import write_labels
from helpers.annotations import write_png

SIDE, RADIUS = 128, 22
CENTRES = ((32, 32), (32, 96), (96, 32), (96, 96))
PIXEL_SIZE = 0.17  # µm
BACKGROUND, LEVEL, SPOT, NOISE = 100, 200, 400, 4  # grey values; the last is the spread


def labels_of(radius: int = RADIUS) -> np.ndarray:
    """Return four round cells, (SIDE, SIDE) uint16."""
    y, x = np.ogrid[:SIDE, :SIDE]
    labels = np.zeros((SIDE, SIDE), np.uint16)
    for number, (row, column) in enumerate(CENTRES, start=1):
        labels[(y - row) ** 2 + (x - column) ** 2 <= radius**2] = number
    return labels


def channels_of(spots: int, red_only: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return red and green, (SIDE, SIDE) uint16, with so many spots in each cell, far apart."""
    random = np.random.default_rng(seed)
    inside = np.where(labels_of() > 0, LEVEL, 0).astype(float)
    red, green = BACKGROUND + inside, BACKGROUND + inside
    y, x = np.ogrid[:SIDE, :SIDE]
    for row, column in CENTRES:
        for number in range(spots):
            angle = 2 * np.pi * number / max(spots, 1)
            there = (y - row - 12 * np.sin(angle)) ** 2 + (x - column - 12 * np.cos(angle)) ** 2
            spot = SPOT * np.exp(-there / (2 * 1.5**2))
            red += spot
            green += spot if number >= red_only else 0
    noise = random.normal(0, NOISE, (2, SIDE, SIDE))
    red, green = np.clip(np.stack([red, green]) + noise, 0, 65535).round().astype(np.uint16)
    return red, green


def write_channels(folder: Path, field: str, planes: tuple[np.ndarray, np.ndarray]) -> None:
    """Write red and green as CELLULAR names them."""
    folder.mkdir(parents=True, exist_ok=True)
    for wave, plane in zip(("w2", "w1"), planes, strict=True):
        tifffile.imwrite(folder / f"{field}_{wave}.TIF", plane)


def write_annotated(folder: Path, field: str, labels: np.ndarray) -> None:
    """Write a prepared field: a picture, which nobody measures, and its label map."""
    write_png(folder / f"{field}.png", np.zeros(labels.shape, np.uint8) + 9)
    write_labels(folder / f"{field}_masks.png", labels)
