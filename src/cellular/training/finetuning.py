"""Fine-tuning: from prepared folders to weights, losses by epoch, and a summary."""

import csv
import hashlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from cellular.base.devices import choose_precision
from cellular.base.errors import InputError
from cellular.base.files import check_apart, check_new, whole, write_json
from cellular.base.params import SegmentParams, TrainParams
from cellular.imaging.fields import load_pairs
from cellular.imaging.trainingset import (
    TrainingField,
    check_source,
    fingerprint,
    open_fields,
    read_index,
)
from cellular.network import weights
from cellular.training.accelerators import launch
from cellular.training.checkpoints import Checkpoint, code_identity, identity
from cellular.training.loop import Epoch, Run, train

log = logging.getLogger(__name__)

SAVING = ("save_every",)  # parameters that do not decide the result


def fine_tune(
    state: weights.State,
    train_dir: Path,
    valid_dir: Path,
    output_model: Path,
    metrics_dir: Path,
    params: TrainParams,
    *,
    flows_dir: Path | None = None,
    cell_diameter: float | None = None,
    gamma: float = 1.0,
    last_model: Path | None = None,
    seed: int = 0,
    device: torch.device,
    force: bool = False,
) -> dict:
    """Train on prepared folders from the weights `state`; write weights, losses and a summary.

    A run that was killed goes on where its state was last saved (`cellular.training.checkpoints`),
    when it is called again with the same code, data and parameters, and ends in the same bytes.

    Parameters
    ----------
    output_model : gets the weights that are kept (`params.keep`); Cellpose opens them
    metrics_dir : gets train.csv, a row an epoch, which grows meanwhile, and at the end train.json
    flows_dir : the folders' flows, `<flows_dir>/train` and `/valid`, as `write_flows` makes them;
        None: they are computed, and forgotten at the end
    cell_diameter, gamma : of flows that are computed
    last_model : gets the weights of the last step (default: `<output_model>_last`)

    Returns
    -------
    dict
        What train.json holds.

    Raises
    ------
    InputError
        One error that tells all faults of the data, before training starts; or the loss explodes.
    """
    output_model, metrics_dir = Path(output_model), Path(metrics_dir)
    last_model = Path(last_model or output_model.with_name(f"{output_model.name}_last"))
    csv_path, json_path = metrics_dir / "train.csv", metrics_dir / "train.json"
    for path in (output_model, last_model, json_path):
        check_new(path, force)
    check_apart([output_model, last_model], [train_dir, valid_dir])
    fabric = launch(device, params.precision)
    with _flows(flows_dir, train_dir, valid_dir, cell_diameter, gamma, device) as folders:
        train_fields, valid_fields = (open_fields(folder, params.channels) for folder in folders)
        crowded = _crowded(train_fields, params.min_train_masks, train_dir)
        diameter = float(np.mean([field.diameter / field.scale for field in crowded]))
        seen = crowded[0].seen_diameter
        # `CellposeModel.eval` resizes images by 30 / this: cells are seen as they were in training.
        stored = diameter * weights.NETWORK_DIAMETER / seen
        arithmetic = f"{device.type} in {choose_precision(device, params.precision)}"
        log.info(
            "%d fields to train on, %d to validate, cells of %.4g pixels seen with %.4g, on %s",
            len(crowded), len(valid_fields), diameter, seen, arithmetic,
        )  # fmt: skip
        ap50 = (
            _ap50(valid_dir, folders[1], stored, params, device) if params.keep == "ap50" else None
        )
        name = identity(
            code_identity(),
            params.model_dump_json(exclude=set(SAVING)),
            *(fingerprint(folder) for folder in folders),
            _hash(state),
            f"{seed} {arithmetic} {fabric.world_size}",
        )
        first = fabric.is_global_zero  # of several processes, the one that writes
        with Checkpoint(name) if first else nullcontext() as checkpoint:
            run, last = train(
                weights.network(state).to(fabric.device),
                crowded,
                valid_fields,
                params,
                seed=seed,
                fabric=fabric,
                checkpoint=checkpoint,
                ap50=ap50,
                on_epoch=lambda epochs: _write_csv(csv_path, epochs) if first else None,
            )
            summary = _summary(run, params, crowded, valid_fields, diameter)
            summary["diameter_in_weights"] = stored
            summary["fields"]["left_out"] = len(train_fields) - len(crowded)
            if first:
                weights.save(_with_diameter(last, stored), last_model)
                weights.save(_with_diameter(run.best_state or last, stored), output_model)
                write_json(json_path, summary)
                checkpoint.remove()
    return summary


def _summary(
    run: Run,
    params: TrainParams,
    train_fields: Sequence[TrainingField],
    valid_fields: Sequence[TrainingField],
    diameter: float,
) -> dict:
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
        "crops": last.epoch * (params.images_per_epoch or len(train_fields)),
        "fields": {"train": len(train_fields), "valid": len(valid_fields)},
        "cells": {
            "train": sum(field.cells for field in train_fields),
            "valid": sum(field.cells for field in valid_fields),
        },
        "diameter": diameter,
    }


@contextmanager
def _flows(
    flows_dir: Path | None,
    train_dir: Path,
    valid_dir: Path,
    cell_diameter: float | None,
    gamma: float,
    device: torch.device,
) -> Iterator[tuple[Path, Path]]:
    """Give the folders of flows to train and to validate on; compute them if there are none."""
    if flows_dir is not None:
        folders = (Path(flows_dir) / "train", Path(flows_dir) / "valid")
        for folder, prepared in zip(folders, (train_dir, valid_dir), strict=True):
            check_source(folder, load_pairs(prepared))
        yield folders
        return
    from cellular.preparing.flows import (
        write_sets,  # seconds to import, and not needed with flows_dir
    )

    with tempfile.TemporaryDirectory() as made:
        write_sets(
            {"train": Path(train_dir), "valid": Path(valid_dir)}, Path(made),
            cell_diameter=cell_diameter, gamma=gamma, device=device,
        )  # fmt: skip
        yield Path(made) / "train", Path(made) / "valid"


def _crowded(
    fields: Sequence[TrainingField], min_train_masks: int, folder: Path
) -> list[TrainingField]:
    """Return the fields with enough cells, and name the others."""
    crowded = [field for field in fields if field.cells >= min_train_masks]
    for field in fields:
        if field.cells < min_train_masks:
            log.warning("%s: fewer than %d cells, not trained on", field.name, min_train_masks)
    if not crowded:
        raise InputError(f"{folder}: no field has {min_train_masks} cells; lower --min_train_masks")
    return crowded


def _hash(state: weights.State) -> str:
    listing = hashlib.sha256()
    for key in sorted(state):
        listing.update(f"{key} {state[key].dtype} {tuple(state[key].shape)}".encode())
        listing.update(state[key].numpy().tobytes())
    return listing.hexdigest()


def _ap50(
    valid_dir: Path, flows: Path, diameter: float, params: TrainParams, device: torch.device
) -> Callable[[weights.State], float]:
    """Return a function that scores weights on the whole validation fields: mean AP@0.5."""
    from cellular.training.validation import mean_ap50  # seconds to import

    seen = SegmentParams(
        channels=params.channels, gamma=read_index(flows)["gamma"], precision=params.precision
    )

    def score(state: weights.State) -> float:
        return mean_ap50(_with_diameter(state, diameter), valid_dir, seen, device)

    return score


def _with_diameter(state: weights.State, diameter: float) -> weights.State:
    return state | {
        "diam_labels": torch.tensor([diameter]),
        "diam_mean": torch.tensor([weights.NETWORK_DIAMETER]),
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
