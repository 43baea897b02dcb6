"""How far the numbers of metrics/summary.json differ between machines, and between seeds.

Needs a finished `make repro`. The default training and evaluation are repeated with other rounding
(another precision and another number of threads, which differ from machine to machine) and with
other seeds. Every finished run is kept in experiments/tolerance/, so that a benchmark that was
stopped resumes. Writes metrics/tolerances.json, which src/check_reproduction.py reads.
"""

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import ROOT, Message
from benchmarks._sample import prepare, pretrained, raw
from benchmarks._training import name_of
from cellular.base.devices import choose, choose_precision
from cellular.base.files import write_json
from cellular.scoring.results import read_json, read_scores
from cellular.scoring.summary import summary_of
from parameters import Params, load_params

# Parameters of training and evaluation that change rounding only, and numbers of threads.
ROUNDING: dict[str, dict[str, Any]] = {
    "32 bits": {"precision": "32"},
    "one thread": {"threads": 1},
}
SEEDS: dict[str, dict[str, Any]] = {f"seed {seed}": {"seed": seed} for seed in (1, 2, 3)}
SMALL = {"n_epochs": 1, "images_per_epoch": 4, "valid_images": 1}
HOW = (
    "The tolerance of a number is three standard deviations of the difference between two of the "
    "runs listed here, rounded up to three digits: the committed run (default parameters, seed "
    "{seed}), and others with other rounding or another seed; measured by make bench-tolerance."
)


def run(small: bool = False) -> Message:
    """Measure what was not measured yet, and write the tolerances; `small` writes nothing."""
    params = load_params(ROOT / "params.yaml")
    if small:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            source = raw(folder, small)
            prepared, flows = prepare(source, folder, params.prepare)
            found = _measure(params, SMALL, source, prepared, flows, pretrained(folder), folder)
        return Message(f"one short run, {len(found['test'])} numbers of the test split")
    committed = read_json(ROOT / "metrics/summary.json")
    data = ROOT / "data"
    inputs = (data / "raw", data / "prepared" / params.class_name, data / "flows")
    weights = ROOT / "models/pretrained/cellular_pretrained"
    missing = [str(path) for path in (*inputs, weights) if not path.exists()]
    if missing:
        raise SystemExit(f"error: {', '.join(missing)} missing; run `make repro` first")
    runs = {}
    for name, changes in (ROUNDING | SEEDS).items():
        # A run counts for the parameters that it was measured with, and for no others.
        measured = {"params": params.model_dump(), "changes": changes}
        path = ROOT / "experiments/tolerance" / f"{name.replace(' ', '_')}.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        if {key: known.get(key) for key in measured} != measured:
            with tempfile.TemporaryDirectory() as temporary:
                found = _measure(params, changes, *inputs, weights, Path(temporary))
            known = measured | {"summary": found}
            write_json(path, known)
            print(f"  {name}: {json.dumps(found)}", file=sys.stderr, flush=True)
        runs[name] = known["summary"]
    tolerances = tolerances_of(committed, list(runs.values()))
    processor = torch.cpu.get_capabilities().get("cpu_name") or platform.processor()
    write_json(
        ROOT / "metrics/tolerances.json",
        {
            "how": HOW.format(seed=params.seed),
            "machine": f"{processor}, {os.cpu_count()} cores; {name_of(choose())}, "
            f"committed run in {choose_precision(choose(), params.train.precision)}",
            "runs": {"committed": committed} | runs,
            "tolerances": tolerances,
        },
    )
    return Message(f"{len(runs)} runs; AP@0.5 of the test split {tolerances['test']['ap50']}")


def tolerances_of(committed: dict, runs: Sequence[dict]) -> dict:
    """Return the tolerance of each number of a summary, in the same nested form.

    A number that one of the runs does not have takes its tolerance from the others.
    """
    tolerances: dict[str, Any] = {}
    for name, value in committed.items():
        others = [found[name] for found in runs if name in found]
        if isinstance(value, dict):
            tolerances[name] = tolerances_of(value, others)
        else:
            # A difference of two has the square root of 2 times the deviation of one.
            tolerance = 3 * math.sqrt(2) * statistics.stdev([value, *others])
            tolerances[name] = math.ceil(round(tolerance * 1000, 1)) / 1000
    return tolerances


def _measure(
    params: Params,
    changes: dict[str, Any],
    source: Path,
    prepared: Path,
    flows: Path,
    weights: Path,
    folder: Path,
) -> dict:
    """Train, score and measure with some parameters changed, and return the summary."""
    flags = {name: str(value) for name, value in changes.items()}
    threads = {"OMP_NUM_THREADS": flags.pop("threads")} if "threads" in flags else {}
    seed = flags.pop("seed", params.seed)
    scored = {name: value for name, value in flags.items() if name == "precision"}
    evaluate = ["src/eval.py", "--seed", params.eval.seed, *_words(scored)]
    for command in (
        [
            *("src/train.py", "--seed", seed, *_words(flags), "--weights", weights),
            *("--train_dir", prepared / "train", "--valid_dir", prepared / "valid"),
            *("--flows_dir", flows, "--output_model", folder / "model", "--metrics_dir", folder),
        ],
        [
            *(*evaluate, "--model_path", folder / "model", "--output_dir", folder / "finetuned"),
            *("--test_dir", prepared / "test", prepared / "valid"),
            *("--channels", *params.train.channels),
            *("--diameter", params.diameter.finetuned),
        ],
        [
            *(*evaluate, "--model_path", weights, "--output_dir", folder / "scored"),
            *("--test_dir", prepared / "test", "--annotated_dir", prepared / "train"),
            *("--channels", *params.channels.pretrained),
            *("--diameter", params.diameter.pretrained),
        ],
        [
            *("src/measure.py", source, "--annotated", prepared / "test"),
            *("--labels", f"finetuned={folder / 'finetuned/images'}"),
            *("--dataset", params.dataset, "--seed", params.eval.seed),
            *("--output", folder / "readout"),
        ],
    ):
        done = subprocess.run(
            [sys.executable, *map(str, command), "--params", "params.yaml"],
            cwd=ROOT,
            env=os.environ | threads,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{done.stderr}")
    scores = {
        "finetuned": read_scores(folder / "finetuned", ("test", "valid")),
        "pretrained": read_scores(folder / "scored", ("test",)),
        "readout": read_json(folder / "readout.json"),
    }
    return summary_of(scores, read_json(folder / "train.json")["best_valid_loss"])


def _words(flags: dict[str, str]) -> list[str]:
    return [word for name, value in flags.items() for word in (f"--{name}", value)]
