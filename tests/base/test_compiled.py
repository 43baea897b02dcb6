"""Compiled functions of Cellpose are kept on disk, whichever of our modules is imported first."""

import os
import subprocess
import sys

import pytest
from helpers.annotations import ROOT

PROGRAM = """
import cellular.{module}
from cellpose import dynamics

kept = [type(each._cache).__name__ for each in vars(dynamics).values() if hasattr(each, "_cache")]
assert kept and "NullCache" not in kept, kept
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["evaluating.evaluation", "segmenting.batches", "network.segmentation"]
)
def test_nothing_imports_cellposes_functions_before_they_are_told_to_be_kept(module):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", PROGRAM.format(module=module)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
