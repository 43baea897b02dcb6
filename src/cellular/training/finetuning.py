"""Fine-tuning: from training sets to weights, losses by epoch, and a summary."""

import csv
import hashlib
import io
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from cellular.base.devices import choose_precision
from cellular.base.errors import InputError
from cellular.base.files import check_apart, check_new, whole, write_json
from cellular.base.params import NETWORK_DIAMETER
from cellular.imaging.trainingset import TrainingField, fingerprint, open_fields, read_index
from cellular.network import weights
from cellular.network.settings import Settings
from cellular.training.accelerators import launch
from cellular.training.checkpoints import Checkpoint, code_identity, identity
from cellular.training.loop import Epoch, Run, train
from cellular.training.params import TrainParams

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outputs:
    """The files that a training run writes."""

    model: Path  # the weights that are kept (`params.keep`); Cellpose opens them
    last_model: Path  # the weights of the last step
    metrics_dir: Path  # for train.csv, a row for each epoch so far, and at the end train.json

    @property
    def losses(self) -> Path:
        """The table of epochs."""
        return self.metrics_dir / "train.csv"

    @property
    def summary(self) -> Path:
        """The summary that `fine_tune` returns, as JSON."""
        return self.metrics_dir / "train.json"

    def check(self, inputs: Sequence[Path], force: bool) -> None:
        """Raise `InputError` if an output would replace an input or, unless `force`, exists."""
        for path in (self.model, self.last_model, self.summary):
            check_new(path, force)
        check_apart([self.model, self.last_model], inputs)


@dataclass(frozen=True)
class Fields:
    """The fields of a training run, and the size of their cells."""

    train: list[TrainingField]
    valid: list[TrainingField]
    left_out: int  # training fields with too few cells

    @property
    def diameter(self) -> float:
        """Mean diameter of the training cells, in pixels of the user's images."""
        return float(np.mean([field.diameter / field.scale for field in self.train]))

    @property
    def diameter_in_weights(self) -> float:
        """The diameter to store in the weights, so that Cellpose resizes images as in training.

        `CellposeModel.eval` resizes them by 30 over the stored diameter, at whatever size the
        network saw cells in training.
        """
        return self.diameter * NETWORK_DIAMETER / self.train[0].seen_diameter


def fine_tune(
    state: weights.State,
    train_set: Path,
    valid_set: Path,
    outputs: Outputs,
    params: TrainParams,
    *,
    valid_dir: Path | None = None,
    save_every: int = 5,
    seed: int = 0,
    device: torch.device,
) -> dict:
    """Train from the weights `state`; write weights, losses and a summary.

    A run that was killed resumes from its last saved state (`cellular.training.checkpoints`) when
    it is called again with the same code, data and parameters, and ends in the same bytes.

    Parameters
    ----------
    train_set, valid_set : training sets, as `cellular.preparing.flows` writes them
    valid_dir : prepared folder of the validation fields; needed for `params.keep == "ap50"`
    save_every : epochs between two savings of the state
    seed : decides all crops

    Returns
    -------
    dict
        The content of train.json.

    Raises
    ------
    InputError
        If no field has enough cells, or the loss explodes.
    """
    fabric = launch(device, params.precision)
    first = fabric.is_global_zero  # of several processes, the one that writes
    fields = _open(train_set, valid_set, params)
    arithmetic = f"{device.type} in {choose_precision(device, params.precision)}"
    log.info(
        "%d fields to train on, %d to validate on, on %s; cells of %.4g pixels are resized to %.4g",
        len(fields.train),
        len(fields.valid),
        arithmetic,
        fields.diameter,
        fields.train[0].seen_diameter,
    )
    ap50 = None
    if params.keep == "ap50":
        if valid_dir is None:
            raise ValueError("keep: ap50 scores whole fields and needs valid_dir")
        ap50 = _ap50(valid_dir, valid_set, fields.diameter_in_weights, params, device)
    name = identity(
        code_identity(),
        params.model_dump_json(),
        fingerprint(train_set),
        fingerprint(valid_set),
        _hash(state),
        f"{seed} {arithmetic} {fabric.world_size}",
    )
    with Checkpoint(name) if first else nullcontext() as checkpoint:
        run, last = train(
            weights.network(state).to(fabric.device),
            fields.train,
            fields.valid,
            params,
            seed=seed,
            fabric=fabric,
            checkpoint=checkpoint,
            save_every=save_every,
            ap50=ap50,
            on_epoch=lambda epochs: _write_csv(outputs.losses, epochs) if first else None,
        )
        summary = _summary(run, params, fields)
        if checkpoint:
            diameter = fields.diameter_in_weights
            weights.save(_with_diameter(last, diameter), outputs.last_model)
            weights.save(_with_diameter(run.best_state or last, diameter), outputs.model)
            write_json(outputs.summary, summary)
            checkpoint.remove()
    return summary


def _open(train_set: Path, valid_set: Path, params: TrainParams) -> Fields:
    """Open the fields; list those with too few cells to train on in the log, and leave them out."""
    train_fields, valid_fields = (
        open_fields(folder, params.channels) for folder in (train_set, valid_set)
    )
    enough = [field for field in train_fields if field.cells >= params.min_train_masks]
    for field in train_fields:
        if field.cells < params.min_train_masks:
            log.warning("%s: fewer than %d cells, left out", field.name, params.min_train_masks)
    if not enough:
        raise InputError(
            f"{train_set}: no field has {params.min_train_masks} cells; lower --min_train_masks"
        )
    return Fields(enough, valid_fields, len(train_fields) - len(enough))


def _summary(run: Run, params: TrainParams, fields: Fields) -> dict:
    best = next(epoch for epoch in run.epochs if epoch.epoch == run.best)
    last = run.epochs[-1]
    return {
        "train_loss": last.train_loss,
        "valid_loss": last.valid_loss,
        "best_epoch": best.epoch,
        "best_valid_loss": best.valid_loss,
        **({"best_valid_ap50": best.valid_ap50} if best.valid_ap50 is not None else {}),
        "kept_epoch": last.epoch if params.keep == "last" else best.epoch,
        "epochs": last.epoch,
        "stopped": run.stopped,
        "crops": last.epoch * (params.images_per_epoch or len(fields.train)),
        "fields": {
            "train": len(fields.train),
            "valid": len(fields.valid),
            "left_out": fields.left_out,
        },
        "cells": {
            "train": sum(field.cells for field in fields.train),
            "valid": sum(field.cells for field in fields.valid),
        },
        "diameter": fields.diameter,
        "diameter_in_weights": fields.diameter_in_weights,
    }


def _hash(state: weights.State) -> str:
    listing = hashlib.sha256()
    for key in sorted(state):
        listing.update(f"{key} {state[key].dtype} {tuple(state[key].shape)}".encode())
        listing.update(state[key].numpy().tobytes())
    return listing.hexdigest()


def _ap50(
    valid_dir: Path, valid_set: Path, diameter: float, params: TrainParams, device: torch.device
) -> Callable[[weights.State], float]:
    """Return a function that scores weights by mean AP@0.5 on the whole validation fields."""
    from cellular.training.validation import mean_ap50  # takes seconds to import

    settings = Settings(
        channels=params.channels, gamma=read_index(valid_set)["gamma"], precision=params.precision
    )

    def score(state: weights.State) -> float:
        return mean_ap50(_with_diameter(state, diameter), valid_dir, settings, device)

    return score


def _with_diameter(state: weights.State, diameter: float) -> weights.State:
    return state | {
        "diam_labels": torch.tensor([diameter]),
        "diam_mean": torch.tensor([NETWORK_DIAMETER]),
    }


def _write_csv(path: Path, epochs: Sequence[Epoch]) -> None:
    rows = [asdict(epoch) for epoch in epochs]
    columns = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    with whole(path) as staging:
        staging.write_text(stream.getvalue(), encoding="utf-8")
