"""Arrays: segmentation from Python, without files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellular.base import devices
from cellular.base.errors import InputError
from cellular.base.params import validate
from cellular.imaging.images import check_pixels
from cellular.imaging.microscopy import Image
from cellular.measuring.tables import COLUMNS, table_of
from cellular.models.folders import open_model
from cellular.models.params import ModelParams
from cellular.network.segmentation import load_model, scale_of, segment_all
from cellular.network.settings import Settings
from cellular.segmenting.inputs import check_scaled, of_planes, seen_planes


def segment_arrays(
    images: np.ndarray | Sequence[np.ndarray],
    model: Path | str,
    *,
    pixel_size: float | None = None,
    device: str = "auto",
    **settings: Any,
) -> tuple[list[np.ndarray], pd.DataFrame]:
    """Find the cells in arrays; `cellular.segment` is this function.

    Parameters
    ----------
    images : one image, (H, W) or (H, W, C), or a sequence of images; of any number type
    model : folder of a model, or a weights file
    pixel_size : edge of a pixel in µm
    settings : channels, diameter, flow_threshold, cellprob_threshold, augment, resample,
        batch_size or precision, in place of the model's (`cellular.models.params.ModelParams`)

    Returns
    -------
    label maps : of each image (H, W) uint16 (uint32 above 65,535 cells), numbered 1 to n
    cells : a row for each cell: the number of its image, from 0 on, and the columns of
        cells.csv (`cellular.measuring.tables.table_of`)

    Raises
    ------
    InputError
        If there is no such model, a setting has a wrong name or value, or an image is none that the
        model can see.

    Examples
    --------
    >>> labels, cells = cellular.segment(image, "models/finetuned")  # doctest: +SKIP
    """
    opened = open_model(Path(model), given=settings)
    chosen = validate(ModelParams, opened.defaults | settings, "cellular.segment").settings()
    several = [images] if isinstance(images, np.ndarray) and images.ndim < 4 else list(images)
    network = load_model(opened.weights, devices.choose(device))
    scale = scale_of(network, chosen)
    planes = [_planes(number, image, chosen, scale) for number, image in enumerate(several)]
    maps = list(segment_all(network, planes, of_planes(chosen)))
    columns = dict.fromkeys(["image", *COLUMNS])
    tables = []
    for number, (labels, image) in enumerate(zip(maps, several, strict=True)):
        table = table_of(labels, Image(image), pixel_size)
        table.insert(0, "image", number)
        columns |= dict.fromkeys(map(str, table))
        tables += [table] if len(table) else []  # pandas warns of empty ones
    cells = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return maps, cells.reindex(columns=list(columns))


def _planes(number: int, image: np.ndarray, settings: Settings, scale: float) -> np.ndarray:
    """Return what the network sees of an image, or raise `InputError`."""
    where = f"image {number}"
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"{where}: {type(image).__name__}, expected an array; read a file with "
            "cellular.imaging.images.read_image, or give its path to src/segment.py"
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] > min(image.shape[:2])):
        raise InputError(
            f"{where}: shape {image.shape}, expected (H, W), or (H, W, C) with the channels last; "
            "give several images as a list"
        )
    check_pixels(Path(where), image)
    planes = seen_planes(where, image, settings.channels)
    check_scaled(where, planes, scale)
    return planes
