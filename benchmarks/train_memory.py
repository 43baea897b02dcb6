"""Training on 53 fields of 2048 px, mapped from disk, against all of them in memory.

The fields are copies of real ones, with their flows at full resolution: 1.3 GB of files.
"""

import json
import shutil
import tempfile
from pathlib import Path

from benchmarks import Result, program
from benchmarks._sample import prepare, pretrained, raw
from cellular.preparing.params import PrepareParams


def run(small: bool = False) -> Result:
    """Train on 320 crops in turns."""
    count, rounds, crops = (4, 1, 2) if small else (53, 3, 160)
    split = PrepareParams(val_pattern="Timepoint_004", test_pattern="Timepoint_005")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _, flows = prepare(raw(folder, small), folder, split)
        pretrained(flows)
        _multiply(flows / "train", count)
        size = sum(path.stat().st_size for path in (flows / "train").iterdir()) / 1e9
        measured: dict[str, list[list[float]]] = {"mapped": [], "memory": []}
        for _ in range(rounds if small else 1 + rounds):
            for how, runs in measured.items():
                runs.append(json.loads(program("train_fields.py", flows, how, crops)))
    # The fastest after the first, which fills the caches.
    ours, peer = (min(runs[-rounds:]) for runs in measured.values())
    return Result(
        ours[0],
        peer[0],
        f"{count} fields, {size:.1f} GB; peak {ours[1]:.2f} GB mapped files included "
        f"({ours[2]:.2f} GB without), peer {peer[1]:.2f} GB",
    )


def _multiply(folder: Path, count: int) -> None:
    """Replace the fields of a training set by `count` copies of them, taken in turns."""
    index = json.loads((folder / "fields.json").read_text())
    fields = []
    for number in range(count):
        entry = index["fields"][number % len(index["fields"])]
        name = f"field_{number:02d}"
        for kind in entry["sha256"]:
            shutil.copyfile(folder / f"{entry['name']}_{kind}.npy", folder / f"{name}_{kind}.npy")
        fields.append(entry | {"name": name})
    for entry in index["fields"]:
        for kind in entry["sha256"]:
            (folder / f"{entry['name']}_{kind}.npy").unlink()
    (folder / "fields.json").write_text(json.dumps(index | {"fields": fields}))
