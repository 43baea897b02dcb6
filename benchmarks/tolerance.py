"""How far the numbers of metrics/summary.json differ between machines, and between seeds.

Needs a finished `make repro`. The default training and evaluation are repeated with other rounding
(another precision, another number of threads: what differs from machine to machine) and with other
seeds. Every finished run is kept in experiments/tolerance/, so that a benchmark that was stopped
resumes. Writes metrics/tolerances.json, which src/check_reproduction.py reads.
"""

import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks import Message
from cellular.base.devices import choose_precision
from cellular.base.files import write_json
from cellular.base.params import flat, read_params
from cellular.scoring.results import read_json, read_scores
from cellular.scoring.summary import summary_of

ROOT = Path(__file__).resolve().parents[1]
DIGITS = 3  # to which tolerances are rounded up
VARIATIONS: dict[str, dict[str, str]] = {
    "32 bits": {"precision": "32"},
    "one thread": {"threads": "1"},
    **{f"seed {seed}": {"seed": str(seed)} for seed in range(1, 4)},
}
HOW = (
    "largest difference from the committed run in runs that differ in rounding or in the seed, "
    "rounded up to three digits; measured by make bench-tolerance"
)


def run(small: bool = False) -> Message:
    """Measure what is not there yet, and write the tolerances; `small` writes nothing."""
    if small:
        with tempfile.TemporaryDirectory() as folder:
            _measure({"n_epochs": "1", "images_per_epoch": "4"}, Path(folder))
        return Message("one short run")
    runs = {}
    for name, variation in VARIATIONS.items():
        kept = ROOT / "experiments/tolerance" / f"{name.replace(' ', '_')}.json"
        if not kept.exists():
            with tempfile.TemporaryDirectory() as folder:
                write_json(kept, _measure(variation, Path(folder)))
            print(f"  {name}: {json.dumps(read_json(kept))}", file=sys.stderr, flush=True)
        runs[name] = read_json(kept)
    committed = read_json(ROOT / "metrics/summary.json")
    tolerances = {
        number: max(abs(dict(flat(found))[number] - value) for found in runs.values())
        for number, value in flat(committed)
    }
    unit = 10**DIGITS
    tolerances = {name: math.ceil(value * unit) / unit for name, value in tolerances.items()}
    machine = torch.cpu.get_capabilities().get("cpu_name") or platform.processor()
    precision = choose_precision(torch.device("cpu"))
    write_json(
        ROOT / "metrics/tolerances.json",
        {
            "how": HOW,
            "machine": f"{machine}, {os.cpu_count()} cores, committed run in {precision}",
            "tolerances": tolerances,
            "runs": {"committed": committed} | runs,
        },
    )
    largest = max(tolerances, key=lambda name: tolerances[name])
    return Message(f"{len(runs)} runs; largest tolerance {largest}: {tolerances[largest]}")


def _measure(variation: dict[str, str], folder: Path) -> dict:
    """Train and score with some parameters changed, and return the summary."""
    params = read_params(ROOT / "params.yaml")
    changed = dict(variation)
    environment = os.environ | {"OMP_NUM_THREADS": changed.pop("threads", "")}
    if not environment["OMP_NUM_THREADS"]:
        del environment["OMP_NUM_THREADS"]
    prepared = ROOT / "data/prepared" / params["class_name"]
    common = ["--params", "params.yaml", "--seed"]
    seed = changed.pop("seed", str(params["seed"]))
    flags = [word for name, value in changed.items() for word in (f"--{name}", value)]
    train = [
        *("src/train.py", *common, seed, "--weights", "models/pretrained"),
        *("--train_dir", prepared / "train", "--valid_dir", prepared / "valid"),
        *("--flows_dir", "data/flows", "--output_model", folder / "model"),
        *("--metrics_dir", folder, *flags),
    ]
    precision = ["--precision", changed["precision"]] if "precision" in changed else []
    evaluate = [
        *("src/eval.py", *common, str(params["eval"]["seed"]), "--model_path", folder / "model"),
        *("--test_dir", prepared / "test", prepared / "valid"),
        *("--output_dir", folder / "finetuned"),
        *("--channels", *params["train"]["channels"], "--gamma", params["prepare"]["gamma"]),
        *("--diameter", params["diameter"]["finetuned"], *precision),
    ]
    pretrained = [
        *("src/eval.py", *common, str(params["eval"]["seed"]), "--model_path", "models/pretrained"),
        *("--test_dir", prepared / "test", "--output_dir", folder / "pretrained"),
        *("--diameter", params["diameter"]["pretrained"], *precision),
    ]
    for command in (train, evaluate, pretrained):
        subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=ROOT,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    scores = {
        "finetuned": read_scores(folder / "finetuned", ("test", "valid")),
        "pretrained": read_scores(folder / "pretrained", ("test",)),
    }
    return summary_of(scores, read_json(folder / "train.json")["best_valid_loss"])
