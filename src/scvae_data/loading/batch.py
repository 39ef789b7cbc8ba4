"""Decoded rows and per-cell facts in, the arrays of one batch out: dense float32, or CSR."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.loading.kernels import NO_FACTORS, NO_GENES, gather_dense, gather_rows, row_lengths
from scvae_data.loading.select import Rows
from scvae_data.loading.streaming import STREAMED_BYTES
from scvae_data.store.csr import CompactCsr

__all__ = ["DecodedBlock", "Piece", "RowFacts", "Window", "count_elements", "fill_csr", "fill_dense", "fill_rows"]


@dataclass(frozen=True, eq=False)
class DecodedBlock:
    """The rows of a block in memory, in parts that were decoded independently."""

    parts: tuple[CompactCsr, ...]
    missing: NDArray[np.bool_] | None = None
    """Rows that could not be read, (n_obs,), and hold anything; None where all could."""
    failed: bool = field(default=False, init=False)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(part.indptr.nbytes + part.indices.nbytes + part.data.nbytes for part in self.parts)


class Window:
    """Blocks whose rows are mixed; a *slot* is a row's number counting through them in order."""

    def __init__(self, blocks: Sequence[tuple[Rows, DecodedBlock | None]]) -> None:
        self._blocks = [rows for rows, _ in blocks]
        self._first_slots = np.cumsum([0, *(rows.n_rows for rows in self._blocks)])
        self.parts: list[tuple[int, CompactCsr]] = []
        self._missing = [None if block is None else block.missing for _, block in blocks]
        self._whole = all(block is not None and not _any(block.missing) for _, block in blocks)
        self._absent = np.array([block is None for _, block in blocks])
        for first, (_, block) in zip(self._first_slots.tolist(), blocks, strict=False):
            if block is None:
                continue
            low = first
            for part in block.parts:
                self.parts.append((low, part))
                low += part.n_obs

    def present(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of ``slots`` whose block, and row in it, could be read."""
        if self._whole:
            return slots
        block_of = np.searchsorted(self._first_slots, slots, side="right") - 1
        kept: NDArray[np.bool_] = ~self._absent[block_of]
        for position, missing in enumerate(self._missing):
            if missing is not None:
                mine = block_of == position
                kept[mine] &= ~missing[slots[mine] - self._first_slots[position]]
        return slots.compress(kept)

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


def _any(missing: NDArray[np.bool_] | None) -> bool:
    return missing is not None and bool(missing.any())


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


Piece = tuple[Sequence[tuple[int, CompactCsr]], NDArray[np.int64]]
"""Parts of a window with the slot of each part's first row, and the slots wanted of them."""


def fill_rows(
    parts: Sequence[tuple[int, CompactCsr]],
    slots: NDArray[np.int64],
    size_factor: NDArray[np.float64] | None,
    x: NDArray[np.float32],
    library_size: NDArray[np.float32],
) -> None:
    """Fill ``x`` and ``library_size`` with the rows ``slots`` of one window, all genes; see :func:`fill_dense`."""
    fill_dense([(parts, slots)], NO_GENES, size_factor, x, library_size)


def fill_dense(
    pieces: Sequence[Piece],
    genes: NDArray[np.int32],
    size_factor: NDArray[np.float64] | None,
    x: NDArray[np.float32],
    library_size: NDArray[np.float32],
) -> None:
    """Fill dense rows, those of several windows one below the other.

    Parameters
    ----------
    pieces
        What to take from each window; n_rows in all.
    genes
        Output column of every gene, n_columns for none, (n_vars,); empty for all genes.
    size_factor
        Of the wanted rows, (n_rows,), for log1p-normalised values; None for counts.
    x, library_size
        Overwritten; shapes (n_rows, n_columns) and (n_rows,). ``library_size`` is over all genes.
    """
    for span, slots, low, part in _spans(pieces):
        factors = NO_FACTORS if size_factor is None else size_factor[span]
        gather_dense(
            part.indptr, part.indices, part.data, low, slots, genes, factors,
            x.nbytes >= STREAMED_BYTES, x[span], library_size[span],
        )  # fmt: skip


def count_elements(pieces: Sequence[Piece], genes: NDArray[np.int32], n_columns: int) -> NDArray[np.int64]:
    """Where each row of a CSR batch begins, shape (n_rows + 1,)."""
    lengths = np.zeros(sum(slots.size for _, slots in pieces) + 1, np.int64)
    for span, slots, low, part in _spans(pieces):
        row_lengths(part.indptr, part.indices, low, slots, genes, n_columns, lengths[1:][span])
    return lengths.cumsum(out=lengths)


def fill_csr(
    pieces: Sequence[Piece],
    genes: NDArray[np.int32],
    n_columns: int,
    size_factor: NDArray[np.float64] | None,
    starts: NDArray[np.int64],
    columns: NDArray[Any],
    values: NDArray[Any],
    library_size: NDArray[np.float32],
) -> None:
    """Fill CSR rows; like :func:`fill_dense`, with ``starts`` from :func:`count_elements`.

    ``columns`` and ``values`` have room for one element more than ``starts[-1]``.
    """
    for span, slots, low, part in _spans(pieces):
        factors = NO_FACTORS if size_factor is None else size_factor[span]
        borders = starts[span.start : span.stop + 1]
        gather_rows(
            part.indptr, part.indices, part.data, low, slots, genes, n_columns, factors,
            borders, columns, values, library_size[span],
        )  # fmt: skip


def _spans(pieces: Sequence[Piece]) -> Iterator[tuple[slice, NDArray[np.int64], int, CompactCsr]]:
    """Rows of the batch, the slots wanted of a window, and one part of that window."""
    first = 0
    for parts, slots in pieces:
        span = slice(first, first + slots.size)
        for low, part in parts:
            yield span, slots, low, part
        first = span.stop
