"""Evaluation of 53 fields of 2048 px: its peak memory against that of five."""

import tempfile
from pathlib import Path

from benchmarks import Message
from benchmarks._evaluation import prepared, pretrained
from benchmarks.evaluate import peak_memory

FIELDS = 53


def run() -> Message:
    """Return the peaks of both."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        weights = pretrained(folder)
        few, many = (
            peak_memory(prepared(folder, fields), weights, folder / f"out_{fields}")
            for fields in (5, FIELDS)
        )
    return Message(f"peak {many:.2f} GB with {FIELDS} fields, {few:.2f} GB with 5")
