"""Ranges of a stored array in, its values out: read, proved and decompressed without the interpreter.

What takes most of the time of loading is done for many blocks in one call that
does not hold the interpreter lock, so that decoding threads and the thread that
trains do not wait for each other. The call takes the common case alone: blocks
as the writer makes them, of gzip or lz4, that are sound. Whatever else it meets
it leaves to the caller's plain way, which decodes any block or says what is
wrong with it. It calls libdeflate and lz4 in the extension modules of the
packages that bring them along; where those keep them to themselves, nothing is
taken.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from typing import Any, NamedTuple

import deflate
import numpy as np
from numpy.typing import NDArray

from scvae_data.store.block_table import ArrayBlocks
from scvae_data.store.blosc_buffer import HEADER, LZ4_FLAG, SHUFFLED_FLAG, lz4_library, plane_of_zeros
from scvae_data.store.byte_shuffle import join_planes, join_two
from scvae_data.store.codec import Native
from scvae_data.store.inflate_literals import read_literals
from scvae_data.system.jit import ahead_of, compiled, external

__all__ = ["Unpacked", "unpack"]

# libdeflate leaves its fast loop near the end of its input, where a few bytes may stand for
# many: with as many readable bytes after the data, the fast loop reaches the end. Their values do not matter.
PADDING = 64
# Compiled code finds these by name, also when it comes from the cache on disk.
_pread = external("pread", "intp(intc, uintp, uintp, int64)")
_crc32 = external("scvae_data_crc32", "uint32(uint32, uintp, uintp)")
_inflate = external("scvae_data_inflate", "intc(uintp, uintp, uintp, uintp, uintp, uintp)")
_unlz4 = external("scvae_data_unlz4", "intc(uintp, uintp, intc, intc)")
GZIP, LZ4 = 0, 1
CODES: dict[Native, int] = {"gzip": GZIP, "lz4": LZ4}
HEADER_BYTES = HEADER.size
PLANES = SHUFFLED_FLAG | LZ4_FLAG
_of_thread = threading.local()


class _Decompressor:
    """libdeflate's state, one for each thread."""

    def __init__(self, library: ctypes.CDLL) -> None:
        library.libdeflate_alloc_decompressor.restype = ctypes.c_void_p
        library.libdeflate_free_decompressor.argtypes = [ctypes.c_void_p]
        self._library = library
        self.state: int = library.libdeflate_alloc_decompressor()

    def __del__(self) -> None:
        self._library.libdeflate_free_decompressor(self.state)


@functools.cache
def _libdeflate() -> ctypes.CDLL | None:
    """Give the compiled code the functions it calls; None where one is not to be had."""
    if not hasattr(os, "pread"):
        return None
    try:
        libdeflate, lz4 = ctypes.CDLL(deflate._deflate.__file__), lz4_library()
        found = {
            "scvae_data_crc32": libdeflate.libdeflate_crc32,
            "scvae_data_inflate": libdeflate.libdeflate_deflate_decompress,
            "scvae_data_unlz4": lz4.LZ4_decompress_safe,
        }
    except (AttributeError, OSError):
        return None
    from llvmlite import binding  # here: it loads the compiler

    for name, function in found.items():
        binding.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
    return libdeflate


def _scratch(use: str, n_bytes: int) -> NDArray[np.uint8]:
    """Memory of this thread for one use, the same again and again: valid until the thread asks for that use anew."""
    memory: NDArray[np.uint8] | None = getattr(_of_thread, use, None)
    if memory is None or memory.size < n_bytes:
        memory = np.empty(n_bytes + n_bytes // 4, np.uint8)
        setattr(_of_thread, use, memory)
    return memory[:n_bytes]


def _decompressor(library: ctypes.CDLL) -> int:
    """Where libdeflate's state for this thread lies."""
    held: _Decompressor | None = getattr(_of_thread, "decompressor", None)
    if held is None:
        held = _of_thread.decompressor = _Decompressor(library)
    return held.state


class Unpacked(NamedTuple):
    """What was seen while ranges were read."""

    largest: int
    """Largest value."""
    n_bytes: int
    """Bytes read from the file."""


def unpack(
    fd: int | None, kind: Native | None, blocks: ArrayBlocks, ranges: NDArray[np.int64], out: NDArray[Any]
) -> Unpacked | None:
    """Read ranges of elements of one array.

    Parameters
    ----------
    fd
        The open chunk file; None if it lies elsewhere.
    kind
        Of its codec; None for one that is not known here.
    blocks
        The array's part of the block table.
    ranges
        Half-open ranges of elements, int64, (n, 2), each within the array.
    out
        Unsigned integers wide enough for the values, as many as the ranges have.

    Returns
    -------
    What was seen on the way; None if there is nothing to read from, or a block is not of the common case or not sound.
    """
    library = _libdeflate()
    if fd is None or kind is None or library is None or not out.size:
        return None
    stored = _scratch("stored", int(blocks.size.max()) + PADDING)
    planes = _scratch("planes", blocks.itemsize * blocks.length).reshape(blocks.itemsize, blocks.length)
    largest, n_bytes = _unpack(
        fd, CODES[kind], _decompressor(library), blocks.offset, blocks.size, blocks.filter_mask, blocks.crc32,
        ranges, stored, planes, plane_of_zeros(blocks.length), out,
    )  # fmt: skip
    return None if largest < 0 else Unpacked(largest, n_bytes)


@ahead_of(
    "train",
    "i8, i8, i8, i8[::1], i8[::1], u4[::1], u4[::1], i8[:, ::1], u1[::1], u1[:, ::1], u1[::1], u2[::1]",
    given=_libdeflate,
)
@compiled
def _unpack(
    fd: int,
    code: int,
    state: int,
    offset: NDArray[np.int64],
    size: NDArray[np.int64],
    filter_mask: NDArray[np.uint32],
    crc32: NDArray[np.uint32],
    ranges: NDArray[np.int64],
    stored: NDArray[np.uint8],
    planes: NDArray[np.uint8],
    zeros: NDArray[np.uint8],
    out: NDArray[Any],
) -> tuple[int, int]:
    """Fill ``out``; the largest value, negative where a block is left to the plain way, and the bytes read."""
    length = planes.shape[1]
    done, largest, n_bytes, held = 0, 0, 0, -1
    for r in range(ranges.shape[0]):
        at, stop = ranges[r, 0], ranges[r, 1]
        while at < stop:
            block = at // length
            first = at - block * length
            if block != held:
                n = size[block]
                if filter_mask[block] or _pread(fd, stored.ctypes.data, n, offset[block]) != n:
                    return -1, 0
                if _crc32(0, stored.ctypes.data, n) != crc32[block]:
                    return -1, 0
                if code == GZIP:
                    sound = _inflated(state, stored, n, planes, out.itemsize)
                else:
                    sound = _unblosced(stored, n, planes, zeros, out.itemsize)
                if not sound:
                    return -1, 0
                n_bytes += n
                held = block
            n = min(length - first, stop - at)
            part = out[done : done + n]
            if out.itemsize == 2:
                value = join_two(planes[0, first : first + n], planes[1, first : first + n], part)
            else:
                value = join_planes(planes[: out.itemsize, first : first + n], part)
            largest = max(largest, value)
            done, at = done + n, at + n
    return largest, n_bytes


@compiled
def _inflated(state: int, stored: NDArray[np.uint8], n: int, planes: NDArray[np.uint8], wanted: int) -> bool:
    """Decompress a zlib stream of ``n`` bytes into all planes; False unless those above ``wanted`` are zero.

    The stream's own checksum is not looked at.
    """
    length = planes.shape[1]
    begin = read_literals(stored[2:], n - 2, planes[0])
    values = planes.reshape(-1)
    sound = begin > 0 and _inflates(state, stored[2 + begin :], n - 2 - begin, values[length:])
    # It may have another first block, or one that is repeated by what follows.
    if not sound and not _inflates(state, stored[2:], n - 2, values):
        return False
    return _is_zero(values[wanted * length :])


@compiled
def _inflates(state: int, content: NDArray[np.uint8], n: int, out: NDArray[np.uint8]) -> bool:
    return bool(_inflate(state, content.ctypes.data, n + PADDING, out.ctypes.data, out.size, 0) == 0)


@compiled
def _unblosced(
    stored: NDArray[np.uint8], n: int, planes: NDArray[np.uint8], zeros: NDArray[np.uint8], wanted: int
) -> bool:
    """Decompress the ``wanted`` lowest planes of a buffer of one block of planes; False unless the others are zero."""
    n_planes, length = planes.shape
    at = HEADER_BYTES + 4
    if n < at or stored[2] != PLANES or stored[3] != n_planes:
        return False
    for field, value in ((4, planes.size), (8, planes.size), (12, n)):
        if _number(stored, field) != value:
            return False
    for plane in range(n_planes):
        if at + 4 > n:
            return False
        held = _number(stored, at)
        begin, at = at + 4, at + 4 + held
        if at > n:
            return False
        if plane >= wanted and _equal(stored[begin:at], zeros):
            continue
        if held == length:
            _copy(stored[begin:at], planes[plane])
        elif _unlz4(stored.ctypes.data + begin, planes[plane].ctypes.data, held, length) != length:
            return False
        if plane >= wanted and not _is_zero(planes[plane]):
            return False
    return True


@compiled
def _copy(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
    for k in range(source.size):  # a slice assigned would take seconds to compile, for its error message
        target[k] = source[k]


@compiled
def _is_zero(values: NDArray[np.uint8]) -> bool:
    seen = np.uint8(0)
    for k in range(values.size):
        seen = np.uint8(seen | values[k])
    return bool(seen == 0)


@compiled
def _equal(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    if one.size != other.size:
        return False
    differ = np.uint8(0)
    for k in range(one.size):
        differ = np.uint8(differ | (one[k] ^ other[k]))
    return bool(differ == 0)


@compiled
def _number(stored: NDArray[np.uint8], at: int) -> int:
    """Four bytes, the lowest first."""
    low = int(stored[at]) | int(stored[at + 1]) << 8
    return low | int(stored[at + 2]) << 16 | int(stored[at + 3]) << 24
