"""Blocks of rows in; kept rows in the universe's gene order, in any order asked, out: what a scan holds in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.processing.sort.kernels import remap_rows, take_rows
from scvae_data.readers.base import CsrBlock
from scvae_data.store import index_dtype

__all__ = ["RowBuffer"]


class RowBuffer:
    """Kept rows in the universe's gene order, up to a fixed number of entries.

    Parameters
    ----------
    capacity
        Entries it holds; a single longer row enlarges it.
    n_genes
        Size of the universe.
    """

    def __init__(self, capacity: int, n_genes: int) -> None:
        self._index_dtype = index_dtype(n_genes)
        self._indices = np.empty(capacity, self._index_dtype)
        self._data = np.empty(capacity, np.uint32)
        self._counts = np.zeros(n_genes, np.int64)
        self._bits = np.zeros(-(-n_genes // 64), np.uint64)
        self._lengths: list[NDArray[np.int64]] = []
        self.n_entries = 0

    def pieces(self, indptr: NDArray[np.int64], keep: NDArray[np.bool_]) -> Iterator[slice]:
        """Cut a block's rows into ranges that fit an empty buffer; ranges without a kept row are left out."""
        start, n_rows = 0, len(keep)
        while start < n_rows:
            stop = int(np.searchsorted(indptr, indptr[start] + len(self._indices), side="right")) - 1
            stop = min(max(stop, start + 1), n_rows)
            if keep[start:stop].any():
                yield slice(start, stop)
            start = stop

    def fits(self, n_entries: int) -> bool:
        """Whether so many more entries fit; an empty buffer takes any row."""
        return self.n_entries + n_entries <= len(self._indices) or self.n_entries == 0

    def append(
        self,
        block: CsrBlock,
        rows: slice,
        keep: NDArray[np.bool_],
        gene_map: NDArray[np.int32],
        gene_cells: NDArray[np.int64],
        gene_totals: NDArray[np.int64],
        path: str,
    ) -> None:
        """Append the kept rows of a range and add them to the gene sums."""
        indptr = block.indptr[rows.start : rows.stop + 1]
        needed = self.n_entries + int(indptr[-1] - indptr[0])
        if needed > len(self._indices):
            self._indices = np.empty(needed, self._index_dtype)
            self._data = np.empty(needed, np.uint32)
        lengths = np.zeros(int(keep.sum()), np.int64)
        end = remap_rows(
            indptr, block.indices, block.data, keep, gene_map, self._counts, self._bits,
            self._indices, self._data, self.n_entries, lengths, gene_cells, gene_totals,
        )  # fmt: skip
        if end < 0:
            raise InputError(path, "too_large", "the summed count of one gene in one cell exceeds 4,294,967,295")
        self.n_entries = end
        self._lengths.append(lengths)

    def rows(self) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.uint32]]:
        """Return all rows as they came: row starts, indices, data."""
        starts = np.concatenate([[0], np.cumsum(np.concatenate(self._lengths))]).astype(np.int64)
        return starts, self._indices[: self.n_entries], self._data[: self.n_entries]

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.uint32]]:
        """Return rows by number, in the order asked: row starts, indices, data."""
        starts = np.concatenate([[0], np.cumsum(np.concatenate(self._lengths))])
        lengths = starts[rows + 1] - starts[rows]
        taken = np.concatenate([[0], np.cumsum(lengths)])
        indices, data = np.empty(taken[-1], self._index_dtype), np.empty(taken[-1], np.uint32)
        take_rows(starts, self._indices, self._data, rows, taken, indices, data)
        return taken, indices, data

    def clear(self) -> None:
        """Forget all rows; the memory is used again."""
        self._lengths.clear()
        self.n_entries = 0
