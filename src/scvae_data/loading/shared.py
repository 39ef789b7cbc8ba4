"""Objects in, the same objects in other processes out, with arrays in memory that all of them map."""

from __future__ import annotations

import io
import mmap
import os
import pickle
import tempfile
import weakref
from collections.abc import Callable, Iterable
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Enclosed", "SharedMemory", "aligned", "pickled", "unpickled"]

ALIGNMENT = 64


class SharedMemory:
    """Memory that is there as long as any process has it; needs no name, and no room in /dev/shm.

    Parameters
    ----------
    n_bytes
        Addresses; memory is behind them after :meth:`reserve`.
    """

    def __init__(self, n_bytes: int) -> None:
        fd = file_without_name()
        os.ftruncate(fd, n_bytes)
        self._map(fd, n_bytes)

    def __getstate__(self) -> dict[str, Any]:
        return {"fd": DupFd(self._fd), "n_bytes": self.n_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._map(state["fd"].detach(), state["n_bytes"])

    def array(self, offset: int, n_bytes: int) -> NDArray[np.uint8]:
        """Some of its bytes; each call gives an array of its own over them."""
        return np.frombuffer(self._bytes, np.uint8, n_bytes, offset)

    def reserve(self, offset: int, n_bytes: int) -> None:
        """Have memory behind some addresses: a process that wrote where there is none would be killed.

        Raises
        ------
        OSError
            There is no room.
        """
        if n_bytes and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._fd, offset, n_bytes)

    def free(self, offset: int, n_bytes: int) -> None:
        """Give back the memory behind some addresses; both numbers are multiples of a page."""
        if n_bytes and hasattr(mmap, "MADV_REMOVE"):
            self._bytes.madvise(mmap.MADV_REMOVE, offset, n_bytes)

    def _map(self, fd: int, n_bytes: int) -> None:
        self._fd, self.n_bytes = fd, n_bytes
        self._bytes = mmap.mmap(fd, n_bytes)
        weakref.finalize(self, os.close, fd)


def file_without_name() -> int:
    """Descriptor of an empty file in memory, or of a temporary one where the system has none in memory."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("scvae-data")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class ArrayPickler(pickle.Pickler):
    """Pickles a tensor as its array, and arrays so that they can travel apart."""

    def reducer_override(self, item: Any) -> Any:
        """How a tensor is made again."""
        return (torch.from_numpy, (item.numpy(),)) if isinstance(item, torch.Tensor) else NotImplemented


def pickled(item: Any, put: Callable[[memoryview], bool]) -> bytes:
    """``item`` without the arrays that ``put`` has seen to, said by returning true; the others are part of it."""
    stream = io.BytesIO()
    ArrayPickler(stream, protocol=5, buffer_callback=lambda buffer: not put(buffer.raw())).dump(item)
    return stream.getvalue()


def unpickled(content: bytes, arrays: Iterable[Any] = ()) -> Any:
    """What :func:`pickled` gave, with the arrays that travelled apart, in their order."""
    return pickle.loads(content, buffers=arrays)  # noqa: S301 -- made by another process of this run


def aligned(n_bytes: int) -> int:
    """``n_bytes`` or a little more, so that what follows is aligned for any kind of number."""
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


class Enclosed:
    """An object whose arrays lie in shared memory: sent to many processes, they are there once.

    Parameters
    ----------
    item
        Anything that can be pickled.
    """

    def __init__(self, item: Any) -> None:
        arrays: list[memoryview] = []

        def put(array: memoryview) -> bool:
            arrays.append(array)
            return True

        self._pickled = pickled(item, put)
        starts = np.cumsum([0, *(aligned(array.nbytes) for array in arrays)]).tolist()
        self._places = [(start, array.nbytes) for start, array in zip(starts, arrays, strict=False)]
        self._memory = SharedMemory(max(1, starts[-1]))
        self._memory.reserve(0, starts[-1])
        for place, array in zip(self._places, arrays, strict=True):
            self._memory.array(*place)[:] = array

    def open(self) -> Any:
        """The object, over shared memory."""
        return unpickled(self._pickled, [self._memory.array(*place) for place in self._places])
