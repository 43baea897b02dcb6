"""Training: Cellpose's network, flows, augmentation and loss, in a loop of our own.

`cellpose.train.train_seg` is a closed loop that tells nothing before it ends and seeds the crops
with the number of the epoch alone. With seed 0 this loop gives its losses and weights, bit by bit
(tests/test_training.py); it also shows progress, takes the validation loss in every epoch, and
lets every random choice depend on the seed.
"""

import csv
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from cellpose.dynamics import labels_to_flows
from cellpose.resnet_torch import CPnet
from cellpose.train import _loss_fn_seg
from cellpose.transforms import (
    convert_image,
    normalize_img,
    random_rotate_and_resize,
    resize_image,
)
from cellpose.utils import diameters
from tqdm import tqdm

from cellular import weights
from cellular.errors import InputError
from cellular.fields import check_pairs, read_pair
from cellular.files import check_new, whole, write_json
from cellular.params import TrainParams

log = logging.getLogger(__name__)

SMALLEST_DIAMETER = 5.0  # pixels; Cellpose's floor, below which rescaling would blow crops up
VALIDATION_SEED = 42  # Cellpose's: the validation crops are the same in every epoch
SEED_STEP = 1_000_003  # a prime above any number of epochs, so that runs never share a crop's seed
SCALE_RANGE = {True: 0.5, False: 1.0}  # Cellpose's range of random sizes, with and without rescale


@dataclass
class TrainingField:
    """A field as the network is trained on it."""

    name: str
    image: np.ndarray  # (2, H, W) float32, each channel from its 1st to its 99th percentile
    labels: np.ndarray  # (H, W) label map
    diameter: float  # median diameter of the cells, in pixels of the image above
    flows: np.ndarray | None = None  # (3, H, W) float32: cell, flow in y, flow in x


@dataclass(frozen=True)
class Epoch:
    """What is recorded of an epoch. Losses are means over crops."""

    epoch: int
    train_loss: float
    valid_loss: float
    learning_rate: float


def learning_rates(n_epochs: int, rate: float) -> np.ndarray:
    """Return Cellpose's learning rate of each epoch: (n_epochs,) float64.

    Linear from 0 over the first ten epochs; in runs of more than 100 (300) epochs it is halved ten
    times, every 5 (10) epochs, at the end. Source: cellpose 3.1.1.3, `train_seg`.
    """
    rates = np.append(np.linspace(0, rate, 10), np.full(max(0, n_epochs - 10), rate))
    if n_epochs > 100:
        every = 10 if n_epochs > 300 else 5
        falling = rate / 2.0 ** np.repeat(np.arange(1, 11), every)
        rates = np.append(rates[: -10 * every], falling)
    return rates[:n_epochs]


def load_field(
    name: str, image: np.ndarray, labels: np.ndarray, channels: Sequence[int]
) -> TrainingField:
    """Return a field as Cellpose trains on it: channels chosen, intensities normalised.

    Parameters
    ----------
    image : (H, W) or (H, W, C)
    labels : (H, W) label map
    """
    chosen = convert_image(image, channels=list(channels)).transpose(2, 0, 1)
    median = max(float(diameters(labels)[0]), SMALLEST_DIAMETER)
    return TrainingField(name, normalize_img(chosen, axis=0), labels, median)


def shrink(field: TrainingField, factor: float) -> TrainingField:
    """Return the field resized by `factor`, as Cellpose resizes images before its network."""
    height, width = (max(1, round(side * factor)) for side in field.labels.shape)
    image = resize_image(field.image.transpose(1, 2, 0), Ly=height, Lx=width)
    labels = resize_image(field.labels, Ly=height, Lx=width, interpolation=0, no_channels=True)
    return TrainingField(field.name, image.transpose(2, 0, 1), labels, field.diameter * factor)


def add_flows(fields: Sequence[TrainingField], device: torch.device) -> None:
    """Compute the flows that the network is to predict, with Cellpose's own function."""
    for field in tqdm(fields, "flows", unit="field", leave=False):
        field.flows = labels_to_flows([field.labels.copy()], device=device)[0][1:]


class Crops:
    """Random crops of fields, rotated, flipped and scaled as Cellpose does."""

    def __init__(self, fields: Sequence[TrainingField], params: TrainParams, count: int | None):
        self.fields = fields
        self.params = params
        self.count = count or len(fields)

    def draw(self, seed: int):
        """Give the batches of an epoch: (n, 2, S, S) images, (n, 3, S, S) cell and flows."""
        np.random.seed(seed)  # noqa: NPY002 - Cellpose's augmentation draws from this generator
        total = len(self.fields)
        if self.count == total:
            order = np.random.permutation(total)  # noqa: NPY002
        else:
            chances = np.full(total, 1 / total)
            order = np.random.choice(total, self.count, p=chances / chances.sum())  # noqa: NPY002
        for start in range(0, self.count, self.params.batch_size):
            batch = [self.fields[index] for index in order[start : start + self.params.batch_size]]
            sizes = np.array([field.diameter for field in batch])
            images, targets, _ = random_rotate_and_resize(
                [field.image for field in batch],
                Y=[field.flows for field in batch],
                rescale=sizes / weights.NETWORK_DIAMETER
                if self.params.rescale
                else np.ones(len(batch), np.float32),
                scale_range=SCALE_RANGE[self.params.rescale],
                xy=(self.params.crop_size, self.params.crop_size),
            )
            yield images, targets


def train(
    net: CPnet,
    train_fields: Sequence[TrainingField],
    valid_fields: Sequence[TrainingField],
    params: TrainParams,
    seed: int = 0,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train `net` in place.

    Parameters
    ----------
    net : Cellpose's network, on the device to train on
    train_fields, valid_fields : fields with flows
    seed : decides all crops; 0 gives those of Cellpose
    on_epoch : called with the record of each epoch

    Returns
    -------
    list of Epoch

    Raises
    ------
    InputError
        If a loss is no number any more.
    """
    device = net.device
    rates = learning_rates(params.n_epochs, params.learning_rate)
    if params.use_sgd:
        optimizer = torch.optim.SGD(
            net.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay,
            momentum=params.momentum,
        )  # fmt: skip
    else:
        optimizer = torch.optim.AdamW(
            net.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay
        )
    train_crops = Crops(train_fields, params, params.images_per_epoch)
    valid_crops = Crops(valid_fields, params, params.valid_images)

    epochs = []
    with tqdm(
        total=params.n_epochs * train_crops.count, desc="train", unit="crop", leave=False
    ) as bar:
        for number, rate in enumerate(rates):
            for group in optimizer.param_groups:
                group["lr"] = rate
            net.train()
            train_loss = 0.0
            for images, targets in train_crops.draw(seed * SEED_STEP % 2**31 + number):
                predicted = net(torch.from_numpy(images).to(device))[0]
                loss = _loss_fn_seg(targets, predicted, device)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                train_loss += loss.item() * len(images)
                bar.update(len(images))
            valid_loss = _validate(net, valid_crops)
            epochs.append(
                Epoch(
                    number + 1,
                    train_loss / train_crops.count,
                    valid_loss / valid_crops.count,
                    float(rate),
                )
            )
            if not np.isfinite(epochs[-1].train_loss + epochs[-1].valid_loss):
                raise InputError(
                    f"the loss is no number any more in epoch {number + 1}; "
                    f"learning_rate {params.learning_rate:g} is too high, try a tenth of it"
                )
            bar.set_postfix(
                epoch=number + 1, loss=epochs[-1].train_loss, valid=epochs[-1].valid_loss, lr=rate
            )
            on_epoch(epochs[-1])
    return epochs


@torch.no_grad()
def _validate(net: CPnet, crops: Crops) -> float:
    net.eval()
    total = 0.0
    for images, targets in crops.draw(VALIDATION_SEED):
        predicted = net(torch.from_numpy(images).to(net.device))[0]
        total += _loss_fn_seg(targets, predicted, net.device).item() * len(images)
    return total


def train_folders(
    state: weights.State,
    train_dir: Path,
    valid_dir: Path,
    output_model: Path,
    metrics_dir: Path,
    params: TrainParams,
    *,
    seed: int = 0,
    device: torch.device,
    force: bool = False,
) -> dict:
    """Train on prepared folders from the weights `state`; write weights, losses and a summary.

    Writes `output_model`, which Cellpose opens, `<metrics_dir>/train.csv` (a row an epoch) and
    `<metrics_dir>/train.json`.

    Returns
    -------
    dict
        What train.json holds.

    Raises
    ------
    InputError
        One error that tells all faults of the data, before training starts.
    """
    output_model, metrics_dir = Path(output_model), Path(metrics_dir)
    csv_path, json_path = metrics_dir / "train.csv", metrics_dir / "train.json"
    for path in (output_model, csv_path, json_path):
        check_new(path, force)
    groups = [check_pairs(folder) for folder in (train_dir, valid_dir)]
    net = weights.network(state).to(device)
    train_fields, valid_fields = (
        [load_field(pair.field, *read_pair(pair), params.channels) for pair in group]
        for group in groups
    )
    crowded = [field for field in train_fields if field.labels.max() >= params.min_train_masks]
    left_out = sorted({field.name for field in train_fields} - {field.name for field in crowded})
    for name in left_out:
        log.warning("%s: fewer than %d cells, not trained on", name, params.min_train_masks)
    if not crowded:
        raise InputError(
            f"{train_dir}: no field has {params.min_train_masks} cells; lower --min_train_masks"
        )
    # In pixels of the user's images: `CellposeModel.eval` resizes by it when no diameter is given.
    stored_diameter = float(np.mean([field.diameter for field in crowded]))
    if params.shrink:
        factor = weights.NETWORK_DIAMETER / stored_diameter
        crowded = [shrink(field, factor) for field in crowded]
        valid_fields = [shrink(field, factor) for field in valid_fields]
    add_flows([*crowded, *valid_fields], device)
    log.info(
        "%d fields to train on, %d to validate, cells of %.4g pixels, on %s",
        len(crowded), len(valid_fields), stored_diameter, device,
    )  # fmt: skip

    epochs = train(net, crowded, valid_fields, params, seed)

    state = net.state_dict()
    state["diam_labels"] = torch.tensor([stored_diameter])
    state["diam_mean"] = torch.tensor([weights.NETWORK_DIAMETER])
    best = min(epochs, key=lambda epoch: epoch.valid_loss)
    summary = {
        "train_loss": epochs[-1].train_loss,
        "valid_loss": epochs[-1].valid_loss,
        "lowest_valid_loss": best.valid_loss,
        "lowest_valid_loss_epoch": best.epoch,
        "epochs": len(epochs),
        "crops": params.n_epochs * (params.images_per_epoch or len(crowded)),
        "fields": {"train": len(crowded), "valid": len(valid_fields), "left_out": len(left_out)},
        "cells": {
            "train": int(sum(field.labels.max() for field in crowded)),
            "valid": int(sum(field.labels.max() for field in valid_fields)),
        },
        "diameter": stored_diameter,
    }
    with whole(csv_path) as staging:
        staging.write_text(_as_csv(epochs), encoding="utf-8")
    write_json(json_path, summary)
    weights.save(state, output_model)
    return summary


def _as_csv(epochs: Sequence[Epoch]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(Epoch.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(epoch) for epoch in epochs)
    return stream.getvalue()
