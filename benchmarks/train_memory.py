"""Training on 53 fields of 2048 px, mapped from disk, against all of them in memory.

The fields are copies of real ones, with their flows at full resolution: 1.3 GB of files.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import Result
from cellular.base.params import PrepareParams
from cellular.fetching.datasets import fetch_dataset
from cellular.fetching.pretrained import pretrained_state
from cellular.network import weights
from cellular.preparing.flows import write_sets
from cellular.preparing.preparation import process_masks

ROOT = Path(__file__).resolve().parents[1]
FIELDS = 53
ROUNDS = 3
# A process of its own for each run: the peak of memory is that of a process.
RUN = """
import dataclasses, json, resource, sys, time
from pathlib import Path
import numpy as np
sys.path.insert(0, "src")
from cellular.base import devices
from cellular.network import weights
from cellular.training.accelerators import launch
from cellular.base.params import TrainParams
from cellular.training.loop import train
from cellular.imaging.trainingset import open_fields
folder, mapped = Path(sys.argv[1]), sys.argv[2] == "mapped"
fields = open_fields(folder / "train", [0, 0])
if not mapped:
    read = [{"image": np.array(field.image), "flows": np.array(field.flows)} for field in fields]
    fields = [dataclasses.replace(field, **arrays) for field, arrays in zip(fields, read)]
params = TrainParams(n_epochs=2, use_sgd=False, learning_rate=5e-4, images_per_epoch=160,
                     valid_images=1, crop_size=112, keep="last")
device = devices.choose("auto")
net = weights.network(weights.load(folder / "pretrained")).to(device)
start = time.perf_counter()
train(net, fields, fields[:1], params, fabric=launch(device, params.precision))
seconds = time.perf_counter() - start
# Without what only maps files, which the system takes back when it needs the memory, as well.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
                  int(status["RssAnon"].split()[0]) / 1e6]))
"""


def run() -> Result:
    """Train on 320 crops in turns."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        fetch_dataset("sample", folder / "raw")
        split = PrepareParams(val_pattern="Timepoint_004", test_pattern="Timepoint_005")
        process_masks(folder / "raw/masks", folder / "prepared", folder / "raw/images", split)
        write_sets({"train": folder / "prepared/all/train"}, folder / "flows", cell_diameter=None)
        weights.save(pretrained_state("scellseg"), folder / "flows/pretrained")
        _multiply(folder / "flows/train")
        size = sum(path.stat().st_size for path in (folder / "flows/train").iterdir()) / 1e9
        times: dict[str, list] = {"mapped": [], "memory": []}
        for _ in range(1 + ROUNDS):
            for how, seen in times.items():
                command = [sys.executable, "-c", RUN, str(folder / "flows"), how]
                done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
                seen.append(json.loads(done.stdout.splitlines()[-1]))
    ours, peer = (min(seen[1:]) for seen in times.values())
    return Result(
        ours[0],
        peer[0],
        f"{FIELDS} fields, {size:.1f} GB; peak {ours[1]:.2f} GB mapped files included "
        f"({ours[2]:.2f} GB without), peer {peer[1]:.2f} GB",
    )


def _multiply(folder: Path) -> None:
    """Copy the fields of a training set until there are `FIELDS`."""
    index = json.loads((folder / "fields.json").read_text())
    fields = []
    for number in range(FIELDS):
        told = index["fields"][number % len(index["fields"])]
        name = f"field_{number:02d}"
        for kind in ("image", "flows"):
            shutil.copyfile(folder / f"{told['name']}_{kind}.npy", folder / f"{name}_{kind}.npy")
        fields.append(told | {"name": name})
    for told in index["fields"]:
        for kind in ("image", "flows"):
            (folder / f"{told['name']}_{kind}.npy").unlink()
    (folder / "fields.json").write_text(json.dumps(index | {"fields": fields}))
