"""Segmentation: a model finds the cells of an image."""

from pathlib import Path

import numpy as np
import torch
from cellpose.models import CellposeModel

from cellular import weights
from cellular.masks import relabel
from cellular.params import SegmentParams
from cellular.tones import correct


def load_model(path: Path, device: torch.device) -> CellposeModel:
    """Return Cellpose's model with the weights at `path`.

    Cellpose turns a path that does not exist into another model, and loads what fits of a file;
    so the file is checked first.
    """
    weights.load(Path(path))
    # Cellpose builds sparse tensors without saying whether to check them, and PyTorch warns of it.
    torch.sparse.check_sparse_tensor_invariants.disable()
    return CellposeModel(pretrained_model=str(path), device=device, gpu=device.type != "cpu")


def segment(model: CellposeModel, image: np.ndarray, params: SegmentParams) -> np.ndarray:
    """Find the cells of an image, (H, W) or (H, W, C): a label map, (H, W) uint16.

    These are the masks of `CellposeModel.eval` with the same settings, of the image with corrected
    gamma.
    """
    found, _, _ = model.eval(
        correct(image, params.gamma),
        channels=list(params.channels),
        diameter=params.diameter,
        resample=params.resample,
        flow_threshold=params.flow_threshold,
        cellprob_threshold=params.cellprob_threshold,
        augment=params.augment,
        batch_size=params.batch_size,
    )
    return relabel(np.asarray(found).reshape(image.shape[:2]), "prediction")
