"""Arrays: segmentation from Python, without files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellular.base import devices
from cellular.base.params import validate
from cellular.imaging.microscopy import Image
from cellular.models.folders import open_model
from cellular.models.params import ModelParams
from cellular.network.segmentation import load_model, segment_all
from cellular.segmenting.tables import table_of


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
    settings : fields of `cellular.models.params.ModelParams`, in place of the model's

    Returns
    -------
    label maps : of each image (H, W) uint16 (uint32 above 65,535 cells), numbered 1 to n
    cells : a row for each cell: the number of its image, from 0 on, and the columns of
        `cellular.segmenting.tables.table_of`

    Raises
    ------
    InputError
        If there is no such model, or a setting has a wrong name or value.

    Examples
    --------
    >>> labels, cells = cellular.segment(image, "models/finetuned")  # doctest: +SKIP
    """
    opened = open_model(Path(model), given=settings)
    params = validate(ModelParams, opened.defaults | settings, "cellular.segment")
    several = [images] if isinstance(images, np.ndarray) and images.ndim < 4 else list(images)
    network = load_model(opened.weights, devices.choose(device))
    maps = list(segment_all(network, several, params.settings()))
    tables = [
        table_of(labels, Image(image), pixel_size).assign(image=number)
        for number, (labels, image) in enumerate(zip(maps, several, strict=True))
    ]
    cells = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return maps, cells[["image", *(name for name in cells if name != "image")]]
