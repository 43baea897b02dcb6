"""Devices, and the memory of what they compute."""

import ctypes
import os
import subprocess
import sys

import pytest
from helpers.annotations import ROOT

libc = ctypes.CDLL(None) if os.name == "posix" else None

# In a process of its own: what other tests have left in the heap would be filled first.
PROGRAM = """
import ctypes
import resource

from cellular.base.devices import freed_memory_kept

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p


def pages_cleared():
    "Fill and free 96 MiB, and return how many pages the system cleared for it."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(96 << 20)))
    ctypes.memset(block, 1, 96 << 20)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


with freed_memory_kept():
    pages_cleared()
    assert pages_cleared() < 10
pages_cleared()
assert pages_cleared() > 40  # even where a page has 2 MiB
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(libc, "mallopt"), reason="needs Linux's C library")
def test_memory_that_was_freed_is_kept_until_the_block_ends():
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
