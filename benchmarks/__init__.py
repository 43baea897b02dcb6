"""Benchmarks: the time of our code against a peer's, in turns, on the same input.

`python -m benchmarks [name]` (or `make bench BENCH=name`) prints a line for each:
`<name>: ratio=<peer's time / ours> (ours ... s, peer ... s)`, medians over the rounds.

Each module has a function `run(small)`, which returns what is printed. With `small` it only shows
that everything works, on an input so small that its figures mean nothing.
"""

import os
import pkgutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_")
# These take long, and run only when they are named.
NAMED = ("effect", "puncta", "search", "tolerance", "unseen")


@dataclass(frozen=True)
class Result:
    """Median seconds of ours and of the peer, with a note."""

    ours: float
    peer: float
    note: str = ""

    def line(self, name: str) -> str:
        """Return what is printed."""
        ratio = self.peer / self.ours
        times = f"{name}: ratio={ratio:.1f} (ours {self.ours:.3f} s, peer {self.peer:.3f} s)"
        return f"{times} {self.note}".rstrip()


@dataclass(frozen=True)
class Message:
    """What was measured where there is no peer."""

    text: str

    def line(self, name: str) -> str:
        """Return what is printed."""
        return f"{name}: {self.text}"


def paired(
    ours: Callable[[], object], peer: Callable[[], object], rounds: int = 5, warm_up: int = 1
) -> Result:
    """Time both in turns, after `warm_up` rounds that do not count."""
    times = [(_seconds(ours), _seconds(peer)) for _ in range(warm_up + rounds)][warm_up:]
    return medians(times)


def medians(times: list[tuple[float, float]], note: str = "") -> Result:
    """Return the medians of the seconds of ours and of the peer."""
    ours, peer = (statistics.median(column) for column in zip(*times, strict=True))
    return Result(ours, peer, note)


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def program(name: str, *arguments: object, **variables: object) -> str:
    """Run a file of benchmarks/programs as a process, and return the last line that it prints.

    `variables` are added to the environment.
    """
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/programs" / name), *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path} | {key: str(variables[key]) for key in variables},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr}")
    return done.stdout.splitlines()[-1]


def memory(key: str) -> float:
    """Return a memory of this process in GB, from /proc, such as its peak, VmHWM.

    `getrusage` would count what the process that started this one had.
    """
    status = Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in status)[key].split()[0]) / 1e6
