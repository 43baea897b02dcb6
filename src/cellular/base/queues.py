"""Queues: threads work ahead of where their results are needed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


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
