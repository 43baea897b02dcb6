"""How well the models of a finished `make repro` find the cells of wells that they have not seen.

The data set `unseen` has the fields of two wells with a box for every cell. Both models are scored
by boxes (docs/scores.md), with the settings that the stage `evaluate` gives them.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from benchmarks import ROOT, Message
from benchmarks._sample import fields, pretrained, raw
from cellular.base import devices
from cellular.evaluating.evaluation import evaluate
from cellular.evaluating.params import Inference, Scoring, SegmentParams
from cellular.fetching.datasets import fetch_dataset
from cellular.imaging.boxes import boxes_of, load_boxes
from cellular.imaging.fields import load_pairs, origin
from cellular.imaging.images import read_labels
from parameters import Params, load_params

HEADERS = ("model", "fields", "boxes", "F1", "precision", "recall", "F1 at 0.75", "95 % of F1")


def run(small: bool = False) -> Message:
    """Score both models; `small`: the pretrained one, on a corner of a field of the sample."""
    params = load_params(ROOT / "params.yaml")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if small:
            annotated = test_dir = _corner(folder)
            models = {"pretrained": pretrained(folder)}
        else:
            annotated = ROOT / "data/prepared" / params.class_name / "train"
            names = ("pretrained", "finetuned")
            models = {name: ROOT / f"models/{name}/cellular_{name}" for name in names}
            missing = [str(path) for path in (annotated, *models.values()) if not path.exists()]
            if missing:
                raise SystemExit(f"error: {', '.join(missing)} missing; run `make repro` first")
            test_dir = folder / "unseen"
            fetch_dataset("unseen", test_dir)
        device = devices.choose()
        wells = Counter(origin(pair.field).get("well") for pair in load_boxes(test_dir))
        rows: list[tuple] = []
        for name, weights in models.items():
            (scores,) = evaluate(
                [test_dir],
                weights,
                folder / f"scores_{name}",
                _settings(params, name),
                Scoring(**params.eval.model_dump(include=set(Scoring.model_fields))),
                annotated_dir=annotated,
                seed=params.eval.seed,
                device=device,
            ).values()
            rows += _rows(name, scores, wells)
    table = tabulate(rows, HEADERS, floatfmt=".3f")
    how = f"{device.type}, {torch.get_num_threads()} threads, {scores['run']['precision']}"
    return Message(f"means over fields; wells: all of their cells together; {how}\n{table}")


def _settings(params: Params, model: str) -> SegmentParams:
    """Return the settings of a model, as dvc.yaml gives them to the stage evaluate."""
    if model == "pretrained":
        own = {"channels": params.channels.pretrained, "diameter": params.diameter.pretrained}
    else:
        own = {"channels": params.train.channels, "diameter": params.diameter.finetuned}
    return SegmentParams(**params.eval.model_dump(include=set(Inference.model_fields)), **own)


def _rows(model: str, scores: dict, wells: Counter) -> Iterator[tuple]:
    """Give the row of all fields, then one for each well; `wells` has their numbers of fields."""
    of, counts = scores["objects"], scores["counts"]
    values = (of.get("f1"), of.get("precision"), of.get("recall"), of["strict"].get("f1"))
    (intervals,) = (scores[name] for name in scores if name.startswith("interval_by_"))
    interval = intervals.get("objects", {}).get("f1")
    shown = f"{interval['low']:.3f} to {interval['high']:.3f}" if interval else ""
    yield model, scores["fields"], counts["cells"], *values, shown
    for well, group in scores["groups"].get("well", {}).items():
        shares = [group.get(name) for name in ("f1", "precision", "recall")]
        yield f"  {well}", wells[well], group["cells"], *shares


def _corner(folder: Path) -> Path:
    """Return a folder with a corner of a field, and boxes in place of its masks."""
    test_dir = fields(raw(folder, small=True), folder, count=1)
    (pair,) = load_pairs(test_dir)
    labels = read_labels(pair.labels)
    top, left, bottom, right = (boxes_of(labels) / np.tile(labels.shape, 2)).T
    columns = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    lines = np.stack([np.zeros(len(top)), *columns], axis=1)
    np.savetxt(pair.image.with_suffix(".txt"), lines, fmt=["%d", *["%.8f"] * 4])
    pair.labels.unlink()
    return test_dir
