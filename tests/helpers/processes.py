"""Runs of scripts in processes of their own, which can be killed.

They are forked from a process that has imported PyTorch already, which takes seconds.
"""

import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.annotations import ROOT

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["cellular.segmenting.runs"])


def started(script: str, *arguments: object, log: Path) -> Any:
    """Start a script; return its process. What it prints to standard error goes to `log`."""
    process = FORKED.Process(target=_run, args=(script, [*map(str, arguments)], log))
    with pytest.MonkeyPatch.context() as patch:
        # Before Python 3.13, the process that is forked does not get our sys.path.
        patch.setenv("PYTHONPATH", str(ROOT / "src"))
        process.start()
    return process


def _run(script: str, arguments: list[str], log: Path) -> None:
    from cellular.base import cli

    sys.stderr = log.open("w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), 2)
    cli.run(__import__(script).main, arguments)
