"""What the benchmarks of training share: the sample's fields, for us and for `train_seg`."""

import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from cellpose.train import train_seg

from benchmarks import Result, paired
from cellular.base.devices import choose_precision
from cellular.base.params import TrainParams
from cellular.fetching.datasets import fetch_dataset
from cellular.fetching.pretrained import pretrained_state
from cellular.imaging.images import read_image, read_labels
from cellular.imaging.trainingset import make_field, percentiles
from cellular.network import weights
from cellular.preparing.flows import annotated, flows_of, shrunk
from cellular.training.accelerators import launch
from cellular.training.loop import train

FLOP_A_CROP = 744e9 / 8  # forward and backward of CPnet on 224 x 224 pixels
SIZE = 224
TRAINING = range(1, 4)  # time points


def fields() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return images (C, H, W), labels and flows of three real fields at the network's scale."""
    made = []
    with tempfile.TemporaryDirectory() as folder:
        fetch_dataset("sample", Path(folder) / "raw")
        for time_point in TRAINING:
            name = f"Timepoint_00{time_point}_220518-ST_C03_s3"
            image = read_image(Path(folder) / f"raw/images/{name}.jpg")
            labels = read_labels(Path(folder) / f"raw/masks/{name}.tif")
            field = shrunk(annotated(image, labels), 0.25)
            made.append((field.image, field.labels, flows_of(field.labels)))
    return made


def against_train_seg(device: torch.device, crops: int, rounds: int) -> Result:
    """Train on the same crops, we and `train_seg`; both have the flows already."""
    logging.getLogger("cellpose").setLevel(logging.ERROR)
    params = TrainParams(
        n_epochs=1, use_sgd=False, learning_rate=5e-4, crop_size=SIZE, images_per_epoch=crops,
        valid_images=1, keep="last", schedule="cellpose",
    )  # fmt: skip
    arrays, state = fields(), pretrained_state("scellseg")
    ours = [
        make_field(
            str(number), image, flows, percentiles(image), params.channels,
            cells=int(labels.max()), diameter=30.0,
        )
        for number, (image, labels, flows) in enumerate(arrays)
    ]  # fmt: skip
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
                channels=params.channels, n_epochs=1, learning_rate=params.learning_rate,
                weight_decay=params.weight_decay, SGD=False, batch_size=params.batch_size,
                nimg_per_epoch=crops, nimg_test_per_epoch=1, bsize=SIZE, save_path=folder,
            )  # fmt: skip

    result = paired(run_ours, run_theirs, rounds=rounds)
    precision = choose_precision(device, params.precision)
    peak = matrix_product_peak(device, precision)
    reached = crops * FLOP_A_CROP / result.ours
    return Result(
        result.ours,
        result.peer,
        f"{crops / result.ours:.2f} crops/s of {SIZE} px, peer {crops / result.peer:.2f}; "
        f"{precision}, {reached / 1e9:.0f} GFLOP/s, {reached / peak:.0%} of the "
        f"{peak / 1e9:.0f} GFLOP/s of a matrix product; {name_of(device)}",
    )


def matrix_product_peak(device: torch.device, precision: str) -> float:
    """Return the FLOP/s of a product of two large square matrices, the best of five."""
    size = 4096 if device.type == "cpu" else 16384
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    matrix = torch.rand(size, size, device=device).to(kind)
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        float((matrix @ matrix)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def name_of(device: torch.device) -> str:
    """Return what the device is called."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads"
