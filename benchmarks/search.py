"""A search against a grid of as many trials: the best validation score that each of them finds.

The grid is what `dvc exp run --queue` would run: four learning rates with each of four batch sizes.
The search draws from the same ranges, and begins, as always, with the default recipe. Each
repetition has another seed, for the crops and for the sampler. All of it runs in a temporary clone
of the last commit, with a cache of its own.
"""

import itertools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tabulate import tabulate

from benchmarks import ROOT, Message
from benchmarks._sample import raw
from cellular.base.params import flat
from cellular.experiments.clones import git
from cellular.experiments.runner import Experiment, read_json, run_all
from cellular.experiments.search import SUMMARY, TARGETS, Place
from cellular.experiments.space import Search

SCORE = "valid.ap50"
RATES = [1e-4, 3.68e-4, 1.36e-3, 5e-3]
BATCHES = [1, 2, 4, 8]
SEEDS = 3
WORKERS = 2
HEADERS = ("seed", "grid", "search", "its trial 0, the default recipe", "its best trial")
SMALL = {"model_type": "scratch", "n_epochs": 1, "images_per_epoch": 1, "valid_images": 1}


def run(small: bool = False) -> Message:
    """Run both with each seed; `small`: one trial each, on corners of the sample."""
    rates, batches, seeds = (RATES[:1], BATCHES[2:3], 1) if small else (RATES, BATCHES, SEEDS)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "repository"
        git(ROOT, "clone", "--quiet", "--shared", str(ROOT), str(root))
        overrides: dict[str, Any] = {}
        if small:
            source = raw(Path(temporary), small)
            overrides = {"dataset": "local", "data.path": str(source)}
            overrides |= {f"train.{name}": value for name, value in SMALL.items()}
        for seed in range(seeds):
            settings = Search(
                profile="quick",
                overrides=overrides | {"seed": seed},
                trials=len(rates) * len(batches),
                seed=seed,
                space={
                    "train.learning_rate": {"low": RATES[0], "high": RATES[-1], "log": True},
                    "train.batch_size": {"choices": batches},
                },
            )
            place = Place(root, settings, root / "experiments" / f"search-{seed}")
            grid = _grid(place, list(itertools.product(rates, batches)))
            search = _search(place)
            rows.append((seed, max(grid), search.max(), search[0], search.idxmax()))
            print(f"  seed {seed}: {list(search)}; grid {grid}", file=sys.stderr, flush=True)
    table = tabulate(rows, HEADERS, floatfmt=".4f")
    return Message(f"best {SCORE} of {settings.trials} trials each, quick profile\n{table}")


def _grid(place: Place, values: list[tuple[float, int]]) -> list[float]:
    """Run an experiment for each pair of learning rate and batch size; return their scores."""
    experiments = [
        Experiment(
            f"{place.folder.name.replace('search', 'grid')}-{number:02d}",
            place.base
            | {"train.learning_rate": rate, "train.batch_size": batch}
            | {"eval.skip": ["test", "train"]},
            TARGETS,
        )
        for number, (rate, batch) in enumerate(values)
    ]
    commits = run_all(place.root, experiments, workers=WORKERS, logs=place.root / "experiments")
    return [
        dict(flat(read_json(place.root, commits[each.name], SUMMARY)))[SCORE]
        for each in experiments
    ]


def _search(place: Place) -> pd.Series:
    """Run src/search.py; return the scores of its finished trials by their numbers."""
    name = place.folder.name
    settings = place.root / f"{name}.yaml"
    settings.write_text(yaml.safe_dump(place.settings.model_dump(mode="json")))
    command = [sys.executable, "src/search.py", "--settings", str(settings), "--study", name]
    command += ["--workers", str(WORKERS)]
    subprocess.run(command, cwd=place.root, check=True, stdout=subprocess.DEVNULL)
    return pd.read_csv(place.folder / "trials.csv", index_col="trial")[SCORE].dropna()
