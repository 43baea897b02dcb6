"""Crops: pieces of fields, at random places, rotated, flipped and scaled, for a training step.

`cellpose.transforms.random_rotate_and_resize` copies whole fields in memory for every crop. Here
its random numbers are drawn first, in its order, and only the pixels that a crop shows are read,
from fields that are mapped from disk, by several threads ahead of the network. The values are the
same (tests/training/test_crops.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from cellular.base.queues import cores, in_order
from cellular.imaging.trainingset import TrainingField
from cellular.training.params import TrainParams

SCALE_RANGE = {True: 0.5, False: 1.0}  # Cellpose's range of random sizes, with and without rescale
AHEAD = 4  # batches that are prepared before the network needs them
PASTED_SIZES = (0.5, 1)  # of pasted cells, relative to their size in other crops
MOST_PASTED = 4  # cells on one crop
EDGE = 0.025  # of a cell's diameter: standard deviation of the blur at the edge of a pasted cell
MARGIN = 2  # pixels around the corners of a crop, for interpolation and rounding

Batch = tuple[np.ndarray, np.ndarray]  # (n, channels, S, S) images; (n, 3, S, S) cell and flows


@dataclass(frozen=True)
class Crop:
    """The place of a crop."""

    field: int  # index of its field
    flip: bool  # left and right exchanged, before the rotation
    angle: float  # radians
    matrix: np.ndarray  # (2, 3), from pixels of the (flipped) field to pixels of the crop
    seed: tuple[int, int]  # decides what is pasted on it


class Crops:
    """Random crops of the fields of a training set."""

    def __init__(self, fields: Sequence[TrainingField], params: TrainParams, count: int | None):
        """Choose `count` crops an epoch at random; None: one of each field."""
        self.fields = fields
        self.params = params
        self.count = count or len(fields)

    def plan(self, seed: int) -> list[Crop]:
        """Return the crops of an epoch. Their random numbers are drawn in Cellpose's order."""
        random = np.random.RandomState(seed)
        total = len(self.fields)
        if self.count == total:
            order = random.permutation(total)
        else:
            chances = np.full(total, 1 / total)
            order = random.choice(total, self.count, p=chances / chances.sum())
        return [self._place(int(index), random, (seed, n)) for n, index in enumerate(order)]

    def _place(
        self, index: int, random: np.random.RandomState, seed: tuple[int, int], zoom: float = 1
    ) -> Crop:
        """Draw the place of a crop as `random_rotate_and_resize` of cellpose 3.1.1.3 does."""
        params, field = self.params, self.fields[index]
        height, width = field.shape
        size = params.crop_size
        spread = SCALE_RANGE[params.rescale] if params.scale_range is None else params.scale_range
        flip = bool(random.rand() > 0.5)
        angle = random.rand() * np.pi * 2
        scale = np.float32((1 - spread / 2) + spread * random.rand())
        if params.rescale:
            # Multiplied in double precision and then rounded, as in Cellpose.
            scale = np.float32(np.float64(scale) * (1.0 / (field.diameter / field.seen_diameter)))
        scale *= np.float32(zoom)
        room = np.maximum(0, np.array([width * scale - size, height * scale - size]))
        shift = (random.rand(2) - 0.5) * room
        centre = np.array([width / 2, height / 2])
        target = centre - np.array([width - size, height - size]) / 2 + shift
        right = np.array([np.cos(angle), np.sin(angle)])
        down = np.array([np.cos(np.pi / 2 + angle), np.sin(np.pi / 2 + angle)])
        matrix = cv2.getAffineTransform(
            np.array([centre, centre + np.array([1, 0]), centre + np.array([0, 1])], np.float32),
            np.array([target, target + scale * right, target + scale * down], np.float32),
        )
        return Crop(index, flip and params.flip, angle, matrix, seed)

    def cut(self, crops: Sequence[Crop]) -> Batch:
        """Return the pixels of crops: their images, and what the network is to predict of them."""
        images, targets = zip(*map(self._cut, crops), strict=True)
        return np.stack(images), np.stack(targets)

    def _pixels(self, crop: Crop) -> tuple[np.ndarray, np.ndarray]:
        """Return a crop's image, (n, S, S), and targets, (3, S, S), before anything is pasted."""
        size = self.params.crop_size
        field = self.fields[crop.field]
        window, matrix = _window(crop, field.shape, size)
        planes = [field.image_at(window), field.flows_at(window)]
        if crop.flip:
            planes = [array[..., ::-1] for array in planes]
        image = np.stack([_warp(plane, matrix, size, cv2.INTER_LINEAR) for plane in planes[0]])
        cell, down, right = (
            _warp(plane, matrix, size, how)
            for plane, how in zip(
                planes[1], (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_LINEAR), strict=True
            )
        )
        # The flow vectors are flipped and rotated with the image.
        right = -right if crop.flip else right
        cosine, sine = np.cos(-crop.angle), np.sin(-crop.angle)
        targets = np.stack([cell, -right * sine + down * cosine, right * cosine + down * sine])
        return image, targets.astype(np.float32)

    def _labels(self, crop: Crop) -> np.ndarray:
        """Return the numbers of the cells on a crop, (S, S); 0: none."""
        field = self.fields[crop.field]
        window, matrix = _window(crop, field.shape, self.params.crop_size)
        labels = field.labels[window][:, :: -1 if crop.flip else 1]
        return _warp(labels, matrix, self.params.crop_size, cv2.INTER_NEAREST)

    def _cut(self, crop: Crop) -> tuple[np.ndarray, np.ndarray]:
        """Return a crop's image and targets, by chance with whole cells of another crop on top."""
        image, targets = self._pixels(crop)
        random = np.random.RandomState(crop.seed)
        if random.rand() >= self.params.paste_cells:
            return image, targets
        zoom = random.uniform(*PASTED_SIZES)
        other = self._place(random.randint(len(self.fields)), random, crop.seed, zoom)
        (cells, flows), labels = self._pixels(other), self._labels(other)
        edges = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        whole = np.setdiff1d(labels, [0, *edges])
        chosen = random.permutation(whole)[: 1 + random.randint(MOST_PASTED)]
        shown = np.isin(labels, chosen)
        # Without a soft edge, the network would learn to find cells by it.
        blur = EDGE * self.fields[other.field].seen_diameter
        opaque = cv2.GaussianBlur(shown.astype(np.float32), (0, 0), blur)
        return image + opaque * (cells - image), np.where(shown, flows, targets)

    def batches(
        self, seed: int, *, size: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Give the batches of an epoch from number `start` on, made ahead by threads.

        Of a batch of `size` crops, process `rank` of `world` gets its own equal part.
        """
        plan = self.plan(seed)
        batches = [plan[first : first + size] for first in range(0, len(plan), size)][start:]
        yield from in_order(
            lambda batch: self.cut(batch[rank::world]),
            batches,
            threads=min(AHEAD, cores()),
            ahead=AHEAD,
        )


def _window(
    crop: Crop, shape: tuple[int, int], size: int
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return the window of its field that a crop shows, and where its pixels lie in that window.

    The matrix (2, 3) maps pixels of the crop to pixels of the window (flipped, if the crop is).
    """
    height, width = shape
    inverse = cv2.invertAffineTransform(crop.matrix)
    ends = np.array([[x, y] for x in (0, size - 1) for y in (0, size - 1)])
    corners = ends @ inverse[:, :2].T + inverse[:, 2]
    first = np.floor(corners.min(axis=0)).astype(int) - MARGIN
    last = np.ceil(corners.max(axis=0)).astype(int) + MARGIN + 1
    (left, top), (right, bottom) = (
        np.clip(first, 0, [width - 1, height - 1]),
        np.clip(last, 1, [width, height]),
    )
    moved = np.array(inverse, np.float64)
    moved[:, 2] -= [left, top]
    if crop.flip:
        left, right = width - right, width - left
    return (slice(top, bottom), slice(left, right)), moved


def _warp(plane: np.ndarray, matrix: np.ndarray, size: int, how: int) -> np.ndarray:
    return cv2.warpAffine(plane, matrix, (size, size), flags=how | cv2.WARP_INVERSE_MAP)
