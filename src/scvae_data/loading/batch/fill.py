"""Decoded rows and per-cell facts in, the arrays of one batch out: dense float32, or CSR."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.loading.batch.kernels import NO_FACTORS, NO_GENES, gather_dense, gather_rows, row_lengths
from scvae_data.loading.batch.nontemporal import STREAMED_BYTES
from scvae_data.store.csr import CompactCsr

__all__ = ["Piece", "count_elements", "fill_csr", "fill_dense", "fill_rows"]


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
    indptr: NDArray[np.int64],
    columns: NDArray[Any],
    values: NDArray[Any],
    library_size: NDArray[np.float32],
) -> None:
    """Fill CSR rows; like :func:`fill_dense`, with ``indptr`` from :func:`count_elements`.

    ``columns`` and ``values`` have room for one element more than ``indptr[-1]``.
    """
    for span, slots, low, part in _spans(pieces):
        factors = NO_FACTORS if size_factor is None else size_factor[span]
        borders = indptr[span.start : span.stop + 1]
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
