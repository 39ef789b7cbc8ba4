"""Byte planes in, a blosc buffer of lz4 out, and what such a buffer is made of.

A buffer is one block, of which each plane is coded by itself: the lowest by
LZ4's search, those above by their runs where these are few. Blosc's own encoder would search all
planes, of values that have been widened and shuffled before, and cut what is
larger than a cache into blocks that cannot be read plane by plane.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from importlib.machinery import PathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.store.lz4_runs import lz4_runs

__all__ = [
    "HEADER",
    "LZ4_FLAG",
    "SHUFFLED_FLAG",
    "blosc_buffer",
    "blosc_module",
    "can_encode",
    "lz4_library",
    "plane_of_zeros",
]

# Version of the format and of lz4, flags, bytes a value; bytes of the values, of a block and of the buffer,
# little-endian; then where each block begins.
HEADER = struct.Struct("<4B3I")
SHUFFLED_FLAG, LZ4_FLAG = 0x01, 0x20
VERSIONS = 2, 1
NUMBER = struct.Struct("<I")
LEAST_SPLIT = 128
"""Values of a block from which on blosc expects planes."""


@functools.cache
def blosc_module() -> ModuleType:
    """The module that encodes and decodes blosc buffers."""
    from numcodecs import blosc

    # With its own threads blosc works on one shared context behind a lock; without,
    # every call has its own context, releases the GIL, and survives fork.
    blosc.use_threads = False
    return blosc  # type: ignore[no-any-return]


def lz4_library() -> ctypes.CDLL:
    """The functions of LZ4 in that module, of which the package is not imported for them: that takes longer.

    Raises
    ------
    OSError
        If it is not to be had.
    """
    package = find_spec("numcodecs")
    module = package and PathFinder.find_spec("numcodecs.blosc", package.submodule_search_locations)
    if not module or not module.origin:
        raise OSError("numcodecs has no module of blosc")
    return ctypes.CDLL(module.origin)


@functools.cache
def _lz4() -> Any:
    """LZ4's search; None where the module keeps it to itself."""
    try:
        search = lz4_library().LZ4_compress_fast
    except (AttributeError, OSError):
        return None
    search.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    return search


def can_encode(length: int) -> bool:
    """Whether :func:`blosc_buffer` can store planes of that length."""
    return length >= LEAST_SPLIT and _lz4() is not None


def blosc_buffer(planes: NDArray[np.uint8], itemsize: int, level: int) -> bytes:
    """Store byte planes, (n, length), the lowest bytes first; those above, up to ``itemsize``, are zero.

    Parameters
    ----------
    level
        Blosc's, from 1 to 9: how hard to search.
    """
    length = planes.shape[1]
    stored = [_searched(planes[0], level)]
    stored += [_of_runs(plane, level) for plane in planes[1:]]
    stored += [plane_of_zeros(length)] * (itemsize - len(planes))
    n_values, n_before = itemsize * length, HEADER.size + NUMBER.size
    n_bytes = n_before + sum(NUMBER.size + plane.size for plane in stored)
    parts: list[Any] = [
        HEADER.pack(*VERSIONS, SHUFFLED_FLAG | LZ4_FLAG, itemsize, n_values, n_values, n_bytes),
        NUMBER.pack(n_before),
    ]
    for plane in stored:
        parts += NUMBER.pack(plane.size), plane
    return b"".join(parts)


def _searched(plane: NDArray[np.uint8], level: int) -> NDArray[np.uint8]:
    """A plane as LZ4 stores it; as it is where that is not shorter, which readers know by the length."""
    found = np.empty(plane.size, np.uint8)
    size = _lz4()(plane.ctypes.data, found.ctypes.data, plane.size, plane.size - 1, 10 - level)
    return found[:size] if size else plane


def _of_runs(plane: NDArray[np.uint8], level: int) -> NDArray[np.uint8]:
    """A plane by its runs, by a search where these are not few."""
    coded = lz4_runs(plane)
    return coded if 0 < coded.size < plane.size else _searched(plane, level)


@functools.lru_cache(8)
def plane_of_zeros(length: int) -> NDArray[np.uint8]:
    """How a plane of zeros is stored, by blosc too; empty where :func:`can_encode` says no."""
    return _searched(np.zeros(length, np.uint8), 1) if can_encode(length) else np.empty(0, np.uint8)
