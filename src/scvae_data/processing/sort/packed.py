"""Rows of counts in, few bytes out, and back: each row can be read without those beside it.

For each entry, the number of genes that are left out before it and its count,
each as a varint: seven bits of the number in a byte, the lowest first, the
highest bit set where more come. Most entries take two bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.store import index_dtype
from scvae_data.system.jit import ahead_of, compiled

__all__ = ["MOST_BYTES", "pack_row", "pack_rows", "place_rows", "take_rows", "total_rows", "unpack_rows"]

MOST_BYTES = 10
"""What an entry takes at most: two numbers of 32 bits."""
MAPPED = 'Array(u1, 1, "C", readonly=True)'
"""Numba's word for the bytes of rows that lie in a file, for which kernels are compiled."""
# Unsigned places need no look at whether they count from the end.
ONE, SEVEN, LOW, MORE = np.uintp(1), np.uintp(7), np.uintp(127), np.uintp(128)


def pack_rows(
    indptr: NDArray[np.int64], indices: NDArray[Any], data: NDArray[np.uint32]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return where each row starts among the bytes, int64, (n + 1,), and the bytes.

    Parameters
    ----------
    indptr, indices, data
        The rows; genes ascend in a row.
    """
    starts = np.zeros(len(indptr), np.int64)
    packed = np.empty(MOST_BYTES * len(indices), np.uint8)
    n_bytes = _pack(indptr, indices, data, packed, starts)
    return starts, packed[:n_bytes].copy()  # the rest, which was never written to, takes no memory


def unpack_rows(
    starts: NDArray[np.int64], packed: NDArray[np.uint8], n_genes: int
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.uint32]]:
    """Return rows as they were packed: indptr, indices, data."""
    indptr = np.zeros(len(starts), np.int64)
    indices = np.empty(len(packed) // 2, index_dtype(n_genes))
    data = np.empty(len(packed) // 2, np.uint32)
    n_entries = _unpack(starts, packed, indptr, indices, data)
    return indptr, indices[:n_entries], data[:n_entries]


def take_rows(
    starts: NDArray[np.int64], packed: NDArray[np.uint8], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return packed rows by number, in the order asked."""
    out_starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(starts[rows + 1] - starts[rows], out=out_starts[1:])
    out = np.empty(out_starts[-1], np.uint8)
    _take(starts, packed, rows, out_starts, out)
    return out_starts, out


@compiled
def _put(packed: NDArray[np.uint8], at: Any, value: Any) -> Any:
    """Write a number; return where the next one goes."""
    while value >= np.uint32(MORE):
        packed[at] = value & np.uint32(LOW) | np.uint32(MORE)
        value = np.uint32(value >> np.uint32(SEVEN))
        at += ONE
    packed[at] = value
    return at + ONE


@compiled
def _entry(source: NDArray[np.uint8], at: Any) -> tuple[Any, Any, Any]:
    """Read the gap and the count of an entry; return them, and where the next one is."""
    gap, count = np.uintp(source[at]), np.uintp(source[at + ONE])
    if (gap | count) < MORE:
        return gap, count, at + ONE + ONE
    gap, at = _number(source, at)
    count, at = _number(source, at)
    return gap, count, at


@compiled
def _number(source: NDArray[np.uint8], at: Any) -> tuple[Any, Any]:
    value, shift, byte = np.uintp(0), np.uintp(0), MORE
    while byte >= MORE:
        byte = np.uintp(source[at])
        value |= (byte & LOW) << shift
        shift += SEVEN
        at += ONE
    return value, at


@compiled
def pack_row(indices: NDArray[Any], data: NDArray[np.uint32], packed: NDArray[np.uint8], at: Any) -> Any:
    """Write a row, whose genes ascend, from a place on; return where it ends."""
    place, next_gene = np.uintp(at), np.uint32(0)
    for k in range(indices.size):
        gene, count = np.uint32(indices[k]), np.uint32(data[k])
        gap = np.uint32(gene - next_gene)
        next_gene = np.uint32(gene + np.uint32(1))
        if (gap | count) < np.uint32(MORE):
            packed[place] = gap
            packed[place + ONE] = count
            place += ONE + ONE
        else:
            place = _put(packed, _put(packed, place, gap), count)
    return np.int64(place)


@ahead_of("process", "i8[::1], u2[::1], u4[::1], u1[::1], i8[::1]")
@compiled
def _pack(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[np.uint32],
    packed: NDArray[np.uint8],
    starts: NDArray[np.int64],
) -> int:
    at = np.int64(0)
    for row in range(indptr.size - 1):
        starts[row] = at
        entries = slice(indptr[row], indptr[row + 1])
        at = pack_row(indices[entries], data[entries], packed, at)
    starts[indptr.size - 1] = at
    return int(at)


@ahead_of("process", f"i8[::1], {MAPPED}, i8[::1], u2[::1], u4[::1]")
@compiled
def _unpack(
    starts: NDArray[np.int64],
    packed: NDArray[np.uint8],
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[np.uint32],
) -> int:
    n_entries = np.uintp(0)
    for row in range(starts.size - 1):
        source = packed[starts[row] : starts[row + 1]]
        at, gene = np.uintp(0), np.uintp(0)
        while at < np.uintp(source.size):
            gap, count, at = _entry(source, at)
            gene += gap
            indices[n_entries] = gene
            data[n_entries] = count
            gene += ONE
            n_entries += ONE
        indptr[row + 1] = n_entries
    return int(n_entries)


@ahead_of("process", f"i8[::1], {MAPPED}, i8[::1], i4[::1], u2[::1], u2[::1]")
@compiled
def place_rows(
    starts: NDArray[np.int64],
    packed: NDArray[np.uint8],
    targets: NDArray[np.int64],
    gene_map: NDArray[np.int32],
    out_indices: NDArray[Any],
    out_data: NDArray[Any],
) -> None:
    """Unpack each row to its place in the output, in the kept genes' numbering; target -1 leaves a row out."""
    for row in range(starts.size - 1):
        if targets[row] < 0:
            continue
        source = packed[starts[row] : starts[row + 1]]
        position, at, gene = np.uintp(targets[row]), np.uintp(0), np.uintp(0)
        while at < np.uintp(source.size):
            gap, count, at = _entry(source, at)
            gene += gap
            column = gene_map[gene]
            gene += ONE
            if column >= 0:
                out_indices[position] = column
                out_data[position] = count
                position += ONE


@ahead_of("process", f"i8[::1], {MAPPED}, b1[::1], b1[::1], i8[::1], i4[::1], u4[::1]")
@compiled
def total_rows(
    starts: NDArray[np.int64],
    packed: NDArray[np.uint8],
    wanted: NDArray[np.bool_],
    kept: NDArray[np.bool_],
    totals: NDArray[np.int64],
    lengths: NDArray[np.int32],
    largest: NDArray[np.uint32],
) -> None:
    """Fill the total, number of entries and largest count over the kept genes of each row that is wanted."""
    for row in range(starts.size - 1):
        if not wanted[row]:
            continue
        source = packed[starts[row] : starts[row + 1]]
        at, gene, total, length, most = np.uintp(0), np.uintp(0), np.uintp(0), 0, np.uintp(0)
        while at < np.uintp(source.size):
            gap, count, at = _entry(source, at)
            gene += gap
            if kept[gene]:
                total += count
                length += 1
                most = max(most, count)
            gene += ONE
        totals[row], lengths[row], largest[row] = total, length, most


@ahead_of("process", "i8[::1], u1[::1], i8[::1], i8[::1], u1[::1]")
@compiled
def _take(
    starts: NDArray[np.int64],
    packed: NDArray[np.uint8],
    rows: NDArray[np.int64],
    out_starts: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> None:
    for number in range(rows.size):
        row = packed[starts[rows[number]] : starts[rows[number] + 1]]
        place = out[out_starts[number] : out_starts[number + 1]]
        for k in range(row.size):  # over views: such a loop becomes vector instructions
            place[k] = row[k]
