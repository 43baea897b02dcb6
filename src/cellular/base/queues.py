"""Queues: threads work ahead of where their results are needed."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds in a period, and the period
Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Return the number of CPU cores that this process may use, by its affinity and its quota."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        allowed = os.cpu_count() or 1
    try:
        time, period = map(int, QUOTA.read_text().split())
    except (OSError, ValueError):  # no container, or "max"
        return allowed
    return min(allowed, math.ceil(time / period))


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Iterator[Result]:
    """Give `function(item)` for each item, computed by threads, in the order of the items.

    The iterable `items` runs in the caller's thread. If it has to compute its items, the threads
    work on earlier items meanwhile. One more item is taken before each result is given, so that the
    threads have up to `ahead` items to work on while the caller uses the result.

    An exception of `function` is raised in place of its result, one of `items` immediately. If the
    generator is closed early, items that no thread has begun are dropped, and the threads end.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead or waiting[0].done():
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
