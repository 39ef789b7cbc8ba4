"""Rows of one decoded part in, rows of a batch out: the loops behind every format of ``x``.

The kernels release the interpreter lock. They take the rows of one decoded part
at a time and skip rows that lie in other parts, so a batch drawn from many
parts needs no sorting and no copy in between.

Common arguments: ``indptr``, ``indices`` and ``data`` are the part, compact
CSR, which holds the slots from ``low`` on; ``slots`` (n_rows,) are the rows
wanted; ``genes`` gives the output column of every gene, n_columns for none, and
is empty where all genes are wanted; ``size_factor`` (n_rows,) is empty for counts.
Row totals (``library_size``) are over all genes, whatever ``genes`` selects.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from scvae_data.loading.batch.nontemporal import aligned_zeros, misplaced, move_row, settle
from scvae_data.system.jit import ahead_of, compiled

__all__ = ["NO_FACTORS", "NO_GENES", "gather_dense", "gather_rows", "row_lengths", "scatter_rows"]

# Most counts are small: what becomes of these is looked up, computed once per row.
TABLE_SIZE = 32
NO_GENES = np.zeros(0, np.int32)
NO_FACTORS = np.zeros(0, np.float64)


@numba.njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _value(count: Any, factor: float) -> Any:
    # The quotient is rounded to float32 before the logarithm, as scanpy's normalize_total and log1p do.
    return np.log1p(np.float32(count / factor)) if factor > 0 else np.float32(count)


@numba.njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _fill_table(table: NDArray[np.float32], factor: float) -> Any:
    for count in range(table.size):
        table[count] = _value(count, factor)
    return np.uint64(table.size - 1)


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def _total(counts: NDArray[Any]) -> Any:
    total = np.uint64(0)
    if counts.itemsize == 2 and counts.size <= 1 << 16:
        # 32 bits hold the sum of so many counts, and twice as many fit into a vector register.
        short = np.uint32(0)
        for j in range(counts.size):
            short = np.uint32(short + np.uint32(counts[j]))
        total = np.uint64(short)
    else:
        for j in range(counts.size):
            total += np.uint64(counts[j])
    return total


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def _copy(source: NDArray[Any], target: NDArray[Any]) -> None:
    for j in range(source.size):
        target[j] = source[j]


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def _scatter(columns: NDArray[Any], counts: NDArray[Any], line: NDArray[np.float32]) -> None:
    # Unsigned, because a column that might be negative would be asked whether it is.
    for j in range(columns.size):
        line[np.uint64(columns[j])] = counts[j]


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def _scatter_normalized(
    columns: NDArray[Any], counts: NDArray[Any], factor: float, table: NDArray[np.float32], line: NDArray[np.float32]
) -> None:
    last = _fill_table(table, factor)
    for j in range(columns.size):
        line[np.uint64(columns[j])] = table[min(np.uint64(counts[j]), last)]
    # Apart, so that the loop above stays free of calls.
    for j in range(columns.size):
        if np.uint64(counts[j]) > last:
            line[np.uint64(columns[j])] = _value(counts[j], factor)


@numba.njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _make_line(columns: Any, counts: Any, factor: float, normalized: bool, table: Any, line: Any) -> None:
    # Given, as it is the same for all rows: asked of the factors in here, it costs a tenth of the time.
    if normalized:
        _scatter_normalized(columns, counts, factor, table, line)
    else:
        _scatter(columns, counts, line)


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def _copy_normalized(
    counts: NDArray[Any], factor: float, table: NDArray[np.float32], target: NDArray[np.float32]
) -> None:
    last = _fill_table(table, factor)
    for j in range(counts.size):
        target[j] = table[min(np.uint64(counts[j]), last)]
    for j in range(counts.size):
        if np.uint64(counts[j]) > last:
            target[j] = _value(counts[j], factor)


@ahead_of("train", "i8[::1], u2[::1], u2[::1], i8, i8[::1], i4[::1], f8[::1], b1, f4[:, ::1], f4[::1]")
@compiled
def gather_dense(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[Any],
    low: int,
    slots: NDArray[np.int64],
    genes: NDArray[np.int32],
    size_factor: NDArray[np.float64],
    streamed: bool,
    x: NDArray[np.float32],
    library_size: NDArray[np.float32],
) -> None:
    """Write counts, or ``log1p(count / size_factor)``, into the rows of ``x``, shape (n_rows, n_columns).

    ``streamed`` writes past the caches: for batches that do not stay in them anyway.
    """
    n_part, n_columns = indptr.size - 1, x.shape[1]
    normalized = size_factor.size > 0
    table = np.empty(TABLE_SIZE, np.float32)
    # Rows are made in a line that stays in the cache. One column more takes what
    # is not wanted: cheaper than asking at every element.
    room, flat = aligned_zeros(n_columns + 1), x.reshape(-1)
    chosen = np.empty(genes.size, np.int32)
    for i in range(slots.size):
        row = slots[i] - low
        if row < 0 or row >= n_part:
            continue
        columns, counts = indices[indptr[row] : indptr[row + 1]], data[indptr[row] : indptr[row + 1]]
        library_size[i] = _total(counts)
        line = room[misplaced(flat, i * n_columns) :]
        if genes.size:
            for j in range(columns.size):
                chosen[j] = genes[np.uint64(columns[j])]
            _make_line(chosen[: columns.size], counts, size_factor[i] if normalized else 0.0, normalized, table, line)
        else:
            _make_line(columns, counts, size_factor[i] if normalized else 0.0, normalized, table, line)
        line[n_columns] = 0
        move_row(line[:n_columns], flat, i * n_columns, streamed)
    if streamed:
        settle()


@ahead_of("train", "i8[::1], u2[::1], i8, i8[::1], i4[::1], i8, i8[::1]")
@compiled
def row_lengths(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    low: int,
    slots: NDArray[np.int64],
    genes: NDArray[np.int32],
    n_columns: int,
    lengths: NDArray[np.int64],
) -> None:
    """Write into ``lengths`` (n_rows,) how many elements of each row are wanted."""
    n_part = indptr.size - 1
    for i in range(slots.size):
        row = slots[i] - low
        if row < 0 or row >= n_part:
            continue
        columns = indices[indptr[row] : indptr[row + 1]]
        n = columns.size
        for j in range(columns.size if genes.size else 0):
            n -= genes[columns[j]] == n_columns
        lengths[i] = n


@ahead_of("train", "i8[::1], u2[::1], u2[::1], i8, i8[::1], i4[::1], i8, f8[::1], i8[::1], i4[::1], f4[::1], f4[::1]")
@compiled
def gather_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[Any],
    low: int,
    slots: NDArray[np.int64],
    genes: NDArray[np.int32],
    n_columns: int,
    size_factor: NDArray[np.float64],
    starts: NDArray[np.int64],
    columns: NDArray[Any],
    values: NDArray[Any],
    library_size: NDArray[np.float32],
) -> None:
    """Write rows as CSR: row i into ``columns`` and ``values`` from ``starts[i]`` on, in any integer or float type.

    Both need room for one element more than the rows have.
    """
    n_part = indptr.size - 1
    normalized = size_factor.size > 0
    table = np.empty(TABLE_SIZE, np.float32)
    for i in range(slots.size):
        row = slots[i] - low
        if row < 0 or row >= n_part:
            continue
        source, counts = indices[indptr[row] : indptr[row + 1]], data[indptr[row] : indptr[row + 1]]
        library_size[i] = _total(counts)
        at, factor = starts[i], size_factor[i] if normalized else 0.0
        if genes.size:
            end = starts[i + 1]
            if normalized:
                _fill_table(table, factor)
            for j in range(source.size if at < end else 0):
                # Written in any case, and written over unless it is wanted.
                column, count = genes[source[j]], np.int64(counts[j])
                columns[at] = column
                if normalized:
                    values[at] = table[count] if count < TABLE_SIZE else _value(count, factor)
                else:
                    values[at] = counts[j]
                at += column < n_columns
                if at == end:
                    break
            continue
        # One array at a time: these loops become vector instructions.
        _copy(source, columns[at : at + source.size])
        if normalized:
            _copy_normalized(counts, factor, table, values[at : at + source.size])
        else:
            _copy(counts, values[at : at + source.size])


@compiled
def scatter_rows(
    indptr: NDArray[np.int64],
    columns: NDArray[Any],
    values: NDArray[Any],
    size_factor: NDArray[np.float64],
    streamed: bool,
    x: NDArray[np.float32],
) -> None:
    """Make the dense rows ``x`` of all CSR rows, as :func:`gather_dense` does."""
    normalized, n_columns = size_factor.size > 0, x.shape[1]
    room, flat = aligned_zeros(n_columns), x.reshape(-1)
    table = np.empty(TABLE_SIZE, np.float32)
    for i in range(indptr.size - 1):
        mine, counts = columns[indptr[i] : indptr[i + 1]], values[indptr[i] : indptr[i + 1]]
        line = room[misplaced(flat, i * n_columns) :]
        _make_line(mine, counts, size_factor[i] if normalized else 0.0, normalized, table, line)
        move_row(line[:n_columns], flat, i * n_columns, streamed)
    if streamed:
        settle()
