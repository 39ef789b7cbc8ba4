"""A file of a dataset directory in, any of its bytes out, wherever they lie.

What a reader knows of a file's place is a :class:`ByteSource`: a file on this
machine is a :class:`LocalFile`, and :attr:`DatasetIndex.open_source` may open
anything else, such as ranges of an object in a store.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from scvae_data.calling import mend
from scvae_data.errors import DamagedFileError
from scvae_data.remote.location import Location
from scvae_data.store.files import open_plain

__all__ = ["ByteSource", "ListedFile", "LocalFile", "OpenSource", "damaged"]


T = TypeVar("T")


class ByteSource(Protocol):
    """An open file, for all threads of the process that opened it; closed when the last reference to it goes."""

    @property
    def size(self) -> int:
        """Bytes of the file."""

    def read(self, offset: int, n_bytes: int) -> bytes:
        """The bytes from ``offset`` on; fewer than asked for only where the file ends, OSError if they are not had."""

    def fileno(self) -> int | None:
        """A descriptor by which compiled code reads the same bytes; None if there is none."""

    def again(self) -> ByteSource | None:
        """The file anew from where it came, for bytes that were found damaged; None if they can be no others."""


OpenSource = Callable[[Any], ByteSource]
"""Opens a file of the directory, by its location, or raises OSError; sent to worker processes, so it is picklable."""


class LocalFile:
    """An ordinary file on this machine; see ``scvae_data.store.files.open_plain``."""

    def __init__(self, path: Path) -> None:
        self._fd = open_plain(path)

    def __del__(self) -> None:
        if (fd := getattr(self, "_fd", -1)) >= 0:
            os.close(fd)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self._fd).st_size

    def read(self, offset: int, n_bytes: int) -> bytes:
        """The bytes from ``offset`` on; fewer than asked for only where the file ends."""
        content = os.pread(self._fd, n_bytes, offset)
        while len(content) < n_bytes and (more := os.pread(self._fd, n_bytes - len(content), offset + len(content))):
            content += more
        return content

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def again(self) -> ByteSource | None:
        """None: the file is where it came from."""
        return None


class ListedFile:
    """A file as the index lists it: opened on first use, once in each process, and counted as it is read.

    Safe for threads and across fork; pickled without what it has open.

    Parameters
    ----------
    path
        Where it is.
    n_bytes
        Its size; a file of another one is not read.
    open_source
        Opens it.
    """

    def __init__(self, path: Location, n_bytes: int, open_source: OpenSource) -> None:
        self.path = path
        self.n_bytes = n_bytes
        self.open_source = open_source
        self._sources: dict[int, ByteSource] = {}
        # One count per thread: additions from two threads to one number could be lost.
        self._bytes_by_thread: dict[int, int] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.n_bytes, self.open_source)

    def source(self) -> ByteSource:
        """The open file of this process; whoever refers to it keeps it open.

        Raises
        ------
        DamagedFileError
            If it cannot be opened, or has another size.
        """
        pid = os.getpid()
        source = self._sources.get(pid)
        if source is None:
            opened = self._open()
            # No lock, which a fork could copy in its locked state: whoever stores first wins.
            source = self._sources.setdefault(pid, opened)
            for parent in [other for other in self._sources if other != pid]:
                self._sources.pop(parent, None)
        return source

    def proved(self, read: Callable[[], T]) -> T:
        """What ``read`` makes of bytes of the file; what it finds damaged is had anew, once, from where it came.

        Raises
        ------
        DamagedFileError, ValueError
            By which ``read`` says that bytes are damaged.
        """
        source = self.source()
        try:
            return read()
        except (DamagedFileError, ValueError):
            anew = source.again()
            if anew is None:
                raise
            self._sources[os.getpid()] = anew
        return read()

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        self._sources.clear()

    def read(self, offset: int, n_bytes: int) -> bytes:
        """The ``n_bytes`` bytes from ``offset`` on.

        Raises
        ------
        DamagedFileError
            If they cannot be read, or are not there.
        """
        source = self.source()  # a file of another size than the index says is refused before memory for it is taken
        try:
            content = source.read(offset, n_bytes)
        except OSError as error:
            raise damaged(self.path, f"cannot be read ({error.strerror or error})") from None
        self.count(len(content))
        if len(content) != n_bytes:
            raise damaged(self.path, f"ends at byte {offset + len(content)}, before the end of what it should hold")
        return content

    def count(self, n_bytes: int) -> None:
        """Add what the calling thread has read in another way than by :meth:`read`."""
        thread = threading.get_ident()
        self._bytes_by_thread[thread] = self._bytes_by_thread.get(thread, 0) + n_bytes

    @property
    def bytes_read(self) -> int:
        """Bytes read so far, in this process."""
        return sum(list(self._bytes_by_thread.values()))

    @property
    def bytes_read_here(self) -> int:
        """Bytes that the calling thread has read so far."""
        return self._bytes_by_thread.get(threading.get_ident(), 0)

    def _open(self) -> ByteSource:
        try:
            opened = self.open_source(self.path)
        except OSError as error:
            raise damaged(self.path, f"cannot be opened ({error.strerror or error})") from None
        if opened.size != self.n_bytes:
            raise damaged(self.path, f"has {opened.size} bytes, the index says {self.n_bytes}")
        return opened


def damaged(path: Location, fault: str) -> DamagedFileError:
    """The error about a file that is not what the index says."""
    return DamagedFileError(f"{path}: {fault}; {mend()}")
