"""`src/segment.py` on real fields: against Cellpose's own command, and against the network alone.

The peer is `cellpose --dir ... --save_tif`, which writes a label map for each image; ours writes
ROIs, GeoJSON, an overlay and tables, too. Both are whole processes, on the same images and weights.

The network alone is `segment_all`, with its tracing, on images that are in memory. What it takes of
the CPU time of a run is told beside what it takes of the seconds, which vary with other load.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import ROOT, Result, program
from benchmarks._sample import DIAMETER, fields, pretrained, raw
from cellular.base import devices
from cellular.base.files import digest
from cellular.network.segmentation import load_model, segment_all
from cellular.network.settings import Settings
from cellular.segmenting.batches import Job
from cellular.segmenting.runs import segment_images
from cellular.segmenting.sources import find

FEW, MANY = 10, 200  # images of one size, corners of fields, whose memory is compared
ROUNDS = 3  # of a run and of the network alone, in turns


def run(small: bool = False) -> Result:
    """Time five fields: ours, theirs, theirs at the network's scale, ours again.

    Theirs takes minutes, so it has one round; of our two rounds the slower one counts.
    """
    count, rounds, few, many = (1, 1, 1, 2) if small else (5, ROUNDS, FEW, MANY)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights = pretrained(folder)
        images = fields(raw(folder, small), folder, count)
        before = _ours(images, weights, folder / "before")
        peer = _peer(images, weights, folder / "peer")
        alike = _peer(images, weights, folder / "alike", "--no_resample")
        ours = max(before, _ours(images, weights, folder / "after"))
        speed, work = _shares(images, weights, folder, rounds)
        corners = raw(folder / "corners", small=True)
        peaks = [
            _peak(fields(corners, folder / "corners", number), weights, folder / f"of_{number}")
            for number in (few, many)
        ]
    note = (
        f"for {count} fields, peer at the network's scale {alike:.3f} s; {speed:.1%} of the "
        f"network's speed alone, which takes {work:.1%} of the CPU time; peak {peaks[0]:.2f} GB "
        f"with {few} images, {peaks[1]:.2f} GB with {many}; {torch.get_num_threads()} threads, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    return Result(ours, peer, note)


def _segment(images: Path, weights: Path, output: Path) -> list:
    """Return the command of a run, as a user gives it who has weights alone."""
    settings = ("--channels", 0, 0, "--diameter", DIAMETER)
    return ["src/segment.py", images, "--model", weights, *settings, "--output", output]


def _ours(images: Path, weights: Path, output: Path) -> float:
    return _seconds_of(_segment(images, weights, output))


def _peer(images: Path, weights: Path, output: Path, *options: str) -> float:
    output.mkdir()
    command = ["-m", "cellpose", "--dir", images, "--pretrained_model", weights]
    settings = ("--chan", 0, "--chan2", 0, "--diameter", DIAMETER, *options)
    seconds = _seconds_of([*command, *settings, "--save_tif", "--no_npy", "--savedir", output])
    if not any(output.iterdir()):
        raise RuntimeError("the peer has segmented nothing")
    return seconds


def _seconds_of(command: list) -> float:
    """Return the seconds of a process of Python."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return time.perf_counter() - start


def _peak(images: Path, weights: Path, output: Path) -> float:
    """Return the peak memory of a run, in GB."""
    return float(program("peak_memory.py", *_segment(images, weights, output)))


def _shares(images: Path, weights: Path, folder: Path, rounds: int) -> tuple[float, float]:
    """Return what the network alone takes of the seconds and the CPU time of a run, 0 to 1.

    Medians over the rounds; a run on one image goes before, which loads the model.
    """
    settings = Settings(diameter=DIAMETER)
    job = Job(weights, digest(weights), settings, None, folder / "run")
    sources = find([images])
    pixels = [source.read().pixels for source in sources]
    model = load_model(weights, devices.choose("auto"))
    segment_images(sources[:1], replace(job, output=folder / "first"), {})
    shares = []
    for _ in range(rounds):
        ours = _spent(lambda: segment_images(sources, job, {}))
        alone = _spent(lambda: list(segment_all(model, pixels, settings)))
        shares.append((alone[0] / ours[0], alone[1] / ours[1]))
        shutil.rmtree(job.output)
    speed, work = (statistics.median(column) for column in zip(*shares, strict=True))
    return speed, work


def _spent(function: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds and the CPU time that a function takes."""
    start, worked = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - worked
