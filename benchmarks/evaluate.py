"""Evaluation of the five real fields, all scores and files included, against the authors' way.

`python -m benchmarks evaluate`: in the precision that the device is fastest in, and in 32 bits.

Theirs: Cellpose's `eval` with its defaults, scikit-learn's scores of the flattened masks, and two
pictures a field by matplotlib; one image after the other.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from cellpose.metrics import average_precision
from cellpose.models import CellposeModel
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from benchmarks import Result
from benchmarks._evaluation import DIAMETER, prepared, pretrained
from cellular.base import devices
from cellular.base.params import Scoring, SegmentParams
from cellular.evaluating.evaluation import evaluate
from cellular.imaging.fields import load_pairs, read_pair

ROOT = Path(__file__).resolve().parents[1]
# A process of its own: the peak of memory is that of a process. (getrusage would count what the
# process that started it had.)
RUN = """
import sys
from pathlib import Path
sys.path.insert(0, "src")
import eval
eval.main(sys.argv[1:])
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) / 1e6)
"""


def peak_memory(test_dir: Path, weights: Path, output: Path) -> float:
    """Return the peak memory of src/eval.py on a folder, in GB."""
    arguments = ["--test_dir", test_dir, "--model_path", weights, "--output_dir", output,
                 "--diameter", DIAMETER]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(done.stdout.splitlines()[-1])


def run() -> Result:
    """Evaluate the five fields: ours, theirs, ours again, after a warm-up of both.

    Theirs takes minutes, so it has one round, and a piece of a field to warm up; of our two rounds
    the slower one counts.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        test_dir, weights = prepared(folder), pretrained(folder)
        device = devices.choose("auto")
        pairs = load_pairs(test_dir)
        model = CellposeModel(pretrained_model=str(weights), device=device)
        model.eval(read_pair(pairs[0])[0][:300, :300], channels=[0, 0], diameter=DIAMETER)

        def ours(output: Path, precision: str = "auto") -> float:
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


def _authors_way(model, image: np.ndarray, truth: np.ndarray, folder: Path, field: str) -> float:
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
