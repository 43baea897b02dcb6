"""Training on the sample's fields, by us and by `cellpose.train.train_seg`."""

import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from cellpose.train import train_seg

from benchmarks import Result, paired
from benchmarks._sample import raw
from cellular.base.devices import choose_precision
from cellular.fetching.pretrained import pretrained_state
from cellular.imaging.images import read_image, read_labels
from cellular.imaging.trainingset import make_field, percentiles
from cellular.network import weights
from cellular.preparing.flows import annotated, flows_of, shrunk
from cellular.training.accelerators import launch
from cellular.training.loop import train
from cellular.training.params import TrainParams

FLOP_OF_A_CROP = 744e9 / 8  # forward and backward of CPnet on 224 x 224 pixels
SIZE = 224
TRAINING = slice(0, 3)  # the time points that are trained on


def arrays_of_fields(small: bool) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return images (C, H, W), labels and flows of three fields at the network's scale."""
    arrays = []
    with tempfile.TemporaryDirectory() as folder:
        source = raw(Path(folder), small)
        for path in sorted((source / "images").iterdir())[TRAINING]:
            labels = read_labels(source / "masks" / f"{path.stem}.tif")
            field = shrunk(annotated(read_image(path), labels), 0.25)
            arrays.append((field.image, field.labels, flows_of(field.labels)))
    return arrays


def against_train_seg(device: torch.device, crops: int, rounds: int, small: bool) -> Result:
    """Train on the same crops, we and `train_seg`; both have the flows already."""
    logging.getLogger("cellpose").setLevel(logging.ERROR)
    params = TrainParams(
        n_epochs=1,
        use_sgd=False,
        learning_rate=5e-4,
        crop_size=SIZE,
        images_per_epoch=crops,
        valid_images=1,
        keep="last",
        schedule="cellpose",
    )
    arrays, state = arrays_of_fields(small), pretrained_state("scellseg")
    ours = [
        make_field(
            str(number),
            image,
            flows,
            labels,
            percentiles(image),
            params.channels,
            cells=int(labels.max()),
            diameter=30.0,
        )
        for number, (image, labels, flows) in enumerate(arrays)
    ]
    theirs = [
        np.concatenate([labels[None].astype(np.float32), flows]) for _, labels, flows in arrays
    ]

    def run_ours() -> None:
        net = weights.network(state).to(device)
        train(net, ours, ours[:1], params, fabric=launch(device, params.precision))

    def run_theirs() -> None:
        with tempfile.TemporaryDirectory() as folder:
            train_seg(
                weights.network(state).to(device),
                train_data=[image.transpose(1, 2, 0) for image, _, _ in arrays],
                train_labels=[flows.copy() for flows in theirs],
                test_data=[arrays[0][0].transpose(1, 2, 0)],
                test_labels=[theirs[0].copy()],
                channels=params.channels,
                n_epochs=1,
                learning_rate=params.learning_rate,
                weight_decay=params.weight_decay,
                SGD=False,
                batch_size=params.batch_size,
                nimg_per_epoch=crops,
                nimg_test_per_epoch=1,
                bsize=SIZE,
                min_train_masks=1,
                save_path=folder,
            )

    result = paired(run_ours, run_theirs, rounds, warm_up=0 if small else 1)
    precision = choose_precision(device, params.precision)
    peak = matrix_product_peak(device, precision, small)
    reached = crops * FLOP_OF_A_CROP / result.ours
    return Result(
        result.ours,
        result.peer,
        f"{crops / result.ours:.2f} crops/s of {SIZE} px, peer {crops / result.peer:.2f}; "
        f"{precision}, {reached / 1e9:.0f} GFLOP/s, {reached / peak:.0%} of the "
        f"{peak / 1e9:.0f} GFLOP/s of a matrix product; {name_of(device)}",
    )


def matrix_product_peak(device: torch.device, precision: str, small: bool) -> float:
    """Return the FLOP/s of a product of two large square matrices, the best of five."""
    size = 512 if small else 4096 if device.type == "cpu" else 16384
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    matrix = torch.rand(size, size, device=device).to(kind)
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        float((matrix @ matrix)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def name_of(device: torch.device) -> str:
    """Return the name of a GPU, or the number of threads on a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads"
