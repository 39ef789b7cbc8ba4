"""Column-wise entries to compressed rows, by counting sort in compact dtypes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scvae_data.readers.base import CsrBlock, row_spans
from scvae_data.system.jit import compiled

__all__ = ["CompactRows", "Entries", "compress_rows"]

Entries = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]
"""Rows, columns and values of some entries, equally long."""


class CompactRows:
    """A whole matrix in memory as compressed rows.

    Columns are uint16 where they fit; counts are uint16 until a value does
    not fit exactly, then the stored dtype.
    """

    def __init__(self, n_per_row: NDArray[np.int64], n_vars: int, dtype: DTypeLike) -> None:
        self.n_vars = n_vars
        self.indptr: NDArray[np.int64] = np.concatenate([[0], np.cumsum(n_per_row)]).astype(np.int64)
        nnz = int(self.indptr[-1])
        index_dtype = np.uint16 if n_vars <= 2**16 else np.int32 if n_vars < 2**31 else np.int64
        self.indices: NDArray[Any] = np.empty(nnz, dtype=index_dtype)
        self._stored = np.dtype(dtype)
        compact = np.dtype(np.uint16) if self._stored.itemsize > 2 else self._stored
        self.data: NDArray[Any] = np.empty(nnz, dtype=compact)
        self._next = self.indptr[:-1].copy()

    def add(self, rows: NDArray[np.int64], columns: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Append entries to their rows, keeping the order in which they come."""
        if self.data.dtype != self._stored and not _fits(values, self.data.dtype):
            self.data = self.data.astype(self._stored)  # exact: so far only integers below 65,536
        # Copied as bits, so that the kernel is compiled once per width and not once per dtype.
        bits = np.dtype(f"u{self.data.dtype.itemsize}")
        _scatter(
            rows,
            columns,
            values.astype(self.data.dtype, copy=False).view(bits),
            self._next,
            self.indices,
            self.data.view(bits),
        )

    def blocks(self, max_elements: int, first_row: int = 0) -> Iterator[CsrBlock]:
        """The rows from ``first_row`` on, in order; arrays are views."""
        borders = self.indptr[first_row:]
        for start, stop in row_spans(borders, max_elements):
            first, last = int(borders[start]), int(borders[stop])
            yield CsrBlock(
                first_row=first_row + start,
                indptr=borders[start : stop + 1] - first,
                indices=self.indices[first:last],
                data=self.data[first:last],
                n_vars=self.n_vars,
            )


def compress_rows(
    entries: Callable[[], Iterable[Entries]], n_per_row: NDArray[np.int64], n_vars: int, dtype: DTypeLike
) -> CompactRows:
    """Sort entries into rows in one pass, given how many each row has.

    Entries that come column by column leave every row's columns sorted.
    """
    rows = CompactRows(n_per_row, n_vars, dtype)
    for part in entries():
        rows.add(*part)
    return rows


def _fits(values: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    if values.size == 0:
        return True
    limit = np.iinfo(dtype).max
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= limit):  # false for NaN as well
        return False
    return values.dtype.kind != "f" or bool((values == np.floor(values)).all())


@compiled
def _scatter(
    rows: NDArray[Any],
    columns: NDArray[Any],
    values: NDArray[Any],
    next_slot: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[Any],
) -> None:
    for i in range(rows.shape[0]):
        row = rows[i]
        slot = next_slot[row]
        next_slot[row] = slot + 1
        indices[slot] = columns[i]
        data[slot] = values[i]
