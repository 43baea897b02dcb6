"""From the start of the process to the first step, of the second run of a sweep on the sample.

Ours is the train stage as DVC calls it, with the flows that `prepare` made; the peer's a script
that reads the same prepared folders and calls `cellpose.train.train_seg`.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks import Result
from cellular.base.params import PrepareParams
from cellular.fetching.datasets import fetch_dataset
from cellular.fetching.pretrained import pretrained_state
from cellular.network import weights
from cellular.preparing.flows import write_flows
from cellular.preparing.preparation import process_masks

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 2
# Ends the process when the network is called for the first time, and tells the time.
WATCH = """
import os, sys, time, runpy
from torch.nn.modules import module
def first(*_):
    print(time.monotonic(), flush=True)
    os._exit(0)
module.register_module_forward_pre_hook(first)
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
PEER = """
import sys
from cellpose import io, models, train
folder, pretrained, save_path = sys.argv[1:]
data = io.load_train_test_data(f"{folder}/train", f"{folder}/valid", mask_filter="_masks")
images, labels, _, test_images, test_labels, _ = data
net = models.CellposeModel(pretrained_model=pretrained).net
train.train_seg(net, train_data=images, train_labels=labels, test_data=test_images,
    test_labels=test_labels, channels=[0, 0], n_epochs=1, save_path=save_path)
"""


def run() -> Result:
    """Start both in turns."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        fetch_dataset("sample", folder / "raw")
        prepare = PrepareParams(**params["prepare"])
        prepared = folder / "prepared"
        process_masks(folder / "raw/masks", prepared, folder / "raw/images", prepare)
        write_flows(
            prepared, folder / "flows", cell_diameter=prepare.cell_diameter, gamma=prepare.gamma
        )
        weights.save(pretrained_state("scellseg"), folder / "pretrained")
        (folder / "peer.py").write_text(PEER)
        flags = [
            part
            for name, value in params["train"].items()
            if name not in ("model_type", "flip", "rescale")
            for part in (f"--{name}", *map(str, value if isinstance(value, list) else [value]))
        ]
        ours = [
            ROOT / "src/train.py", "--train_dir", prepared / "all/train",
            "--valid_dir", prepared / "all/valid", "--flows_dir", folder / "flows/all",
            "--output_model", folder / "out", "--metrics_dir", folder,
            *flags, "--model_type", folder / "pretrained",
        ]  # fmt: skip
        peer = [folder / "peer.py", prepared / "all", folder / "pretrained", folder]
        times: list[tuple[float, float]] = []
        for _ in range(1 + ROUNDS):
            times.append((_to_first_step(ours, folder), _to_first_step(peer, folder)))
    return Result(*(statistics.median(column) for column in zip(*times[1:], strict=True)))


def _to_first_step(script: list[object], folder: Path) -> float:
    environment = os.environ | {"CELLULAR_CACHE": str(folder / "cache")}
    command = [sys.executable, "-c", WATCH, *map(str, script)]
    start = time.monotonic()
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1]) - start
