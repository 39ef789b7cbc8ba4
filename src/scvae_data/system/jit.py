"""Loops in Python in, machine code out that releases the interpreter lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled"]

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile at the first call, for the types of its arguments; the next process finds the code on disk.

    Where neither the package's folder nor the user's cache can be written,
    every process compiles anew; ``NUMBA_CACHE_DIR`` names another place.
    """
    try:
        return cast(Function, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:  # numba found no place for a cache
        return cast(Function, numba.njit(nogil=True)(function))
