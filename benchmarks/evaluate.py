"""Evaluation of the five real fields, all scores and files included, against the authors' way.

Ours is measured in the precision in which the device is fastest, and in 32 bits.

Theirs: Cellpose's `eval` with its defaults, scikit-learn's scores of the flattened masks, and two
pictures of each field by matplotlib; one image after the other.
"""

import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from cellpose.metrics import average_precision
from cellpose.models import CellposeModel
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from benchmarks import Result, program
from benchmarks._sample import DIAMETER, fields, pretrained, raw
from cellular.base import devices
from cellular.base.params import Precision
from cellular.evaluating.evaluation import evaluate
from cellular.evaluating.params import Scoring, SegmentParams
from cellular.imaging.fields import load_pairs, read_pair


def peak_memory(test_dir: Path, weights: Path, output: Path) -> float:
    """Return the peak memory of src/eval.py on a folder, in GB."""
    folders = ("--test_dir", test_dir, "--model_path", weights, "--output_dir", output)
    return float(program("peak_memory.py", "src/eval.py", *folders, "--diameter", DIAMETER))


def run(small: bool = False) -> Result:
    """Evaluate the five fields: ours, theirs, ours again, after a warm-up of both.

    Theirs takes minutes, so it has one round, and a piece of a field to warm up; of our two rounds
    the slower one counts.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        test_dir = fields(raw(folder, small), folder, 1 if small else 5)
        weights = pretrained(folder)
        device = devices.choose("auto")
        pairs = load_pairs(test_dir)
        model = CellposeModel(pretrained_model=str(weights), device=device)
        model.eval(read_pair(pairs[0])[0][:300, :300], channels=[0, 0], diameter=DIAMETER)

        def ours(output: Path, precision: Precision = "auto") -> float:
            params = SegmentParams(diameter=DIAMETER, precision=precision)
            start = time.perf_counter()
            summary = evaluate([test_dir], weights, output, params, Scoring(), device=device)
            found.append(summary[test_dir.name]["objects"]["average_precision"]["0.5"])
            return time.perf_counter() - start

        found: list[float] = []
        ours(folder / "warm_up")
        seconds = ours(folder / "before")
        start = time.perf_counter()
        precisions = [
            _authors_way(model, *read_pair(pair), folder / "theirs", pair.field) for pair in pairs
        ]
        peer = time.perf_counter() - start
        seconds = max(seconds, ours(folder / "after"))
        exact = ours(folder / "exact", "32") / len(pairs)
        memory = peak_memory(test_dir, weights, folder / "memory")
    theirs = float(np.mean(precisions))
    note = (
        f"a field (in 32 bits {exact:.3f} s); AP@0.5 {found[1]:.4f}, peer {theirs:.4f} "
        f"({found[1] - theirs:+.4f}); {device.type}, {torch.get_num_threads()} threads, "
        f"{devices.choose_precision(device)}; peak {memory:.2f} GB"
    )
    return Result(seconds / len(pairs), peer / len(pairs), note)


def _authors_way(
    model: CellposeModel, image: np.ndarray, truth: np.ndarray, folder: Path, field: str
) -> float:
    """Segment, score and draw a field as the authors do; return AP@0.5."""
    predicted = model.eval(image, channels=[0, 0], diameter=DIAMETER)[0]
    flat = [(labels > 0).astype(np.uint8).ravel() for labels in (truth, predicted)]
    for score in (precision_score, recall_score, f1_score, jaccard_score):
        score(*flat, average=None)
    folder.mkdir(exist_ok=True)
    for name, labels in (("true", truth), ("predicted", predicted)):
        figure, axes = plt.subplots(figsize=(10, 10))
        axes.imshow(image)
        axes.imshow(np.ma.masked_equal(labels, 0), cmap="prism", alpha=0.4)
        axes.axis("off")
        figure.savefig(folder / f"{field}_{name}.png")
        plt.close(figure)
    return float(average_precision(truth, predicted, threshold=[0.5])[0][0])
