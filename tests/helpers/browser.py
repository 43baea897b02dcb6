"""A real browser, without a window."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Without most of these, Chromium itself asks the servers of its makers for updates.
QUIET = ("no-sandbox", "disable-gpu", "disable-background-networking", "disable-sync")
QUIET += ("disable-component-update", "no-first-run")


@contextmanager
def browser() -> Iterator[Browser]:
    """Start the Chromium of this system, or the one that `playwright install chromium` installed.

    If there is none, the test is skipped, or fails if the environment variable CI is set.
    """
    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, NAMES)), None)
        try:
            started = playwright.chromium.launch(
                executable_path=path, args=[f"--{name}" for name in QUIET]
            )
        except Error as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no Chromium here: {str(error).splitlines()[0]}")
        yield started
        started.close()
