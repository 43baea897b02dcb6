"""Segmentation: a model finds the cells of images.

Cellpose's own `eval` takes one image at a time and, by default, traces every pixel of the enlarged
flows. Here tiles of several images share a batch, the next image is read and the last one traced
while the network runs, and cells are traced at the network's scale. With `resample: true` it is
Cellpose's own `eval`, and its masks.
"""

# First, since cellpose.models imports cellpose.dynamics.
from cellular.base.compiled import dynamics  # isort: skip
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from cellpose import transforms
from cellpose.models import CellposeModel

from cellular.base.devices import choose_precision, tensor_float_32
from cellular.base.errors import InputError
from cellular.imaging.fields import Pair, read_pair
from cellular.imaging.masks import relabel
from cellular.imaging.tones import correct
from cellular.network import weights
from cellular.network.settings import Settings
from cellular.network.tiles import Tiles, cut, join

AHEAD = 2  # images that are read before the network is ready for them
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
    scale = scale_of(model, settings)
    images = (_large_enough(image, scale) for image in images)
    if settings.resample:
        for image in images:
            yield _cellposes_own(model, image, settings)
        return
    network = Network(model, settings)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as tracer:
        tiles = _ahead(reader, images, lambda image: _tiles_of(image, scale, settings))
        tracing: deque[Future] = deque()
        for flows, shape in _flows(network, tiles):
            tracing.append(tracer.submit(trace, flows, shape, settings, model.device))
            while tracing and (len(tracing) > AHEAD or tracing[0].done()):
                yield tracing.popleft().result()
        while tracing:
            yield tracing.popleft().result()


def segment_pairs(
    model: CellposeModel, pairs: Sequence[Pair], settings: Settings
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give each field's true and predicted label map, in the order of `pairs`.

    Fields are read as the network needs them; only their true maps wait for the prediction.
    """
    truths: deque[np.ndarray] = deque()

    def images() -> Iterator[np.ndarray]:
        for pair in pairs:
            image, truth = read_pair(pair)
            truths.append(truth)
            yield image

    for predicted in segment_all(model, images(), settings):
        yield truths.popleft(), predicted


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


def _ahead(pool: ThreadPoolExecutor, items: Iterable, work) -> Iterator:
    """Give `work(item)` of each item, made ahead by a thread; items are taken as needed."""
    source = iter(items)

    def step() -> tuple | None:
        return next(((work(item),) for item in islice(source, 1)), None)

    waiting = deque(pool.submit(step) for _ in range(AHEAD))
    while (made := waiting.popleft().result()) is not None:
        waiting.append(pool.submit(step))
        yield made[0]


def _tiles_of(image: np.ndarray, scale: float, settings: Settings) -> tuple[Tiles, tuple[int, int]]:
    """Return an image's tiles as the network is to see them, and its height and width."""
    shown = transforms.convert_image(
        correct(image, settings.gamma), list(settings.channels), nchan=2
    )
    shown = transforms.normalize_img(shown[None], normalize=True)[0]
    return cut(shown, scale, settings.augment), image.shape[:2]


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
