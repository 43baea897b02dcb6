"""Cellpose's compiled functions, kept on disk from one process to the next.

`cellpose.dynamics` lets numba compile five functions at each import: six seconds of every process
that makes flows or finds cells. numba keeps compiled functions beside their source if it is asked
to (`cache=True`), and compiles anew for another processor or another version. So `dynamics` is
imported from here, before anything else imports it.
"""

import functools

import numba

_njit = numba.njit
numba.njit = functools.partial(_njit, cache=True)  # type: ignore[assignment]
try:
    from cellpose import dynamics
finally:
    numba.njit = _njit

__all__ = ["dynamics"]
