"""Nothing in; worker processes that start safely, and end with the process that uses them, out."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from functools import lru_cache
from multiprocessing import connection
from multiprocessing.context import BaseContext

__all__ = ["end_with_parent", "worker_context"]


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
    context.set_forkserver_preload(["scvae_data.processing.pipeline"])
    return context


def end_with_parent() -> None:
    """Make this worker process end when the one that gives it work does, however that ends, and without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
