"""Devices, and the memory of what they compute."""

import ctypes
import os

import pytest

from cellular.base.devices import freed_memory_kept

libc = ctypes.CDLL(None) if os.name == "posix" else None


def pages_cleared() -> int:
    """Fill and free 96 MiB, and return how many pages the system cleared for it."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(96 << 20)))
    ctypes.memset(block, 1, 96 << 20)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not hasattr(libc, "mallopt"), reason="needs Linux's C library")
def test_memory_that_was_freed_is_kept_until_the_block_ends(monkeypatch):
    monkeypatch.setattr(libc.malloc, "restype", ctypes.c_void_p)
    with freed_memory_kept():
        pages_cleared()
        assert pages_cleared() < 10
    pages_cleared()
    assert pages_cleared() > 40  # even where a page has 2 MiB
