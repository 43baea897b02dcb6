"""Rates: a server's limits on requests, kept by all processes that share a folder of downloads."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from filelock import FileLock
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from cellular.base.files import cache_dir, write_json

log = logging.getLogger(__name__)

Limits = Sequence[tuple[int, float]]  # so many requests in any so many seconds

# For guests, by https://developers.zenodo.org/#rate-limiting.
ZENODO: Limits = ((60, 60), (2000, 3600))
TOLD = 5  # seconds; who waits longer than this is told why


class Paced(HTTPAdapter):
    """Sends requests to a server no faster than it allows. A mirror, elsewhere, has no limits."""

    def __init__(self, limits: Limits, retries: Retry) -> None:
        super().__init__(max_retries=retries)
        self.limits = limits

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        """Wait until a request is allowed, and send it."""
        host = urlsplit(str(request.url)).hostname
        wait_for_turn(cache_dir() / f"requests-{host}.json", self.limits)
        return super().send(request, *args, **kwargs)


def wait_for_turn(
    path: Path,
    limits: Limits,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Wait until one more request is allowed.

    A process takes the first free time and waits for it without holding the file. The machines that
    share the file must have clocks that agree to a second or so, as the nodes of a cluster do.

    Parameters
    ----------
    path : JSON file with the times of the last requests, in seconds since 1970, also of those that
        are waited for
    clock, sleep : tell the time in seconds, and wait
    """
    longest = max(seconds for _, seconds in limits)
    with FileLock(path.with_name(f".{path.name}.lock")):
        now = clock()
        try:
            known = json.loads(path.read_text("utf-8"))["times"]
        except (OSError, ValueError):
            known = []
        # Times ahead are waited for; times far ahead were written when a clock was wrong.
        times = sorted(at for at in known if now - longest < at < now + 10 * longest)
        free = [times[-most] + seconds for most, seconds in limits if len(times) >= most]
        turn = max([now, *free])
        write_json(path, {"times": [*times, turn]})
    if turn - now > TOLD:
        log.info("waiting for %.0f s: the server allows no more requests", turn - now)
    sleep(turn - now)
