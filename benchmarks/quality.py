"""Quality of the recipe in params.yaml on the sample: leave one time point out, three seeds.

Each time point is tested once; the one before it validates, the other three train. The peer is a
short plain recipe (`PLAIN`). Every finished run is kept in experiments/quality/, so that a
benchmark that was stopped resumes; the table is printed, and written there as well.

All five are one field of view, one hour apart: the table compares recipes on that field, and says
nothing of other cells.
"""

import dataclasses
import functools
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from benchmarks import ROOT
from benchmarks._sample import prepare, raw
from cellular.base import devices
from cellular.base.files import whole, write_json
from cellular.base.params import read_params, validate
from cellular.evaluating.params import Inference, SegmentParams
from cellular.fetching.pretrained import pretrained_state
from cellular.imaging.fields import load_pairs, read_pair
from cellular.network.segmentation import load_model, segment
from cellular.preparing.params import PrepareParams
from cellular.scoring.cells import table_of_cells
from cellular.scoring.scores import FieldResult, summarise
from cellular.training.finetuning import Outputs, fine_tune
from cellular.training.params import TrainParams
from parameters import Params

TIME_POINTS = 5
SEEDS = (0, 1, 2)
SCORES = ("AP@0.5", "AP@0.75", "pixel F1")
# The plain recipe: 20 epochs of 16 crops of 112 px, AdamW 5e-4, grey, Cellpose's schedule, the last
# weights, cells of 30 px. Everything else is as in params.yaml.
PLAIN = {
    "prepare": {"cell_diameter": 30},
    "train": {
        "n_epochs": 20,
        "images_per_epoch": 16,
        "crop_size": 112,
        "use_sgd": False,
        "learning_rate": 5e-4,
        "schedule": "cellpose",
        "scale_range": None,
        "flip": True,
        "paste_cells": 0.0,
        "background_weight": 1.0,
        "keep": "last",
        "patience": None,
        "channels": [0, 0],
    },
    "eval": {"flow_threshold": 0.4, "cellprob_threshold": 0.0, "augment": False},
}
SMALL = {"n_epochs": 1, "images_per_epoch": 2, "valid_images": 1, "batch_size": 2}


starting_weights = functools.cache(pretrained_state)  # unpacking takes seconds


@dataclasses.dataclass(frozen=True)
class Table:
    """The scores of two recipes on the same fields with the same seeds."""

    new: np.ndarray  # (time points, seeds, 4): `SCORES`, and seconds of training
    plain: np.ndarray

    def line(self, name: str) -> str:
        """Return means, spreads and paired differences with their 95 % intervals."""
        time_points, seeds, _ = self.new.shape
        rows = [
            f"{name}: {time_points * seeds} runs each, {time_points} time points, {seeds} seeds"
        ]
        for number, score in enumerate(SCORES):
            new, plain = self.new[..., number], self.plain[..., number]
            rows.append(
                f"  {score}: {new.mean():.3f} (sd {new.std(ddof=1):.3f}), plain "
                f"{plain.mean():.3f} (sd {plain.std(ddof=1):.3f}); difference "
                f"{(new - plain).mean():+.3f}, 95 % interval {_interval((new - plain).ravel())}, "
                f"over the {time_points} time points' means "
                f"{_interval((new - plain).mean(axis=1))}"
            )
        seconds = [float(np.median(recipe[..., -1])) for recipe in (self.new, self.plain)]
        rows.append(f"  training took {seconds[0]:.0f} s, plain {seconds[1]:.0f} s (medians)")
        return "\n".join(rows)


def _interval(differences: np.ndarray) -> str:
    low, high = stats.t.interval(
        0.95, len(differences) - 1, differences.mean(), stats.sem(differences)
    )
    return f"{low:+.3f} to {high:+.3f}"


def run(small: bool = False) -> Table:
    """Train and score what was not yet, and return the table."""
    with tempfile.TemporaryDirectory() as temporary:
        source = raw(Path(temporary), small)
        if small:
            return _table(source, Path(temporary), range(1, 3), SEEDS[:1], SMALL)
        folder = ROOT / "experiments/quality"
        table = _table(source, folder, range(1, TIME_POINTS + 1), SEEDS, {})
    with whole(folder / "table.txt") as staging:
        staging.write_text(table.line("quality") + "\n")
    return table


def _table(
    source: Path, folder: Path, tests: Sequence[int], seeds: Sequence[int], changes: dict
) -> Table:
    """Return the scores of both recipes, whose training has these changes; keep them in folder."""
    new = read_params(ROOT / "params.yaml")
    plain = new | {section: new[section] | values for section, values in PLAIN.items()}
    scores = []
    for recipe in (new, plain):
        changed = recipe | {"train": recipe["train"] | changes}
        params = validate(Params, changed, "recipe")
        scores.append(
            [[_result(params, test, seed, source, folder) for seed in seeds] for test in tests]
        )
    return Table(*map(np.array, scores))


def _result(params: Params, test: int, seed: int, source: Path, folder: Path) -> list[float]:
    """Return the three scores and the seconds of a run, from its file if there is one."""
    recipe = {
        "prepare": params.prepare.model_dump(include={"cell_diameter"}),
        "train": params.train.model_dump(),
        "eval": {name: getattr(params.eval, name) for name in Inference.model_fields},
    }
    identity = json.dumps([recipe, test, seed], sort_keys=True)
    path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"
    if not path.exists():
        with tempfile.TemporaryDirectory() as temporary:
            scores, seconds = _measure(recipe, test, seed, source, Path(temporary))
        found = dict(zip(SCORES, scores, strict=True)) | {"training_seconds": seconds}
        write_json(path, {"test": test, "seed": seed, **found, **recipe})
        shown = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
        print(f"  time point {test}, seed {seed}: {shown}", file=sys.stderr, flush=True)
    found = json.loads(path.read_text())
    return [*(found[score] for score in SCORES), found["training_seconds"]]


def _measure(
    recipe: dict, test: int, seed: int, source: Path, folder: Path
) -> tuple[list[float], float]:
    """Train without a time point and score it: the scores, and the seconds of training."""
    device = devices.choose("auto")
    valid = (test - 2) % TIME_POINTS + 1
    split = PrepareParams(
        val_pattern=f"Timepoint_00{valid}", test_pattern=f"Timepoint_00{test}", **recipe["prepare"]
    )
    prepared, flows = prepare(source, folder, split, device)
    params = TrainParams(**recipe["train"] | {"all_fields": False})
    state = starting_weights(params.model_type, seed)
    start = time.perf_counter()
    fine_tune(
        state,
        {name: flows / name for name in ("train", "valid")},
        Outputs(folder / "model", folder / "last", folder),
        params,
        valid_dir=prepared / "valid",
        seed=seed,
        device=device,
    )
    seconds = time.perf_counter() - start
    segmentation = SegmentParams(channels=params.channels, **recipe["eval"])
    (pair,) = load_pairs(prepared / "test")
    image, truth = read_pair(pair)
    predicted = segment(load_model(folder / "model", device), image, segmentation.settings())
    scores = summarise([FieldResult(pair.field, *table_of_cells(pair.field, truth, predicted))])
    precision = scores["objects"]["average_precision"]
    return [precision["0.5"], precision["0.75"], scores["cell"]["f1"]], seconds
