"""Fine-tuning: from training sets to weights, losses by epoch, and a summary."""

import csv
import io
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from cellular.base.devices import choose_precision
from cellular.base.errors import InputError
from cellular.base.files import check_apart, check_new, together, whole, write_json
from cellular.base.provenance import computed_on
from cellular.imaging.fields import SMALLEST_SIDE
from cellular.imaging.trainingset import TrainingField, fingerprint, open_fields
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
        """Raise `InputError` if an output would replace an input or, unless `force`, exists.

        train.csv may exist: `fine_tune` finds out whether it is that of the run that goes on.
        """
        for path in (self.model, self.last_model, self.summary, self.losses):
            if path.is_dir():
                raise InputError(f"{path}: a folder, but a file is to be written; choose another")
        check_new(self.model, self.last_model, self.summary, force=force)
        check_apart([self.model, self.last_model, self.summary, self.losses], inputs)


@dataclass(frozen=True)
class Fields:
    """The fields of a training run, and the size of their cells."""

    train: list[TrainingField]
    valid: list[TrainingField]
    left_out: int  # training fields with too few cells, or too few pixels

    @property
    def diameter(self) -> float:
        """Mean diameter of the training cells, in pixels of the user's images."""
        return float(np.mean([field.diameter / field.scale for field in self.train]))

    def with_diameters(self, state: weights.State) -> weights.State:
        """Return weights with the two diameters from which Cellpose knows how to resize images.

        `CellposeModel.eval` resizes them by `diam_mean`, at which the network saw cells, over the
        diameter that its user gives, or over `diam_labels`.
        """
        return state | {
            "diam_labels": torch.tensor([self.diameter]),
            "diam_mean": torch.tensor([self.train[0].seen_diameter]),
        }


def fine_tune(
    state: weights.State,
    sets: dict[str, Path],
    outputs: Outputs,
    params: TrainParams,
    *,
    valid_dir: Path | None = None,
    save_every: int = 5,
    seed: int = 0,
    device: torch.device,
    force: bool = False,
) -> dict:
    """Train from the weights `state`; write weights, losses and a summary.

    The table of losses grows with each epoch. Weights and summary appear together at the end; until
    then no other process can write them.

    A run that was killed resumes from its last saved state (`cellular.training.checkpoints`) when
    it is called again with the same code, data and parameters, and ends in the same bytes.

    Parameters
    ----------
    sets : training sets, as `cellular.preparing.flows` writes them: `train` and `valid`, with
        `params.all_fields` also `test`
    valid_dir : prepared folder of the validation fields; needed for `params.keep == "ap50"`
    save_every : epochs between two savings of the state
    seed : decides all crops
    force : replace the table of losses of another run

    Returns
    -------
    dict
        The content of train.json.

    Raises
    ------
    InputError
        If no field has enough cells, the loss explodes, another run's table of losses is there, or
        another process writes the outputs.
    """
    fabric = launch(device, params.precision)
    fields = _open(sets, params)
    precision = choose_precision(device, params.precision)
    log.info(
        "%d fields to train on (%s), %d to validate on, on %s in %s; cells of %.4g pixels are "
        "resized to %.4g",
        len(fields.train),
        ", ".join(params.trained_on),
        len(fields.valid),
        device.type,
        precision,
        fields.diameter,
        fields.train[0].seen_diameter,
    )
    ap50 = None
    if params.keep == "ap50":
        if valid_dir is None:
            raise ValueError("keep: ap50 scores whole fields and needs valid_dir")
        ap50 = _ap50(valid_dir, fields, params, device)
    origin = {
        **computed_on(device, precision),
        "processes": fabric.world_size,
        "seed": seed,
        "data": {name: fingerprint(folder) for name, folder in sets.items()},
        "starting_weights": sha256(weights.to_bytes(state)).hexdigest(),
    }
    run_all = partial(
        train,
        weights.network(state).to(fabric.device),
        fields.train,
        fields.valid,
        params,
        seed=seed,
        fabric=fabric,
        save_every=save_every,
        ap50=ap50,
    )
    if not fabric.is_global_zero:  # of several processes, one writes
        return _summary(run_all()[0], params, fields)
    name = identity(code_identity(), params.model_dump_json(), json.dumps(origin))
    with Checkpoint(name) as checkpoint:
        if not (checkpoint.mine and checkpoint.path.exists()):  # this is no run that goes on
            check_new(outputs.losses, force=force)
        with together(outputs.model, outputs.last_model, outputs.summary) as stagings:
            outputs.check([], force)  # again: another process may have written them meanwhile
            run, last = run_all(checkpoint=checkpoint, on_epoch=partial(_write_csv, outputs.losses))
            summary = _summary(run, params, fields) | {"run": origin}
            _write(stagings, [run.best_state or last, last], summary, fields)
        checkpoint.remove()
    return summary


def _write(files: list[Path], states: list[weights.State], summary: dict, fields: Fields) -> None:
    """Write the kept and the last weights, and the summary with their hashes."""
    kept, last = (weights.to_bytes(fields.with_diameters(state)) for state in states)
    summary["run"] |= {
        "weights": sha256(kept).hexdigest(),
        "last_weights": sha256(last).hexdigest(),
    }
    files[0].write_bytes(kept)
    files[1].write_bytes(last)
    write_json(files[2], summary)


def _open(sets: dict[str, Path], params: TrainParams) -> Fields:
    """Open the fields; list those that cannot be trained on in the log, and leave them out."""
    opened = {name: open_fields(folder, params.channels) for name, folder in sets.items()}
    train_fields = [field for name in params.trained_on for field in opened[name]]
    enough = []
    for field in train_fields:
        if field.cells < params.min_train_masks:
            log.warning("%s: fewer than %d cells, left out", field.name, params.min_train_masks)
        elif min(field.shape) < SMALLEST_SIDE:  # only a test field can be so small
            log.warning("%s: less than %d pixels a side, left out", field.name, SMALLEST_SIDE)
        else:
            enough.append(field)
    if not enough:
        raise InputError(
            f"{sets['train']}: no field has {params.min_train_masks} cells; lower --min_train_masks"
        )
    return Fields(enough, opened["valid"], len(train_fields) - len(enough))


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
        "trained_on": list(params.trained_on),
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
    }


def _ap50(
    valid_dir: Path, fields: Fields, params: TrainParams, device: torch.device
) -> Callable[[weights.State], float]:
    """Return a function that scores weights by mean AP@0.5 on the whole validation fields."""
    from cellular.training.validation import mean_ap50  # takes seconds to import

    settings = Settings(channels=params.channels, precision=params.precision)

    def score(state: weights.State) -> float:
        return mean_ap50(fields.with_diameters(state), valid_dir, settings, device)

    return score


def _write_csv(path: Path, epochs: Sequence[Epoch]) -> None:
    """Write the table of epochs, or remove it if there are none."""
    if not epochs:
        path.unlink(missing_ok=True)
        return
    rows = [asdict(epoch) for epoch in epochs]
    columns = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    with whole(path) as staging:
        staging.write_text(stream.getvalue(), encoding="utf-8")
