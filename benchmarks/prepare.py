"""Preparing fields with hundreds of full-frame mask files: ours against the authors' way.

Theirs reads one file after another in grey, finds the object with `np.where` over the full frame,
and writes the label map (a new implementation, from the description of their script).
"""

import logging
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks import Result, paired, program
from cellular.preparing.params import PrepareParams
from cellular.preparing.preparation import process_masks

SIDE = 2048
OBJECTS = 264  # 14,000 cells in 53 fields
# Four fields are enough for the ratio; BENCH_FIELDS=53 is the size of the data set (minutes).
COUNT = int(os.environ.get("BENCH_FIELDS", "4"))


def make_field(number: int, folder: Path, side: int, objects: int) -> None:
    """Write a field in the layout of the data set: an image and colour masks."""
    random = np.random.default_rng(number)
    field = f"{number:02d}_{('ST_D01', 'ST_I06', 'ST_C03')[number % 3]}_s1"
    image = random.integers(0, 255, (side, side, 3), np.uint8)
    (folder / "images").mkdir(exist_ok=True, parents=True)
    cv2.imwrite(str(folder / "images" / f"{field}.jpg"), image)
    for label in range(objects):
        mask = np.zeros((side, side, 3), np.uint8)
        y, x = random.integers(70, side - 70, 2).tolist()
        cv2.circle(mask, (x, y), 60, random.integers(1, 255, 3).tolist(), cv2.FILLED)
        target = folder / "masks" / field / ("fed" if label % 2 else "unfed")
        target.mkdir(exist_ok=True, parents=True)
        cv2.imwrite(str(target / f"cell_{label}.png"), mask)


def authors_way(masks: Path, output: Path, side: int) -> None:
    """Combine the masks of each class of each field, one file after another."""
    for field in os.listdir(masks):  # noqa: PTH208
        for class_name in os.listdir(masks / field):  # noqa: PTH208
            combined = np.zeros((side, side), np.uint16)
            for number, name in enumerate(os.listdir(masks / field / class_name), start=1):  # noqa: PTH208
                mask = cv2.imread(str(masks / field / class_name / name), cv2.IMREAD_GRAYSCALE)
                combined[np.where(np.asarray(mask) > 0)] = number
            (output / class_name).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(output / class_name / f"{field}_masks.png"), combined)


def run(small: bool = False) -> Result:
    """Prepare fields of 264 objects each."""
    logging.getLogger("cellular").setLevel(logging.ERROR)  # do not list the hidden objects
    count, side, objects = (3, 256, 4) if small else (COUNT, SIDE, OBJECTS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            make = partial(make_field, folder=folder, side=side, objects=objects)
            list(pool.map(make, range(count)))

        def ours() -> None:
            process_masks(
                folder / "masks", folder / "ours", folder / "images", PrepareParams(), force=True
            )

        rounds, warm_up = (1, 0) if small or count >= 10 else (3, 1)
        peer = partial(authors_way, folder / "masks", folder / "theirs", side)
        result = paired(ours, peer, rounds, warm_up)
        folders = ("-i", folder / "masks", "-c", folder / "images", "-o", folder / "ours")
        peak = float(program("peak_memory.py", "src/prepare_data.py", "--force", *folders))
        return replace(result, note=f"{count} fields, peak memory of ours {peak:.2f} GB")
