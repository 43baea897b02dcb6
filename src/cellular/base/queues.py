"""Queues: work that threads do ahead of where its results are needed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Iterator[Result]:
    """Give `function(item)` of each item, in the order of the items, computed by threads.

    Items are taken in the caller's thread, which may itself have much to compute for each of them,
    while the threads work on those before. Another one is taken before each result is given, so
    that up to `ahead` of them are in work, or done, while the caller uses a result.

    An exception of `items` or of `function` is raised where the result would be. If the generator
    is closed early, work that has not begun is dropped, and the threads end.
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
