"""From the start of the process to the first step, of the second run of a sweep on the sample.

Ours is the train stage as DVC calls it, with the flows that `prepare` wrote; the peer is a script
that reads the same prepared folders and calls `cellpose.train.train_seg`.
"""

import tempfile
import time
from pathlib import Path

from benchmarks import ROOT, Result, medians, program
from benchmarks._sample import prepare, pretrained, raw
from parameters import load_params

ROUNDS = 2


def run(small: bool = False) -> Result:
    """Start both in turns."""
    params_file = ROOT / "params.yaml"
    params = load_params(params_file).prepare
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepared, flows = prepare(raw(folder, small), folder, params)
        weights = pretrained(folder)
        ours = [
            *("src/train.py", "--params", params_file, "--weights", weights),
            *("--train_dir", prepared / "train", "--valid_dir", prepared / "valid"),
            *("--flows_dir", flows, "--output_model", folder / "out", "--metrics_dir", folder),
        ]
        peer = ["benchmarks/programs/train_seg.py", prepared, weights, folder]
        rounds = 1 if small else 1 + ROUNDS  # the first fills the caches and does not count
        times = [
            (_to_first_step(ours, folder), _to_first_step(peer, folder)) for _ in range(rounds)
        ]
    return medians(times[-ROUNDS:])


def _to_first_step(script: list, folder: Path) -> float:
    """Return the seconds until a script first calls the network."""
    start = time.monotonic()
    return float(program("first_step.py", *script, CELLULAR_CACHE=folder / "cache")) - start
