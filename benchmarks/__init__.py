"""Benchmarks: our time against a peer's, in turns in one process, on the same input.

`python -m benchmarks [name]` (or `make bench BENCH=name`) prints one line each:
`<name>: ratio=<peer's time / ours> (ours ... s, peer ... s)`, medians over the rounds.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """Median seconds of ours and of the peer, and what else is worth telling."""

    ours: float
    peer: float
    note: str = ""

    def line(self, name: str) -> str:
        ratio = self.peer / self.ours
        told = f"{name}: ratio={ratio:.1f} (ours {self.ours:.3f} s, peer {self.peer:.3f} s)"
        return f"{told} {self.note}".rstrip()


@dataclass(frozen=True)
class Message:
    """What was measured where there is no peer."""

    text: str

    def line(self, name: str) -> str:
        return f"{name}: {self.text}"


def paired(
    ours: Callable[[], object], peer: Callable[[], object], rounds: int = 5, warm_up: int = 1
) -> Result:
    """Time both in turns, after `warm_up` rounds that do not count."""
    times = [
        tuple(_seconds(function) for function in (ours, peer)) for _ in range(warm_up + rounds)
    ][warm_up:]
    return Result(*(statistics.median(column) for column in zip(*times, strict=True)))


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
