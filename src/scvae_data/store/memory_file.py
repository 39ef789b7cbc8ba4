"""Bytes in, at any place, a file of them in memory out: what HDF5 writes a chunk to."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

__all__ = ["MemoryFile"]


class MemoryFile(io.RawIOBase):
    """As ``io.BytesIO``, in memory that is asked for at once.

    NumPy gets such memory in pages of megabytes, where the system has them.
    By pages of 4 KB, to be given them takes four times as long as to fill them.

    Parameters
    ----------
    room
        Bytes that suffice, about: what is not filled takes no memory, and for more all is moved.
    """

    def __init__(self, room: int) -> None:
        self._memory = np.empty(room, np.uint8)
        self._at = self._size = 0

    def getbuffer(self) -> memoryview:
        """Return the content; it may not be written to any more."""
        return self._memory[: self._size].data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, behind the end as well; return it."""
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        """Return the place where it goes on."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, as far as the content goes; return how far."""
        found = self._memory[self._at : min(self._at + len(buffer), self._size)]
        buffer[: found.size] = found.data
        self._at += found.size
        return found.size

    def write(self, content: Any) -> int:
        """Write bytes, after zeros where nothing is before them yet; return how many."""
        if self._at > self._size:
            self.truncate()
        values = np.frombuffer(content, np.uint8)
        stop = self._at + values.size
        self._make_room(stop)
        self._memory[self._at : stop] = values
        self._at, self._size = stop, max(self._size, stop)
        return values.size

    def truncate(self, size: int | None = None) -> int:
        """End at a size, or where it goes on, filled up with zeros; return it."""
        size = self._at if size is None else size
        self._make_room(size)
        self._memory[self._size : size] = 0
        self._size = size
        return size

    def _make_room(self, size: int) -> None:
        if size > self._memory.size:
            memory = np.empty(2 * size, np.uint8)
            memory[: self._size] = self._memory[: self._size]
            self._memory = memory
