"""Tiles: the squares that a field is cut into for the network, and joined from again.

`cellpose.core.run_net` cuts, computes and joins one image. Here the steps are separate, so that
a thread can cut the next image meanwhile. Cellpose's own functions cut, weight and join the tiles.
"""

from dataclasses import dataclass

import numpy as np
from cellpose import transforms

SIDE = 224  # pixels of a tile, as in Cellpose
OVERLAP = 0.1  # part of a tile that its neighbour covers too; with augmentation it is a half


@dataclass(frozen=True)
class Tiles:
    """The tiles of one field."""

    tiles: np.ndarray  # (n, C, h, w) float32
    tops: list  # rows of each tile, as Cellpose's make_tiles returns them
    lefts: list  # columns of each tile
    padded: tuple[int, int]  # height and width of the padded field
    place: tuple[slice, slice]  # of the field in it
    grid: tuple[int, int] | None  # rows and columns of tiles, if they are mirrored in turn


def cut(image: np.ndarray, scale: float, augment: bool) -> Tiles:
    """Scale an image, (H, W, C) float32, and cut it into tiles.

    With `augment` tiles overlap by half and are mirrored in turn.
    """
    if scale != 1:
        image = transforms.resize_image(image, rsz=[scale, scale])
    height, width = image.shape[:2]
    above, below, left, right = transforms.get_pad_yx(*image.shape[:2])
    padded = np.pad(image.transpose(2, 0, 1), ((0, 0), (above, below), (left, right)))
    tiles, tops, lefts, *size = transforms.make_tiles(
        padded, bsize=SIDE, augment=augment, tile_overlap=OVERLAP
    )
    grid = tiles.shape[:2] if augment else None
    return Tiles(
        np.ascontiguousarray(tiles.reshape(-1, *tiles.shape[-3:]), np.float32),
        tops,
        lefts,
        tuple(size),
        (slice(above, above + height), slice(left, left + width)),
        grid,
    )


def join(cut_up: Tiles, outputs: np.ndarray) -> np.ndarray:
    """Join the outputs for the tiles, (n, 3, h, w), to those of the field, (3, height, width)."""
    if cut_up.grid is not None:
        mirrored = outputs.reshape(*cut_up.grid, *outputs.shape[1:])
        outputs = transforms.unaugment_tiles(mirrored).reshape(outputs.shape)
    joined = transforms.average_tiles(outputs, cut_up.tops, cut_up.lefts, *cut_up.padded)
    return joined[(slice(None), *cut_up.place)]
