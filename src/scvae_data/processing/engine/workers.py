"""Worker processes that start safely, end with the process that uses them, and give freed memory back."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
import threading
from functools import lru_cache
from multiprocessing import connection
from multiprocessing.context import BaseContext
from typing import Any

__all__ = [
    "allow_open_files",
    "end_with_parent",
    "limit_heap",
    "peak_rss_bytes",
    "preload",
    "release_memory",
    "worker_context",
]

WORK = "scvae_data.processing.preload"
"""Imports all that workers need."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE_BYTES = 32 << 20
"""The most that glibc takes: an array of a part of a chunk is smaller, and gets the memory of the last one's again."""
KEPT_BYTES = 64 << 20
"""Of the heap, free at its end, that a task in progress keeps for what it allocates next."""
OPEN_FILES = 1024
"""What a merge of as many runs as are read at once needs, with room to spare."""


@lru_cache(maxsize=1)
def worker_context() -> BaseContext:
    """Return how worker processes start.

    Never as a fork of this process, which would copy the locks of HDF5 and of
    running threads. On Linux they are forks of a server that has one thread,
    has imported all they need, and shares that memory with them.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([WORK])
    return context


def preload(*modules: str) -> None:
    """Begin to import what workers need, and ``modules``, where they are forks of one server; return at once."""
    if worker_context().get_start_method() != "forkserver":
        return
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload([WORK, *modules])
    forkserver.ensure_running()


def end_with_parent() -> None:
    """Make this worker process end when the one that gives it work does, however that ends, and without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


@lru_cache(maxsize=1)
def allow_open_files() -> None:
    """Let this process open as many files as merging needs, as far as it may; macOS grants 256 unless asked."""
    granted, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= granted < OPEN_FILES:  # "no limit" is a negative number on some systems
        wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


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
    """Keep the largest arrays, and no others, out of the heap of this process.

    glibc raises the size from which an array is a mapping of its own each
    time one is freed. A file image that then grows inside the heap leaves a
    hole behind at every step, as much as the image in the end.
    """
    if _glibc() is not None:
        _glibc().mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        _glibc().mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def release_memory() -> None:
    """Give the free part of the heap back."""
    if _glibc() is not None:
        _glibc().malloc_trim(0)


def peak_rss_bytes() -> int:
    """Return the peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
