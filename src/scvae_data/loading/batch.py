"""Decoded rows and per-cell facts in, one batch out: counts gathered straight into dense float32.

The kernels release the interpreter lock. They take the rows of one decoded part
at a time and skip rows that lie in other parts, so a batch drawn from many
parts needs no sorting and no copy in between.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from scvae_data.loading.select import BlockRows
from scvae_data.store.csr import CompactCsr

__all__ = ["BufferPool", "DecodedBlock", "RowFacts", "Window", "fill_rows", "gather_counts", "gather_normalized"]

# Most counts are small: log1p of these is looked up, computed once per row.
TABLE_SIZE = 32
MAX_BUFFERS = 8


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def gather_counts(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[Any],
    low: int,
    slots: NDArray[np.int64],
    x: NDArray[np.float32],
    library_size: NDArray[np.float32],
) -> None:
    """Write the counts of rows ``slots`` into ``x``, and their sums into ``library_size``.

    The part holds slots ``low`` to ``low + n``; other slots are left alone.

    Parameters
    ----------
    indptr, indices, data
        Rows of one part, compact CSR.
    low
        Slot of the part's first row.
    slots
        Wanted rows, shape (n_rows,).
    x
        Overwritten where a slot lies in the part, shape (n_rows, n_vars).
    library_size
        Likewise, shape (n_rows,).
    """
    n_part = indptr.size - 1
    for i in range(slots.size):
        row = slots[i] - low
        if row < 0 or row >= n_part:
            continue
        x[i, :] = 0
        total = np.int64(0)
        for j in range(indptr[row], indptr[row + 1]):
            x[i, indices[j]] = data[j]
            total += np.int64(data[j])
        library_size[i] = total


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def gather_normalized(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[Any],
    low: int,
    slots: NDArray[np.int64],
    size_factor: NDArray[np.float64],
    x: NDArray[np.float32],
    library_size: NDArray[np.float32],
) -> None:
    """Like :func:`gather_counts`, but ``x = log1p(count / size_factor)``.

    ``size_factor`` has shape (n_rows,). The quotient is rounded to float32
    before the logarithm, as ``sc.pp.normalize_total`` and ``sc.pp.log1p`` do.
    """
    n_part = indptr.size - 1
    table = np.empty(TABLE_SIZE, np.float32)
    for i in range(slots.size):
        row = slots[i] - low
        if row < 0 or row >= n_part:
            continue
        factor = size_factor[i]
        for small in range(TABLE_SIZE):
            table[small] = np.log1p(np.float32(small / factor))
        x[i, :] = 0
        total = np.int64(0)
        for j in range(indptr[row], indptr[row + 1]):
            count = np.int64(data[j])
            total += count
            x[i, indices[j]] = table[count] if count < TABLE_SIZE else np.log1p(np.float32(count / factor))
        library_size[i] = total


@dataclass(frozen=True, eq=False)
class DecodedBlock:
    """The rows of a block in memory, in parts that were decoded independently."""

    parts: tuple[CompactCsr, ...]
    failed: bool = field(default=False, init=False)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(part.indptr.nbytes + part.indices.nbytes + part.data.nbytes for part in self.parts)


class Window:
    """Blocks whose rows are mixed; a *slot* is a row's number counting through them in order."""

    def __init__(self, blocks: Sequence[tuple[BlockRows, DecodedBlock]]) -> None:
        self._blocks = [rows for rows, _ in blocks]
        self._first_slots = np.cumsum([0, *(rows.n_rows for rows in self._blocks)])
        self.parts: list[tuple[int, CompactCsr]] = []
        for first, (_, block) in zip(self._first_slots.tolist(), blocks, strict=False):
            low = first
            for part in block.parts:
                self.parts.append((low, part))
                low += part.n_obs

    def global_rows(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Global rows of ``slots``, same shape."""
        if len(self._blocks) == 1:
            return self._blocks[0].global_rows(slots)
        rows = np.empty(slots.shape, np.int64)
        block_of = np.searchsorted(self._first_slots, slots, side="right") - 1
        for position in np.unique(block_of).tolist():
            mine = block_of == position
            rows[mine] = self._blocks[position].global_rows(slots[mine] - self._first_slots[position])
        return rows


@dataclass(frozen=True, eq=False)
class RowFacts:
    """What is known of every cell of the directory, indexed by global row."""

    size_factor: NDArray[np.float64]
    gene_set: NDArray[np.int32]
    codes: Mapping[str, NDArray[np.int32]]
    """Category code of every cell by obs column."""

    def take(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """The facts of ``rows`` under their names in a batch."""
        return {
            "size_factor": self.size_factor[rows].astype(np.float32),
            "obs": {column: codes[rows].astype(np.int64) for column, codes in self.codes.items()},
            "index": rows,
            "gene_set": self.gene_set[rows].astype(np.int64),
        }


def fill_rows(
    parts: Sequence[tuple[int, CompactCsr]],
    slots: NDArray[np.int64],
    size_factor: NDArray[np.float64] | None,
    x: NDArray[np.float32],
    library_size: NDArray[np.float32],
) -> None:
    """Fill ``x`` and ``library_size`` with the rows ``slots``.

    Parameters
    ----------
    parts
        Slot of the first row, and the rows, of every part of a window.
    slots
        Wanted rows, shape (n_rows,).
    size_factor
        Of the wanted rows, shape (n_rows,), for log1p-normalised values; None for counts.
    x, library_size
        Overwritten; shapes (n_rows, n_vars) and (n_rows,).
    """
    for low, part in parts:
        if size_factor is None:
            gather_counts(part.indptr, part.indices, part.data, low, slots, x, library_size)
        else:
            gather_normalized(part.indptr, part.indices, part.data, low, slots, size_factor, x, library_size)


class BufferPool:
    """Float32 matrices that are used again once nobody refers to them; safe for threads.

    Fresh memory costs a page fault per 4 KiB, about as much as filling it. A
    buffer is given out only while the pool holds the last reference to it:
    arrays and tensors made of it, views of them included, keep it away.
    """

    def __init__(self) -> None:
        self._buffers: list[NDArray[np.float32]] = [np.empty((0, 0), np.float32)]
        self._idle_references = sys.getrefcount(self._buffers[0])
        self._buffers.clear()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Buffers kept, in use or not."""
        return len(self._buffers)

    def take(self, n_rows: int, n_columns: int) -> NDArray[np.float32]:
        """An uninitialised matrix, shape (n_rows, n_columns)."""
        with self._lock:
            for position in range(len(self._buffers)):
                if sys.getrefcount(self._buffers[position]) != self._idle_references:
                    continue
                if self._buffers[position].shape[0] < n_rows or self._buffers[position].shape[1] != n_columns:
                    self._buffers[position] = np.empty((n_rows, n_columns), np.float32)
                return self._buffers[position][:n_rows]
            fresh = np.empty((n_rows, n_columns), np.float32)
            # A consumer that collects batches must not make the pool keep them all.
            if len(self._buffers) < MAX_BUFFERS:
                self._buffers.append(fresh)
            return fresh[:n_rows]
