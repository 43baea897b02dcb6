"""Quality of the recipe in params.yaml on the sample: leave one time point out, three seeds.

Each time point is tested once; the one before it validates, the other three train. The peer is a
short plain recipe (`PLAIN`). Every finished run is kept in experiments/quality/, so that a
benchmark that was stopped goes on; the table is printed and written there as well.

All five are one field of view, one hour apart: this compares recipes on it, and says nothing of
other cells.
"""

import dataclasses
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from scipy import stats

from cellular.base import devices
from cellular.base.files import whole, write_json
from cellular.base.params import (
    Dynamics,
    Params,
    PrepareParams,
    SegmentParams,
    TrainParams,
    validate,
)
from cellular.fetching.datasets import fetch_dataset
from cellular.fetching.pretrained import pretrained_state
from cellular.imaging.fields import load_pairs, read_pair
from cellular.network.segmentation import load_model, segment
from cellular.preparing.flows import write_flows
from cellular.preparing.preparation import process_masks
from cellular.scoring.cells import table_of_cells
from cellular.scoring.scores import FieldResult, summarise
from cellular.training.finetuning import fine_tune

ROOT = Path(__file__).resolve().parents[1]
TIME_POINTS = 5
SEEDS = (0, 1, 2)
SCORES = ("AP@0.5", "AP@0.75", "pixel F1")
# The plain recipe: 20 epochs of 16 crops of 112 px, AdamW 5e-4, grey, Cellpose's schedule, the last
# weights, cells of 30 px. What is not named here is as in params.yaml.
PLAIN = {
    "prepare": {"cell_diameter": 30, "gamma": 1.0},
    "train": {
        "n_epochs": 20, "images_per_epoch": 16, "crop_size": 112, "use_sgd": False,
        "learning_rate": 5e-4, "schedule": "cellpose", "ema_decay": 0.0, "scale_range": None,
        "flip": True, "brightness": 0.0, "noise": 0.0, "keep": "last", "patience": None,
        "channels": [0, 0],
    },
    "eval": {"flow_threshold": 0.4, "cellprob_threshold": 0.0, "augment": False},
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Table:
    """The scores of two recipes on the same fields with the same seeds."""

    new: np.ndarray  # (runs, 3): AP@0.5, AP@0.75, pixel F1
    plain: np.ndarray
    seconds: tuple[float, float]  # of training, the median of the runs of each

    def line(self, name: str) -> str:
        """Return means, spreads and paired differences with their 95 % intervals."""
        rows = [f"{name}: {len(self.new)} runs each, {TIME_POINTS} time points, {len(SEEDS)} seeds"]
        for number, score in enumerate(SCORES):
            new, plain = self.new[:, number], self.plain[:, number]
            by_field = (new - plain).reshape(TIME_POINTS, len(SEEDS)).mean(axis=1)
            rows.append(
                f"  {score}: {new.mean():.3f} (sd {new.std(ddof=1):.3f}), plain "
                f"{plain.mean():.3f} (sd {plain.std(ddof=1):.3f}); difference "
                f"{(new - plain).mean():+.3f}, 95 % interval {_interval(new - plain)}, "
                f"over the {TIME_POINTS} time points' means {_interval(by_field)}"
            )
        rows.append(
            f"  training took {self.seconds[0]:.0f} s, plain {self.seconds[1]:.0f} s (medians)"
        )
        return "\n".join(rows)


def _interval(differences: np.ndarray) -> str:
    low, high = stats.t.interval(
        0.95, len(differences) - 1, differences.mean(), stats.sem(differences)
    )
    return f"{low:+.3f} to {high:+.3f}"


def run() -> Table:
    """Train and score what is not yet there, and return the table."""
    new = yaml.safe_load((ROOT / "params.yaml").read_text())
    plain = new | {section: new[section] | values for section, values in PLAIN.items()}
    results = [
        np.array(
            [
                _result(validate(Params, recipe, "recipe"), test, seed)
                for test in range(1, TIME_POINTS + 1)
                for seed in SEEDS
            ]
        )
        for recipe in (new, plain)
    ]
    table = Table(
        *(found[:, :3] for found in results),
        tuple(float(np.median(found[:, 3])) for found in results),
    )
    with whole(ROOT / "experiments/quality/table.txt") as staging:
        staging.write_text(table.line("quality") + "\n")
    return table


def _result(params: Params, test: int, seed: int) -> list[float]:
    """Return the three scores and the seconds of a run, from its file if there is one."""
    recipe = {
        "prepare": params.prepare.model_dump(include={"cell_diameter", "gamma"}),
        "train": params.train.model_dump(),
        "eval": {name: getattr(params.eval, name) for name in Dynamics.model_fields},
    }
    told = json.dumps([recipe, test, seed], sort_keys=True)
    name = hashlib.sha256(told.encode()).hexdigest()[:16]
    path = ROOT / "experiments/quality" / f"{name}.json"
    if not path.exists():
        with tempfile.TemporaryDirectory() as made:
            scores, seconds = _measure(recipe, test, seed, Path(made))
        found = dict(zip(SCORES, scores, strict=True)) | {"training_seconds": seconds}
        write_json(path, {"test": test, "seed": seed, **found, **recipe})
        shown = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
        print(f"  time point {test}, seed {seed}: {shown}", file=sys.stderr, flush=True)
    found = json.loads(path.read_text())
    return [*(found[score] for score in SCORES), found["training_seconds"]]


def _measure(recipe: dict, test: int, seed: int, folder: Path) -> tuple[list[float], float]:
    device = devices.choose("auto")
    fetch_dataset("sample", folder / "raw")
    valid = (test - 2) % TIME_POINTS + 1
    split = PrepareParams(
        val_pattern=f"Timepoint_00{valid}", test_pattern=f"Timepoint_00{test}", **recipe["prepare"]
    )
    prepared, flows = folder / "prepared", folder / "flows"
    process_masks(folder / "raw/masks", prepared, folder / "raw/images", split)
    write_flows(
        prepared, flows, cell_diameter=split.cell_diameter, gamma=split.gamma, device=device
    )
    params = TrainParams(**recipe["train"])
    start = time.perf_counter()
    fine_tune(
        pretrained_state(params.model_type, seed), prepared / "all/train", prepared / "all/valid",
        folder / "model", folder, params, flows_dir=flows / "all", seed=seed, device=device,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    seen = SegmentParams(channels=params.channels, gamma=split.gamma, **recipe["eval"])
    (pair,) = load_pairs(prepared / "all/test")
    image, truth = read_pair(pair)
    found = segment(load_model(folder / "model", device), image, seen)
    scores = summarise([FieldResult(pair.field, *table_of_cells(pair.field, truth, found))])
    precision = scores["objects"]["average_precision"]
    return [precision["0.5"], precision["0.75"], scores["cell"]["f1"]], seconds
