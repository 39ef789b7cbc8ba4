"""Integers to byte planes and back: HDF5's shuffle filter, without the wide copies it works on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.system.jit import ahead_of, compiled

__all__ = ["byte_counts", "entropy", "join_planes", "join_two", "narrow_into", "shuffle"]


def shuffle(values: NDArray[Any], length: int, n_planes: int) -> NDArray[np.uint8]:
    """Byte-shuffle a block, padded with zeros to ``length`` values.

    Parameters
    ----------
    values
        Unsigned integers, (n,) with n <= length.
    length
        Values in the stored block.
    n_planes
        Bytes of a value that are wanted, from the lowest on.

    Returns
    -------
    uint8, (n_planes, length): all lowest bytes, then all second bytes, and so on.
    """
    planes = np.empty((n_planes, length), dtype=np.uint8)
    planes[:, values.size :] = 0
    planes[values.dtype.itemsize :] = 0
    _split(values, planes[: values.dtype.itemsize])
    return planes


@ahead_of("process", "u2[::1], u1[:, ::1]", "u8[::1], u1[:, ::1]")
@compiled
def _split(values: NDArray[Any], planes: NDArray[np.uint8]) -> None:
    for plane in range(planes.shape[0]):
        shift = values.dtype.type(8 * plane)
        for i in range(values.size):
            planes[plane, i] = values[i] >> shift


@compiled
def join_two(low: NDArray[Any], high: NDArray[Any], out: NDArray[Any]) -> int:
    """Put 16-bit values together from their two bytes; return the largest, 0 if there are none."""
    largest = np.uint16(0)
    for i in range(out.size):
        value = np.uint16(low[i]) | np.uint16(np.uint16(high[i]) << np.uint16(8))
        out[i] = value
        largest = max(largest, np.uint16(value))
    return int(largest)


@ahead_of("train", "u1[:, ::1], u4[::1]")
@compiled
def join_planes(planes: NDArray[Any], out: NDArray[Any]) -> int:
    """Put values together from their byte planes, (bytes a value, n), lowest first; return the largest, 0 if none."""
    kind = out.dtype.type
    for i in range(out.size):
        out[i] = planes[0, i]
    # One plane at a time: these loops become vector instructions.
    for plane in range(1, planes.shape[0]):
        shift = kind(8 * plane)
        for i in range(out.size):
            out[i] |= kind(planes[plane, i]) << shift
    largest = kind(0)
    for i in range(out.size):
        largest = max(largest, out[i])
    return int(largest)


@ahead_of("process", "u1[::1]")
@compiled
def byte_counts(plane: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count how often each byte occurs, (256,), in eight tables: in one, equal neighbours would wait for each other."""
    tables = np.zeros((8, 256), np.int64)
    whole = plane.size // 8 * 8
    for i in range(0, whole, 8):
        for lane in range(8):
            tables[lane, plane[i + lane]] += 1
    for i in range(whole, plane.size):
        tables[0, plane[i]] += 1
    counts = np.zeros(256, np.int64)
    for lane in range(8):
        for value in range(256):
            counts[value] += tables[lane, value]
    return counts


@ahead_of("process", "i8[::1]")
@compiled
def entropy(counts: NDArray[np.int64]) -> float:
    """Shannon entropy of what occurs so often, in bits: 8 where 256 values are equally frequent."""
    total, bits = counts.sum(), 0.0
    for count in counts:
        if count:
            bits -= count / total * math.log2(count / total)
    return bits


@compiled
def _narrow_into(values: NDArray[Any], out: NDArray[Any]) -> int:
    largest = values[0]
    for i in range(out.size):
        out[i] = values[i]
        largest = max(largest, values[i])
    return int(largest)


def narrow_into(values: NDArray[Any], out: NDArray[Any]) -> int:
    """Copy unsigned integers into a narrower array of the same length; return the largest, 0 if there are none."""
    return int(_narrow_into(values, out)) if out.size else 0
