"""Errors that the user can correct: one clear message, without a traceback."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

from cellular.base.queues import cores

# In the error of a training whose loss explodes; a search looks for it.
TOO_HIGH = "is too high, try a tenth of it"
SHOWN_FAULTS = 20  # a list longer than the screen would hide its first line
T = TypeVar("T")
R = TypeVar("R")


class InputError(Exception):
    """The user's input is wrong: the message says what, what was expected, and what to do.

    `faults` holds the message of each fault that the error reports.
    """

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.faults = list(faults) or [message]


class PartlyDone(Exception):
    """Some of the input is wrong, and the rest was done: the message tells both."""


class Faults(list[str]):
    """Messages about several faults, to be raised as one error."""

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep the faults of an `InputError` raised in the block, and continue after the block."""
        try:
            yield
        except InputError as error:
            self.extend(error.faults)

    def map(self, work: Callable[[T], R], items: Sequence[T], task: str) -> list[R]:
        """Return what `work` gives of the items, in their order; keep the faults where it fails.

        It runs in threads, because the decoders that take most of the time free the interpreter.
        """
        results = []
        with ThreadPoolExecutor(cores()) as pool:
            calls = [pool.submit(work, item) for item in items]
            try:
                for call in tqdm(calls, task, unit="field", leave=False):
                    with self.collect():
                        results.append(call.result())
            finally:
                for call in calls:
                    call.cancel()
        return results

    def raise_all(self, where: object) -> None:
        """If there are faults, raise one `InputError` that lists them and says `where` they are."""
        if not self:
            return
        if len(self) == 1:
            raise InputError(self[0])
        lines = [f"{len(self)} faults in {where}:", *self[:SHOWN_FAULTS]]
        if len(self) > SHOWN_FAULTS:
            lines.append(f"... and {len(self) - SHOWN_FAULTS} more")
        raise InputError("\n  ".join(lines), self)
