"""What the benchmarks of evaluation share: a prepared folder with the five real fields."""

import shutil
from pathlib import Path

from cellular.fetching.datasets import fetch_dataset
from cellular.fetching.pretrained import pretrained_state
from cellular.imaging.fields import MASKS
from cellular.network import weights

DIAMETER = 121  # px, the paper's


def prepared(folder: Path, fields: int = 5) -> Path:
    """Return a prepared folder of so many fields, copies of the five real ones."""
    raw = folder / "raw"
    if not raw.exists():
        fetch_dataset("sample", raw)
    images = sorted((raw / "images").iterdir())
    made = folder / f"fields_{fields}"
    made.mkdir()
    for number in range(fields):
        image = images[number % len(images)]
        shutil.copyfile(image, made / f"field_{number:02d}{image.suffix}")
        labels = raw / "masks" / f"{image.stem}.tif"
        shutil.copyfile(labels, made / f"field_{number:02d}{MASKS}.tif")
    return made


def pretrained(folder: Path) -> Path:
    """Return a file with the sample's pretrained weights."""
    path = folder / "weights"
    weights.save(pretrained_state("scellseg"), path)
    return path
