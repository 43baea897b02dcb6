"""CELLULAR experiments: masks of autophagic cells, Cellpose trained on them, scores, read-outs.

Packages stand on floors, and import only from floors below their own (`make lint` checks it):

    fetching | training | evaluating | segmenting | exporting | reporting     the stages
    measuring | models
    network | scoring | preparing
    imaging | experiments
    base

The scripts in ``src/`` stand above all of them and put them together.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: PyTorch takes seconds.
    if name == "segment":
        from cellular.segmenting.arrays import segment_arrays

        return segment_arrays
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
