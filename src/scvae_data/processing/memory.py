"""Freed memory back to the system, so that the peak of one piece of work does not stay with the next."""

from __future__ import annotations

import ctypes
import resource
import sys
from functools import lru_cache
from typing import Any

__all__ = ["limit_heap", "peak_rss_bytes", "release_memory"]

M_MMAP_THRESHOLD = -3
LARGE_BYTES = 16 << 20


@lru_cache(maxsize=1)
def _glibc() -> Any:
    """Return the C library if it is glibc, else None."""
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "malloc_trim") else None
    except OSError:
        return None


@lru_cache(maxsize=1)
def limit_heap() -> None:
    """Keep large arrays out of the heap of this process.

    glibc raises the size from which an array is a mapping of its own each
    time one is freed. A file image that then grows inside the heap leaves a
    hole behind at every step, as much as the image in the end.
    """
    if _glibc() is not None:
        _glibc().mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def release_memory() -> None:
    """Give the free part of the heap back."""
    if _glibc() is not None:
        _glibc().malloc_trim(0)


def peak_rss_bytes() -> int:
    """Return the peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
