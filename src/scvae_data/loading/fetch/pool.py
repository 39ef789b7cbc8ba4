"""Sizes in, memory out that was used before: batches and decoded row groups without a page fault per 4 KiB."""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["BufferPool"]


class BufferPool:
    """Arrays whose memory is used again once nobody refers to them; safe for threads.

    Fresh memory costs a page fault per 4 KiB, about as much as filling it. A
    buffer is given out only while the pool holds the last reference to it:
    arrays and tensors made of it, views of them included, keep it away.

    Parameters
    ----------
    max_idle
        Buffers that are kept while nobody uses them; what is in use is not bounded here.
    max_buffers
        Buffers that the pool remembers, in use or not.
    """

    def __init__(self, max_idle: int = 4, max_buffers: int = 64) -> None:
        self._max_idle = max_idle
        self._max_buffers = max_buffers
        self._buffers: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)]
        self._idle_references = sys.getrefcount(self._buffers[0])
        self._buffers.clear()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Buffers remembered, in use or not."""
        return len(self._buffers)

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An uninitialised array of ``shape`` and ``dtype``."""
        kind = np.dtype(dtype)
        n_bytes = math.prod(shape) * kind.itemsize
        with self._lock:
            raw = self._find(n_bytes)
        return raw[:n_bytes].view(kind).reshape(shape)

    def _find(self, n_bytes: int) -> NDArray[np.uint8]:
        # Counted by position: a loop variable would be a reference of its own.
        buffers = self._buffers
        idle = [k for k in range(len(buffers)) if sys.getrefcount(buffers[k]) == self._idle_references]
        fitting = [k for k in idle if n_bytes <= buffers[k].size <= 2 * n_bytes + 4096]
        if fitting:
            return buffers[min(fitting, key=lambda k: buffers[k].size)]
        fresh = np.empty(rounded(n_bytes), np.uint8)
        # The size asked for has changed: buffers of the old one make room.
        for k in reversed(idle[: max(0, len(idle) - self._max_idle + 1)]):
            del buffers[k]
        # A consumer that collects batches must not make the pool remember them all.
        if len(buffers) < self._max_buffers:
            buffers.append(fresh)
        return fresh


def rounded(n_bytes: int) -> int:
    """``n_bytes`` or up to an eighth more, so that buffers for batches of similar size are interchangeable."""
    step = 1 << max(6, n_bytes.bit_length() - 4)
    return -(-n_bytes // step) * step
