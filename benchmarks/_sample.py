"""The input of the benchmarks: the sample's five real fields, or a corner of each."""

import shutil
from pathlib import Path

import cv2
import tifffile
import torch

from cellular.fetching.datasets import fetch_dataset
from cellular.fetching.pretrained import pretrained_state
from cellular.imaging.fields import ALL, MASKS
from cellular.imaging.images import read_image, read_labels, write_labels
from cellular.imaging.masks import relabel
from cellular.network import weights
from cellular.preparing.params import PrepareParams
from cellular.preparing.preparation import process_masks

DIAMETER = 121  # pixels, mean diameter of the cells, the paper's
CORNER = 480  # pixels; some ten cells


def raw(folder: Path, small: bool = False) -> Path:
    """Return `<folder>/raw` with the fields; `small`: with the top left corner of each."""
    output = folder / "raw"
    fetch_dataset("sample", output)
    if small:
        corner = (slice(0, CORNER), slice(0, CORNER))
        for image in sorted((output / "images").iterdir()):
            pixels = read_image(image)[corner]
            image.unlink()
            cv2.imwrite(str(image.with_suffix(".png")), pixels[..., ::-1])
        for path in sorted((output / "channels").iterdir()):
            tifffile.imwrite(path, tifffile.imread(path)[corner])
        for path in sorted((output / "masks").iterdir()):
            write_labels(path, relabel(read_labels(path)[corner]))
    return output


def fields(source: Path, folder: Path, count: int = 5) -> Path:
    """Return a prepared folder with `count` copies of the fields in `source`, taken in turns."""
    images = sorted((source / "images").iterdir())
    output = folder / f"fields_{count}"
    output.mkdir()
    for number in range(count):
        image = images[number % len(images)]
        labels = source / "masks" / f"{image.stem}.tif"
        shutil.copyfile(image, output / f"field_{number:02d}{image.suffix}")
        shutil.copyfile(labels, output / f"field_{number:02d}{MASKS}.tif")
    return output


def prepare(
    source: Path, folder: Path, params: PrepareParams, device: torch.device | None = None
) -> tuple[Path, Path]:
    """Prepare the fields in `source`; return the folder of their splits, and that of flows."""
    process_masks(
        *(source / "masks", folder / "prepared", source / "images", params),
        flows_dir=folder / "flows",
        device=device,
    )
    return folder / "prepared" / ALL, folder / "flows"


def pretrained(folder: Path) -> Path:
    """Return a file with the sample's pretrained weights."""
    path = folder / "pretrained"
    weights.save(pretrained_state("scellseg"), path)
    return path
