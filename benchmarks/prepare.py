"""Preparing fields with hundreds of full-frame mask files: ours against the authors' way.

Theirs reads one file after another in grey, finds the object with `np.where` over the full frame,
and writes the label map (written anew here after the description of their script).
"""

import logging
import os
import resource
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks import Result, paired
from cellular.base.params import PrepareParams
from cellular.preparing.preparation import process_masks

SIDE = 2048
OBJECTS = 264  # 14,000 cells in 53 fields
# Four fields are enough for the ratio; BENCH_FIELDS=53 is the size of the data set (minutes).
COUNT = int(os.environ.get("BENCH_FIELDS", "4"))
FIELDS = [f"{n:02d}_{('ST_D01', 'ST_I06', 'ST_C03')[n % 3]}_s1" for n in range(COUNT)]


def make_field(folder: Path, field: str) -> None:
    """Write a field of the size and layout of the data set: an image and colour masks."""
    random = np.random.default_rng(FIELDS.index(field))
    image = random.integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    (folder / "images").mkdir(exist_ok=True, parents=True)
    cv2.imwrite(str(folder / "images" / f"{field}.jpg"), image)
    for number in range(OBJECTS):
        mask = np.zeros((SIDE, SIDE, 3), np.uint8)
        y, x = random.integers(70, SIDE - 70, 2).tolist()
        cv2.circle(mask, (x, y), 60, random.integers(1, 255, 3).tolist(), cv2.FILLED)
        target = folder / "masks" / field / ("fed" if number % 2 else "unfed")
        target.mkdir(exist_ok=True, parents=True)
        cv2.imwrite(str(target / f"cell_{number}.png"), mask)


def authors_way(masks: Path, output: Path) -> None:
    """Combine the masks of each class of each field, one file after another."""
    for field in os.listdir(masks):  # noqa: PTH208
        for class_name in os.listdir(masks / field):  # noqa: PTH208
            combined = np.zeros((SIDE, SIDE), np.uint16)
            for number, name in enumerate(os.listdir(masks / field / class_name), start=1):  # noqa: PTH208
                mask = cv2.imread(str(masks / field / class_name / name), cv2.IMREAD_GRAYSCALE)
                combined[np.where(mask > 0)] = number
            (output / class_name).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(output / class_name / f"{field}_masks.png"), combined)


def run() -> Result:
    """Prepare fields of 264 objects each."""
    logging.getLogger("cellular").setLevel(logging.ERROR)  # hidden objects are not the matter here
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(partial(make_field, folder), FIELDS))

        def ours() -> None:
            process_masks(
                folder / "masks", folder / "ours", folder / "images", PrepareParams(), force=True
            )

        rounds, warm_up = (3, 1) if COUNT < 10 else (1, 0)
        peer = partial(authors_way, folder / "masks", folder / "theirs")
        result = paired(ours, peer, rounds, warm_up)
        command = [sys.executable, "src/prepare_data.py", "--force"]
        places = ("-i", folder / "masks", "-c", folder / "images", "-o", folder / "ours")
        subprocess.run([*command, *places], check=True, capture_output=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6  # Linux: in KB
        return replace(result, note=f"{COUNT} fields, peak memory of ours {peak:.2f} GB")
