"""Segmentation: a model finds the cells in images.

Cellpose's own `eval` takes one image at a time and, by default, traces every pixel of the enlarged
flows. Here threads read the next image and trace the last one while the network runs, and cells are
traced at the network's scale. With `resample: true` the label maps come from Cellpose's own `eval`.
"""

# First, since cellpose.models imports cellpose.dynamics.
from cellular.base.compiled import dynamics  # isort: skip
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from cellpose import transforms
from cellpose.models import CellposeModel

from cellular.base.devices import choose_precision, tensor_float_32
from cellular.base.errors import InputError
from cellular.base.queues import in_order
from cellular.imaging.masks import numbered
from cellular.network import weights
from cellular.network.settings import Settings
from cellular.network.tiles import Tiles, cut, join

AHEAD = 2  # images that are read before the network needs them, and that wait to be traced
SMALLEST = 15  # pixels of a cell, as in Cellpose
STEPS = 200  # of a pixel on its way to the centre of its cell, as in Cellpose
# An image is resized by at most 10, at which the network still sees cells of 3 px at 30 px; smaller
# ones cannot be told apart, and such an image of 2048 px takes hours.
SCALES = (0.001, 10)
TILES_AT_ONCE = {"cpu": 2}  # measured with 224 px in 32 and 16 bits on two cores
TILES_ON_GPU = 16
REDUCED = {"bf16": torch.bfloat16, "fp16": torch.float16}


def load_model(path: Path, device: torch.device) -> CellposeModel:
    """Return Cellpose's model with the weights at `path`; `InputError` if they are not valid.

    The file is checked first, since Cellpose replaces a missing file by another model, and loads
    whichever tensors of a file fit.
    """
    weights.load(Path(path))
    # Without this PyTorch warns of the sparse tensors that Cellpose builds.
    torch.sparse.check_sparse_tensor_invariants.disable()
    return CellposeModel(pretrained_model=str(path), device=device, gpu=device.type != "cpu")


def scale_of(model: CellposeModel, settings: Settings) -> float:
    """Return the factor by which images are resized for the network.

    Raises
    ------
    InputError
        If no image could be resized so, because the diameter is too small, too large, or negative.
    """
    diameter = settings.diameter or model.diam_labels
    with np.errstate(all="ignore"):  # a diameter of 0 is told below
        scale = float(model.diam_mean / diameter)
    if not SCALES[0] <= scale <= SCALES[1]:
        whose = "as given" if settings.diameter else "as stored in the weights"
        raise InputError(
            f"{model.pretrained_model}: for cells of {diameter:g} pixels, {whose}, images would be "
            f"resized by {scale:.3g}, where {SCALES[0]} to {SCALES[1]} is possible; give the "
            "diameter of your cells in pixels"
        )
    return scale


def precision_of(model: CellposeModel, settings: Settings) -> str:
    """Return the number format in which a model computes; `InputError` if it cannot."""
    # Cellpose's own eval, which `resample` chooses, computes in 32 bits.
    return "32" if settings.resample else choose_precision(model.device, settings.precision)


def segment(model: CellposeModel, image: np.ndarray, settings: Settings) -> np.ndarray:
    """Return the label map of an image, (H, W) or (H, W, C), as `segment_all` gives it."""
    return next(segment_all(model, [image], settings))


def segment_all(
    model: CellposeModel, images: Iterable[np.ndarray], settings: Settings
) -> Iterator[np.ndarray]:
    """Find the cells of images, in order; only a few images are in memory at once.

    Yields
    ------
    the label map of each image, (H, W) uint16, or uint32 with more than 65,535 cells, numbered 1 to
    n. It is the one that `CellposeModel.eval` gives for the image with the same settings: exactly
    with `resample`, otherwise up to rounding errors of the flows.
    """
    scale = scale_of(model, settings)
    if settings.resample:
        for image in images:
            check_large_enough(image, scale)
            yield _cellposes_own(model, image, settings)
        return

    def tiles_of(image: np.ndarray) -> tuple[Tiles, tuple[int, int]]:
        check_large_enough(image, scale)
        height, width = image.shape[:2]
        return _tiles_of(image, scale, settings), (height, width)

    def traced(field: tuple[np.ndarray, tuple[int, int]]) -> np.ndarray:
        return trace(*field, settings, model.device)

    tiles = in_order(tiles_of, images, threads=1, ahead=AHEAD)
    yield from in_order(traced, _flows(Network(model, settings), tiles), threads=1, ahead=AHEAD)


def _cellposes_own(model: CellposeModel, image: np.ndarray, settings: Settings) -> np.ndarray:
    with tensor_float_32(False):
        found, _, _ = model.eval(
            image,
            channels=list(settings.channels),
            diameter=settings.diameter,
            resample=True,
            flow_threshold=settings.flow_threshold,
            cellprob_threshold=settings.cellprob_threshold,
            augment=settings.augment,
            batch_size=settings.batch_size or 8,
        )
    return numbered(np.asarray(found).reshape(image.shape[:2]))


def check_large_enough(image: np.ndarray, scale: float) -> None:
    """Raise `InputError` if nothing is left of an image when it is resized by `scale`."""
    height, width = image.shape[:2]
    if int(min(height, width) * scale) < 1:
        raise InputError(
            f"an image of {width} x {height} pixels vanishes when it is scaled by {scale:.3g} for "
            "the network; use larger images, or a smaller diameter"
        )


def _tiles_of(image: np.ndarray, scale: float, settings: Settings) -> Tiles:
    """Return the tiles of an image, normalised, as input of the network."""
    shown = transforms.convert_image(image, list(settings.channels), nchan=2)
    shown = transforms.normalize_img(shown[None], normalize=True)[0]
    return cut(shown, scale, settings.augment)


def trace(
    flows: np.ndarray, shape: tuple[int, int], settings: Settings, device: torch.device
) -> np.ndarray:
    """Follow the flows of pixels to the centres of cells, and enlarge the label map.

    Parameters
    ----------
    flows : (3, h, w) float32, flow in y and x, and cell probability, at the network's scale
    shape : height and width of the label map

    Returns
    -------
    label map (height, width) uint16 or uint32, numbered 1 to n
    """
    found = dynamics.resize_and_compute_masks(
        flows[:2],
        flows[2],
        niter=STEPS,
        flow_threshold=settings.flow_threshold,
        cellprob_threshold=settings.cellprob_threshold,
        min_size=SMALLEST,
        resize=None if flows.shape[1:] == shape else shape,
        device=device,
    )
    return numbered(found)


class Network:
    """The network of a model, with the precision and the batch size for its device."""

    def __init__(self, model: CellposeModel, settings: Settings):
        self.device = model.device
        precision = precision_of(model, settings)
        self.tf32 = precision == "tf32"
        self.dtype = REDUCED.get(precision)
        self.net = model.net.eval()
        if self.device.type == "cpu":
            # Cellpose's mkldnn would convert the weights in place, and works in 32 bits only.
            self.net.mkldnn = False
            self.net.to(memory_format=torch.channels_last)
        default = TILES_AT_ONCE.get(self.device.type, TILES_ON_GPU)
        self.batch_size = settings.batch_size or default

    @torch.inference_mode()
    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        """Return flows and cell probability, (n, 3, h, w) float32, for tiles, (n, C, h, w)."""
        shown = torch.from_numpy(tiles).to(self.device, memory_format=torch.channels_last)
        with (
            tensor_float_32(self.tf32),
            torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None),
        ):
            return self.net(shown)[0].float().cpu().numpy()


def _flows(
    network: Network, images: Iterable[tuple[Tiles, tuple[int, int]]]
) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """Give the flows and cell probability of each image, (3, h, w) float32, and its shape.

    No batch holds tiles of two images: the cells of an image do not depend on those before it, not
    even in their rounding.
    """
    for tiles, shape in images:
        batches = range(0, len(tiles.tiles), network.batch_size)
        outputs = [network(tiles.tiles[at : at + network.batch_size]) for at in batches]
        yield join(tiles, np.concatenate(outputs)), shape
