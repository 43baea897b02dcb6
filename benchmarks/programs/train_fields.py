"""Train on fields that are mapped from disk or read into memory; print seconds and memory.

Arguments: folder with the training set and weights, `mapped` or `memory`, crops in an epoch.
Prints, as JSON: seconds, peak memory in GB, and memory without mapped files in GB, which the system
takes back when it needs them.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks import memory
from cellular.base import devices
from cellular.imaging.trainingset import open_fields
from cellular.network import weights
from cellular.training.accelerators import launch
from cellular.training.loop import train
from cellular.training.params import TrainParams

folder, mapped, crops = Path(sys.argv[1]), sys.argv[2] == "mapped", int(sys.argv[3])
fields = open_fields(folder / "train", [0, 0])
if not mapped:
    fields = [
        dataclasses.replace(
            field,
            image=np.array(field.image),
            flows=np.array(field.flows),
            labels=np.array(field.labels),
        )
        for field in fields
    ]
params = TrainParams(
    n_epochs=2,
    use_sgd=False,
    learning_rate=5e-4,
    images_per_epoch=crops,
    valid_images=1,
    crop_size=112,
    keep="last",
)
device = devices.choose("auto")
net = weights.network(weights.load(folder / "pretrained")).to(device)
start = time.perf_counter()
train(net, fields, fields[:1], params, fabric=launch(device, params.precision))
print(json.dumps([time.perf_counter() - start, memory("VmHWM"), memory("RssAnon")]))
