"""Runs of segmentation in processes of their own, which can be killed.

They are forked from a process that has imported PyTorch already, which takes seconds.
"""

import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

Exits = multiprocessing.get_context("forkserver")
Exits.set_forkserver_preload(["cellular.segmenting.runs"])


def started(script: str, *arguments: object, log: Path) -> Any:
    """Start a script; return its process. What it prints to standard error goes to `log`."""
    process = Exits.Process(target=_run, args=(script, [*map(str, arguments)], log))
    process.start()
    return process


def _run(script: str, arguments: list[str], log: Path) -> None:
    from cellular.base import cli

    sys.stderr = log.open("w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), 2)
    cli.run(__import__(script).main, arguments)
