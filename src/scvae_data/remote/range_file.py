"""A file of this machine, or an object in a store, in; an open file of which any part can be read out."""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO, cast

from scvae_data.remote import objects
from scvae_data.remote.location import Location, RemotePath

__all__ = ["open_anywhere"]

BUFFER_BYTES = 1 << 20


class RangeFile(io.RawIOBase):
    """An object of which is fetched what is read."""

    def __init__(self, path: RemotePath) -> None:
        self._path = path
        self._size = objects.facts_of(path).size
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte, counted as files do; return which it is."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if self._at < 0:
            raise OSError(f"{self._path} has no byte {self._at}")
        return self._at

    def tell(self) -> int:
        """Which byte is read next."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fetch the bytes that come next, up to the end; return how many."""
        n_bytes = max(0, min(len(buffer), self._size - self._at))
        buffer[:n_bytes] = objects.read(self._path, self._at, n_bytes)
        self._at += n_bytes
        return n_bytes


def open_anywhere(path: Location) -> BinaryIO:
    """Open a file to read parts of it.

    Raises
    ------
    OSError
        There is none, or it cannot be read.
    RemoteError
        The store cannot be asked.
    """
    if isinstance(path, RemotePath):
        return cast(BinaryIO, io.BufferedReader(RangeFile(path), BUFFER_BYTES))
    return path.open("rb")
