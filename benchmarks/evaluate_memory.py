"""Evaluation of 53 fields of 2048 px: its peak memory against that of five fields."""

import tempfile
from pathlib import Path

from benchmarks import Message
from benchmarks._sample import fields, pretrained, raw
from benchmarks.evaluate import peak_memory


def run(small: bool = False) -> Message:
    """Return the peaks of both."""
    few, many = (1, 2) if small else (5, 53)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source, weights = raw(folder, small), pretrained(folder)
        peaks = {
            count: peak_memory(fields(source, folder, count), weights, folder / f"out_{count}")
            for count in (few, many)
        }
    return Message(f"peak {peaks[many]:.2f} GB with {many} fields, {peaks[few]:.2f} GB with {few}")
