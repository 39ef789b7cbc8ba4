"""Blocks of rows in; kept rows in the universe's gene order, packed, in any order asked, out: what a scan holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.processing.sort.kernels import remap_rows
from scvae_data.processing.sort.packed import pack_rows
from scvae_data.readers.base import CsrBlock
from scvae_data.store import index_dtype

__all__ = ["RowBuffer"]


class RowBuffer:
    """Kept rows in the universe's gene order, and the sums of each gene over all rows that ever came.

    Parameters
    ----------
    n_genes
        Size of the universe.
    source
        Path of the file that they come from, for errors.
    """

    def __init__(self, n_genes: int, source: str) -> None:
        self.gene_cells = np.zeros(n_genes, np.int64)
        self.gene_totals = np.zeros(n_genes, np.int64)
        self.n_entries = 0
        self._source = source
        self._counts = np.zeros(n_genes, np.int64)
        self._bits = np.zeros(-(-n_genes // 64), np.uint64)
        self._indices = np.empty(0, index_dtype(n_genes))
        self._data = np.empty(0, np.uint32)
        self._parts: list[NDArray[np.uint8]] = []
        self._lengths: list[NDArray[np.int64]] = []

    def append(
        self, block: CsrBlock, keep: NDArray[np.bool_], gene_map: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.uint32]]:
        """Append the kept rows of a block; return them: indptr, indices, data, valid until the next ones come."""
        if len(self._indices) < len(block.indices):
            self._indices = np.empty(len(block.indices), self._indices.dtype)
            self._data = np.empty(len(block.indices), np.uint32)
        indptr = np.zeros(int(keep.sum()) + 1, np.int64)
        n_entries = remap_rows(
            block.indptr, block.indices, block.data, keep, gene_map, self._counts, self._bits,
            self._indices, self._data, indptr, self.gene_cells, self.gene_totals,
        )  # fmt: skip
        if n_entries < 0:
            message = "the summed count of one gene in one cell exceeds 4,294,967,295"
            raise InputError(self._source, "too_large", message)
        rows = (indptr, self._indices[:n_entries], self._data[:n_entries])
        starts, packed = pack_rows(*rows)
        self.n_entries += n_entries
        self._parts.append(packed)
        self._lengths.append(np.diff(starts))
        return rows

    def packed(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Return where each row starts among the bytes of all rows, as they came, and the bytes."""
        lengths = np.concatenate([np.zeros(1, np.int64), *self._lengths])
        return np.cumsum(lengths), np.concatenate(self._parts)

    def clear(self) -> None:
        """Forget all rows."""
        self._parts.clear()
        self._lengths.clear()
        self.n_entries = 0
