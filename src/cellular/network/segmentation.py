"""Segmentation: a model finds the cells of images.

Cellpose's own `eval` takes one image at a time and, by default, traces every pixel of the enlarged
flows. Here tiles of several images share a batch, the next image is read and the last one traced
while the network runs, and cells are traced at the network's scale. With `resample: true` it is
Cellpose's own `eval`, and its masks.
"""

# First, since cellpose.models imports cellpose.dynamics.
from cellular.base.compiled import dynamics  # isort: skip
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from cellpose import transforms
from cellpose.models import CellposeModel

from cellular.base.devices import choose_precision, tensor_float_32
from cellular.base.errors import InputError
from cellular.base.queues import in_order
from cellular.imaging.fields import Pair, read_pair
from cellular.imaging.masks import relabel
from cellular.imaging.tones import correct
from cellular.network import weights
from cellular.network.settings import Settings
from cellular.network.tiles import Tiles, cut, join

Item = TypeVar("Item")

AHEAD = 2  # images that are read before the network needs them, and that wait to be traced
SMALLEST = 15  # pixels of a cell, Cellpose's
STEPS = 200  # of a pixel on its way to the centre of its cell, Cellpose's
TILES = {"cpu": 2}  # at once; measured with 224 px in 32 and 16 bits on two cores
TILES_OF_A_GPU = 16
REDUCED = {"bf16": torch.bfloat16, "fp16": torch.float16}


def load_model(path: Path, device: torch.device) -> CellposeModel:
    """Return Cellpose's model with the weights at `path`.

    Cellpose turns a path that does not exist into another model, and loads what fits of a file;
    so the file is checked first.
    """
    weights.load(Path(path))
    # Cellpose builds sparse tensors without saying whether to check them, and PyTorch warns of it.
    torch.sparse.check_sparse_tensor_invariants.disable()
    return CellposeModel(pretrained_model=str(path), device=device, gpu=device.type != "cpu")


def scale_of(model: CellposeModel, settings: Settings) -> float:
    """Return the factor by which images are resized for the network."""
    return float(model.diam_mean / (settings.diameter or model.diam_labels))


def segment(model: CellposeModel, image: np.ndarray, settings: Settings) -> np.ndarray:
    """Find the cells of an image, (H, W) or (H, W, C): a label map, (H, W) uint16, 1 to n."""
    return next(segment_all(model, [image], settings))


def segment_all(
    model: CellposeModel, images: Iterable[np.ndarray], settings: Settings
) -> Iterator[np.ndarray]:
    """Find the cells of images, in their order; few of them are in memory at once.

    Yields
    ------
    a label map of each image, (H, W) uint16, numbered 1 to n. It is that of `CellposeModel.eval`
    with the same settings, of the image with corrected gamma: with `resample` exactly, without it
    up to rounding errors of the flows.
    """
    return _segment(model, images, lambda image: image, settings)


def segment_pairs(
    model: CellposeModel, pairs: Sequence[Pair], settings: Settings
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give each field's true and predicted label map, in the order of `pairs`.

    Fields are read as the network needs them; only their true maps wait for the prediction.
    """
    truths: deque[np.ndarray] = deque()

    def read(pair: Pair) -> np.ndarray:
        image, truth = read_pair(pair)
        truths.append(truth)
        return image

    for predicted in _segment(model, pairs, read, settings):
        yield truths.popleft(), predicted


def _segment(
    model: CellposeModel,
    items: Iterable[Item],
    read: Callable[[Item], np.ndarray],
    settings: Settings,
) -> Iterator[np.ndarray]:
    """Give the label map of the image that `read` returns of each item."""
    scale = scale_of(model, settings)
    if settings.resample:
        for item in items:
            yield _cellposes_own(model, _large_enough(read(item), scale), settings)
        return

    def tiles_of(item: Item) -> tuple[Tiles, tuple[int, int]]:
        image = _large_enough(read(item), scale)
        return _tiles_of(image, scale, settings), image.shape[:2]

    def traced(field: tuple[np.ndarray, tuple[int, int]]) -> np.ndarray:
        return trace(*field, settings, model.device)

    tiles = in_order(tiles_of, items, threads=1, ahead=AHEAD)
    yield from in_order(traced, _flows(Network(model, settings), tiles), threads=1, ahead=AHEAD)


def _cellposes_own(model: CellposeModel, image: np.ndarray, settings: Settings) -> np.ndarray:
    with tensor_float_32(False):
        found, _, _ = model.eval(
            correct(image, settings.gamma),
            channels=list(settings.channels),
            diameter=settings.diameter,
            resample=True,
            flow_threshold=settings.flow_threshold,
            cellprob_threshold=settings.cellprob_threshold,
            augment=settings.augment,
            batch_size=settings.batch_size or 8,
        )
    return relabel(np.asarray(found).reshape(image.shape[:2]), "prediction")


def _large_enough(image: np.ndarray, scale: float) -> np.ndarray:
    height, width = image.shape[:2]
    if int(min(height, width) * scale) < 1:
        raise InputError(
            f"an image of {width} x {height} pixels vanishes when it is scaled by {scale:.3g} for "
            "the network; give larger images, or a smaller diameter"
        )
    return image


def _tiles_of(image: np.ndarray, scale: float, settings: Settings) -> Tiles:
    """Return an image's tiles as the network is to see them."""
    shown = transforms.convert_image(
        correct(image, settings.gamma), list(settings.channels), nchan=2
    )
    shown = transforms.normalize_img(shown[None], normalize=True)[0]
    return cut(shown, scale, settings.augment)


def trace(
    flows: np.ndarray, shape: tuple[int, int], settings: Settings, device: torch.device
) -> np.ndarray:
    """Follow flows to cells, and enlarge their labels.

    Parameters
    ----------
    flows : (3, h, w) float32, flow in y and x, and cell probability, at the network's scale
    shape : height and width of the label map

    Returns
    -------
    (height, width) uint16, numbered 1 to n
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
    return relabel(found, "prediction")


class Network:
    """The network of a model, in the precision and the batches that suit its device."""

    def __init__(self, model: CellposeModel, settings: Settings):
        self.device = model.device
        precision = choose_precision(self.device, settings.precision)
        self.tf32 = precision == "tf32"
        self.dtype = REDUCED.get(precision)
        self.net = model.net.eval()
        if self.device.type == "cpu":
            # Cellpose's mkldnn would convert the weights in place, for 32 bits only.
            self.net.mkldnn = False
            self.net.to(memory_format=torch.channels_last)
        self.batch_size = settings.batch_size or TILES.get(self.device.type, TILES_OF_A_GPU)

    @torch.inference_mode()
    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        """Return flows and cell probability, (n, 3, h, w) float32, of tiles, (n, C, h, w)."""
        shown = torch.from_numpy(tiles).to(self.device, memory_format=torch.channels_last)
        with (
            tensor_float_32(self.tf32),
            torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None),
        ):
            return self.net(shown)[0].float().cpu().numpy()


@dataclass
class _Field:
    """A field on its way through the network."""

    tiles: Tiles
    shape: tuple[int, int]
    outputs: np.ndarray  # (n, 3, h, w) float32, of the tiles
    left: int  # tiles that have not been seen


def _flows(
    network: "Network", fields: Iterable[tuple[Tiles, tuple[int, int]]]
) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """Give each field's flows and cell probability, and its shape.

    Tiles of neighbouring fields are in one batch, if they are of one size.
    """
    entered: deque[_Field] = deque()
    waiting: deque[tuple[_Field, int]] = deque()

    def run() -> None:
        batch = [waiting.popleft() for _ in range(min(network.batch_size, len(waiting)))]
        outputs = network(np.stack([field.tiles.tiles[number] for field, number in batch]))
        for (field, number), output in zip(batch, outputs, strict=True):
            field.outputs[number] = output
            field.left -= 1

    def done() -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
        while entered and not entered[0].left:
            field = entered.popleft()
            yield join(field.tiles, field.outputs), field.shape

    for tiles, shape in fields:
        count, _, *size = tiles.tiles.shape
        while waiting and waiting[0][0].tiles.tiles.shape[2:] != tuple(size):
            run()
        field = _Field(tiles, shape, np.empty((count, 3, *size), np.float32), count)
        entered.append(field)
        waiting.extend((field, number) for number in range(count))
        while len(waiting) >= network.batch_size:
            run()
        yield from done()
    while waiting:
        run()
    yield from done()
