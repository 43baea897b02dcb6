"""Training on NVIDIA GPUs: as on the CPU, but for rounding. Skipped where there is none."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.annotations import ROOT, disc
from helpers.interrupts import interrupted_at
from helpers.training_fields import in_memory

from cellular.network import weights
from cellular.training.accelerators import launch
from cellular.training.checkpoints import Checkpoint
from cellular.training.loop import Trainer, train
from cellular.training.params import TrainParams

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not GPUS, reason="there is no NVIDIA GPU")]

CPU, GPU = torch.device("cpu"), torch.device("cuda")
RECIPE = {"use_sgd": False, "learning_rate": 1e-3, "n_epochs": 3, "crop_size": 64, "batch_size": 2}


@pytest.fixture(scope="module")
def fields():
    labels = np.zeros((120, 140), np.uint16)
    for label, (y, x) in enumerate([(30, 30), (30, 90), (80, 40), (85, 100)], 1):
        labels[disc(y, x, 15, side=140)[:120]] = label
    image = np.random.default_rng(0).integers(0, 120, (120, 140, 3), np.uint8)
    image[labels > 0] += 100
    return [in_memory("field", image, labels)]


def trained(fields, device, precision, **options):
    """Return the weights and the records of a short training from random weights."""
    params = TrainParams(**RECIPE, images_per_epoch=8, valid_images=2, precision=precision)
    net = weights.network(weights.random_state(0)).to(device)
    fabric = launch(device, precision)
    run, state = train(net, fields, fields, params, fabric=fabric, **options)
    return state, run.epochs


def losses(epochs):
    return [value for epoch in epochs for value in (epoch.train_loss, epoch.valid_loss)]


@pytest.mark.parametrize("channels_last", [True, False])
def test_batches_are_copied_through_pinned_memory_unchanged(fields, channels_last):
    params = TrainParams(**RECIPE, images_per_epoch=8, channels_last=channels_last, precision="32")
    net = weights.network(weights.random_state(0)).to(GPU)
    trainer = Trainer(net, fields, fields, params, launch(GPU, "32"), seed=0)
    for batch in trainer.batches():
        for array in batch:
            copied = trainer._to_device(array)
            assert copied.is_cuda and np.array_equal(copied.cpu().numpy(), array)
            assert copied.is_contiguous(memory_format=trainer.layout)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("32", 1e-3), ("tf32", 0.01), ("bf16", 0.05), ("fp16", 0.02)]
)
def test_losses_are_those_of_the_cpu_within_the_rounding_of_the_precision(
    fields, precision, tolerance
):
    _, expected = trained(fields, CPU, "32")
    state, epochs = trained(fields, GPU, precision)
    assert losses(epochs) == pytest.approx(losses(expected), rel=tolerance)
    assert all(value.dtype != torch.float16 for value in state.values())
    assert torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
    assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")


@pytest.mark.parametrize("precision", ["32", "tf32", "bf16", "fp16"])
def test_a_run_that_is_interrupted_resumes_to_the_same_bytes(
    fields, monkeypatch, tmp_path, precision
):
    monkeypatch.setenv("CELLULAR_CACHE", str(tmp_path))
    expected, _ = trained(fields, GPU, precision)
    interrupted_at(6, monkeypatch)
    with Checkpoint("interrupted") as checkpoint:
        with pytest.raises(KeyboardInterrupt):
            trained(fields, GPU, precision, checkpoint=checkpoint)
        saved = checkpoint.load()["precision"]
        assert bool(saved) == (precision == "fp16")  # the scale by which fp16 multiplies the loss
        state, _ = trained(fields, GPU, precision, checkpoint=checkpoint)
    assert weights.to_bytes(state) == weights.to_bytes(expected)


@pytest.mark.skipif(GPUS < 2, reason="there are not two NVIDIA GPUs")
def test_two_gpus_do_the_same_as_one_with_twice_the_batch(pieces, pretrained, tmp_path):
    summaries = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        command = [
            *(Path(sys.executable).parent / "torchrun", "--nproc-per-node", count),
            *(ROOT / "src/train.py", "--train_dir", pieces / "train"),
            *("--valid_dir", pieces / "valid", "--weights", pretrained, "--cell_diameter", 30),
            *("--output_model", folder / "model", "--metrics_dir", folder, "--n_epochs", 3),
            *("--learning_rate", 0.05, "--crop_size", 64, "--images_per_epoch", 8),
            *("--batch_size", 4 // count, "--min_train_masks", 1, "--precision", 32),
        ]
        subprocess.run([str(part) for part in command], check=True)
        summaries.append(json.loads((folder / "train.json").read_text()))
    # Without synchronised batch normalisation they would differ by several per cent.
    for name in ("train_loss", "valid_loss"):
        assert summaries[1][name] == pytest.approx(summaries[0][name], rel=1e-3)
