"""Deflate data in, its content in memory of our own out: libdeflate without an allocation per block.

The ``deflate`` package returns a new object for every block; touching that much
fresh memory takes longer than decoding it. Its extension module usually exports
libdeflate itself, which is called here directly, without the interpreter lock.
Where it does not, the package's own function is used.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from typing import Any

import deflate
import numpy as np
from numpy.typing import NDArray

__all__ = ["PADDING", "inflate_into", "scratch"]

# libdeflate leaves its fast loop near the end of its input, where a few bytes may stand for
# many: with as many readable bytes after the data, the fast loop reaches the end. Their values do not matter.
PADDING = 64

_of_thread = threading.local()


def scratch(use: str, n_bytes: int) -> NDArray[np.uint8]:
    """Memory of this thread for one use, the same again and again: valid until the thread asks for that use anew."""
    memory: NDArray[np.uint8] | None = getattr(_of_thread, use, None)
    if memory is None or memory.size < n_bytes:
        memory = np.empty(n_bytes + n_bytes // 4, np.uint8)
        setattr(_of_thread, use, memory)
    return memory[:n_bytes]


class _Decompressor:
    """libdeflate's state, one for each thread."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.state = ctypes.c_void_p(library.libdeflate_alloc_decompressor())

    def __del__(self) -> None:
        self._library.libdeflate_free_decompressor(self.state)


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The functions of libdeflate; None where the package keeps them to itself."""
    try:
        library = ctypes.CDLL(deflate._deflate.__file__)
        library.libdeflate_alloc_decompressor.restype = ctypes.c_void_p
        library.libdeflate_free_decompressor.argtypes = [ctypes.c_void_p]
        library.libdeflate_free_decompressor.restype = None
        size, pointer = ctypes.c_size_t, ctypes.c_void_p
        library.libdeflate_deflate_decompress.argtypes = [pointer, pointer, size, pointer, size, pointer]
        library.libdeflate_deflate_decompress.restype = ctypes.c_int
    except (AttributeError, OSError):
        return None
    return library


def inflate_into(stored: Any, out: NDArray[np.uint8]) -> bool:
    """Decode raw deflate data into the whole of ``out``.

    Parameters
    ----------
    stored
        Contiguous bytes: the data, and ``PADDING`` bytes of any value after it.
    out
        Contiguous memory of exactly the size of the content.

    Returns
    -------
    Whether the data are valid and fill ``out``.
    """
    library = _library()
    if library is None:
        try:
            content = deflate.deflate_decompress(stored, out.size)
        except deflate.DeflateError:
            return False
        out[: len(content)] = np.frombuffer(content, np.uint8)
        return len(content) == out.size
    decompressor: _Decompressor | None = getattr(_of_thread, "decompressor", None)
    if decompressor is None:
        decompressor = _of_thread.decompressor = _Decompressor(library)
    source = np.frombuffer(stored, np.uint8)
    places = source.ctypes.data, source.size, out.ctypes.data, out.size
    return library.libdeflate_deflate_decompress(decompressor.state, *places, None) == 0  # type: ignore[no-any-return]
