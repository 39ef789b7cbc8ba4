"""Blocks of rows in; kept rows in the universe's gene order, packed, in any order asked, out: what a scan holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.processing.scan.cell_hash import hash_row
from scvae_data.processing.sort.kernels import remap_row
from scvae_data.processing.sort.packed import MOST_BYTES, pack_row
from scvae_data.processing.sort.sorted_run import RARE_CELLS
from scvae_data.readers.base import CsrBlock
from scvae_data.store import index_dtype
from scvae_data.system.jit import ahead_of, compiled

__all__ = ["RowBuffer"]


class RowBuffer:
    """Kept rows in the universe's gene order, and how many of all that ever came have each gene.

    Parameters
    ----------
    key_hashes
        Of the genes of the universe, see `hash_keys`; uint64, shape (n_genes, 2).
    source
        Path of the file that the rows come from, for errors.
    """

    def __init__(self, key_hashes: NDArray[np.uint64], source: str) -> None:
        n_genes = len(key_hashes)
        self.cells = np.zeros(n_genes, np.uint32)
        """Cells with each gene."""
        self.n_entries = 0
        self._rare = np.empty((n_genes, RARE_CELLS), np.int64)
        self._key_hashes, self._source = key_hashes, source
        self._bits = np.zeros(-(-n_genes // 64), np.uint64)
        self._ranks = np.empty(len(self._bits), np.uint32)
        self._fit(n_genes)
        self._packed = np.empty(0, np.uint8)
        self._n_bytes = 0
        self._starts = [np.zeros(1, np.int64)]
        self._row_sums: list[NDArray[np.int64]] = []

    def append(
        self, block: CsrBlock, keep: NDArray[np.bool_], gene_map: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Append the kept rows of a block; return the number of genes of each, and its hash, (n, 2)."""
        longest = int(np.diff(block.indptr).max(initial=0))
        if len(self._indices) < longest:  # a row may name a column more than once
            self._fit(longest)
        self._make_room(self._n_bytes + MOST_BYTES * len(block.indices))
        n_rows = int(keep.sum())
        ends, hashes = np.empty(n_rows, np.int64), np.empty((n_rows, 2), np.uint64)
        row_sums = np.empty((n_rows, 3), np.int64)
        n_bytes = keep_rows(
            block.indptr, block.indices, block.data, keep, block.first_row, gene_map, self._key_hashes, self._bits,
            self._ranks, self._unordered, self._entry_sums, self._indices, self._data, self.cells, self._rare,
            self._packed[self._n_bytes :], ends, row_sums, hashes,
        )  # fmt: skip
        if n_bytes < 0:
            message = "the summed count of one gene in one cell exceeds 4,294,967,295"
            raise InputError(self._source, "too_large", message)
        lengths = row_sums[:, 1]
        self.n_entries += int(lengths.sum())
        self._row_sums.append(row_sums)
        self._starts.append(self._n_bytes + ends)
        self._n_bytes += n_bytes
        return lengths, hashes

    def _fit(self, n_entries: int) -> None:
        """Let the scratch hold a row of so many entries."""
        kind = index_dtype(len(self._key_hashes))
        self._unordered, self._indices = np.empty(n_entries, kind), np.empty(n_entries, kind)
        self._entry_sums, self._data = np.empty(n_entries, np.int64), np.empty(n_entries, np.uint32)

    def _make_room(self, n_bytes: int) -> None:
        """Let the packed rows take so many bytes; those that are never written to take no memory."""
        if len(self._packed) < n_bytes:
            larger = np.empty(max(n_bytes, 2 * len(self._packed)), np.uint8)
            larger[: self._n_bytes] = self._packed[: self._n_bytes]
            self._packed = larger

    def packed(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Return where each row starts among the bytes of all, and these bytes, valid until the next rows come."""
        return np.concatenate(self._starts), self._packed[: self._n_bytes]

    def row_sums(self) -> NDArray[np.int64]:
        """Return the total, the number of genes and the largest count of each row, shape (n, 3)."""
        return np.concatenate(self._row_sums)

    def rare_rows(self) -> NDArray[np.int64]:
        """Return, gene after gene, the rows of the file that have a rare one."""
        cells = self.cells
        found: NDArray[np.int64] = self._rare[(np.arange(RARE_CELLS) < cells[:, None]) & (cells <= RARE_CELLS)[:, None]]
        return found

    def clear(self) -> None:
        """Forget all rows."""
        self._starts, self._row_sums = [np.zeros(1, np.int64)], []
        self._n_bytes = self.n_entries = 0


@ahead_of(
    "process",
    *(
        f"i8[::1], i4[::1], {counts}[::1], b1[::1], i8, i4[::1], u8[:, ::1], u8[::1], u4[::1], u2[::1], i8[::1], "
        "u2[::1], u4[::1], u4[::1], i8[:, ::1], u1[::1], i8[::1], i8[:, ::1], u8[:, ::1]"
        for counts in ("f4", "u4")
    ),
)
@compiled
def keep_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[Any],
    keep: NDArray[np.bool_],
    first_row: int,
    gene_map: NDArray[np.int32],
    key_hashes: NDArray[np.uint64],
    bits: NDArray[np.uint64],
    ranks: NDArray[np.uint32],
    unordered: NDArray[Any],
    entry_sums: NDArray[np.int64],
    row_indices: NDArray[Any],
    row_data: NDArray[np.uint32],
    cells: NDArray[np.uint32],
    rare: NDArray[np.int64],
    packed: NDArray[np.uint8],
    ends: NDArray[np.int64],
    row_sums: NDArray[np.int64],
    hashes: NDArray[np.uint64],
) -> int:
    """Bring the kept rows into the universe's gene order, pack and hash them; return how many bytes they take.

    Where a sum passes uint32, return -1. Each row is done with before the next
    one, so that it is still in the cache.

    Parameters
    ----------
    first_row
        Number of the first row in the file.
    bits, ranks, unordered, entry_sums, row_indices, row_data
        Scratch, see `remap_row`.
    cells, rare
        Get one more of each gene; and the first rows that have it.
    packed, ends, row_sums, hashes
        Filled: the bytes; where each row ends among them; its total, number of genes and largest count; and its hash.
    """
    at, number = np.int64(0), 0
    for row in range(indptr.size - 1):
        if not keep[row]:
            continue
        entries = slice(indptr[row], indptr[row + 1])
        n = remap_row(
            indices[entries], data[entries], gene_map, bits, ranks, unordered, entry_sums, row_indices, row_data
        )
        if n < 0:
            return -1
        genes, of_genes = row_indices[:n], row_data[:n]
        for k in range(n):
            gene = np.uintp(genes[k])
            if cells[gene] < np.uint32(rare.shape[1]):
                rare[gene, np.uintp(cells[gene])] = first_row + row
            cells[gene] += np.uint32(1)
        total, largest = np.uint64(0), np.uint32(0)
        for k in range(n):
            total += np.uint64(of_genes[k])
            largest = max(largest, of_genes[k])
        at = pack_row(genes, of_genes, packed, at)
        hashes[number, 0], hashes[number, 1] = hash_row(genes, of_genes, key_hashes)
        ends[number] = at
        row_sums[number, 0], row_sums[number, 1], row_sums[number, 2] = total, n, largest
        number += 1
    return int(at)
