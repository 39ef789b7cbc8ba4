"""Rows of counts in the narrowest integers that hold them: what is kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scvae_data.errors import StoreError
from scvae_data.system.jit import ahead_of, compiled

if TYPE_CHECKING:
    import scipy.sparse as sp

__all__ = ["STREAM_MAX_COUNT", "CompactCsr", "CsrStream", "count_dtype", "index_dtype"]

# Above it a chunk stores its counts in 8 bytes, which must be known before the first one is written.
STREAM_MAX_COUNT = 2**31 - 1


def index_dtype(n_vars: int) -> np.dtype[Any]:
    """Type of column indices in memory: uint16 up to 65,536 genes, else uint32."""
    return np.dtype(np.uint16 if n_vars <= 1 << 16 else np.uint32)


def count_dtype(max_count: int) -> np.dtype[Any]:
    """Type of counts in memory: the narrowest of uint16, uint32 and uint64 that holds ``max_count``."""
    return np.dtype(np.uint16 if max_count < 1 << 16 else np.uint32 if max_count < 1 << 32 else np.uint64)


@dataclass(frozen=True, eq=False)
class CompactCsr:
    """Counts of consecutive or selected cells.

    Parameters
    ----------
    indptr
        int64, (n_obs + 1,), starts at 0.
    indices
        Columns, ascending within a row but where directories of other orders are read as one; uint16, or uint32
        beyond 65,536 genes; (nnz,).
    data
        Counts, none zero; uint16, or wider where a count needs it; (nnz,).
    n_vars
        Number of genes.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[Any]
    data: NDArray[Any]
    n_vars: int

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return self.indptr.size - 1

    @property
    def nnz(self) -> int:
        """Number of stored counts."""
        return self.indices.size

    @classmethod
    def from_scipy(cls, matrix: sp.spmatrix | sp.sparray) -> CompactCsr:
        """Make canonical compact rows of any sparse matrix of whole, non-negative numbers below 2**63."""
        import scipy.sparse as sp  # here: a run of process.py needs none of it

        csr = sp.csr_array(matrix, copy=True)
        csr.sum_duplicates()
        csr.eliminate_zeros()
        largest = int(csr.data.max(initial=0))
        return cls(
            csr.indptr.astype(np.int64),
            csr.indices.astype(index_dtype(csr.shape[1])),
            csr.data.astype(count_dtype(largest)),
            csr.shape[1],
        )

    def to_scipy(self, dtype: DTypeLike = np.int32) -> sp.csr_matrix:
        """Copy into a scipy CSR matrix with counts of type ``dtype`` and the index type scipy wants."""
        import scipy.sparse as sp

        wide = np.int64 if self.nnz > np.iinfo(np.int32).max else np.int32
        parts = (self.data.astype(dtype), self.indices.astype(wide), self.indptr.astype(wide))
        return sp.csr_matrix(parts, shape=(self.n_obs, self.n_vars))

    def totals(self) -> NDArray[np.int64]:
        """Sum of counts of each row; int64, (n_obs,)."""
        totals = np.zeros(self.n_obs, np.int64)
        filled = np.diff(self.indptr) > 0
        if filled.any():
            totals[filled] = np.add.reduceat(self.data, self.indptr[:-1][filled], dtype=np.int64)
        return totals

    def check_canonical(self) -> int:
        """Raise StoreError unless rows are canonical; return the largest count.

        Canonical: indptr ascends from 0 to nnz, columns ascend strictly within
        a row and lie below ``n_vars``, and every stored count is above zero.
        """
        whole = self.data.dtype.kind in "iu" and self.indices.dtype.kind in "iu"
        if not whole or self.indptr.size < 1 or self.indices.size != self.data.size:
            raise StoreError(
                f"rows to store must be whole numbers in CSR, got indptr {self.indptr.shape}, "
                f"indices {self.indices.dtype}{self.indices.shape}, data {self.data.dtype}{self.data.shape}"
            )
        if self.indptr[0] != 0 or self.indptr[-1] != self.nnz or (np.diff(self.indptr) < 0).any():
            raise StoreError(f"rows to store need an indptr that ascends from 0 to {self.nnz}")
        bad_row, largest = _scan(self.indptr, self.indices, self.data, self.n_vars)
        if bad_row >= 0:
            raise StoreError(
                f"row {bad_row} to store is not canonical: columns must ascend below {self.n_vars} "
                "and counts be above zero; sort, sum duplicates and drop zeros first"
            )
        return int(largest)


@dataclass(frozen=True, eq=False)
class CsrStream:
    """Counts of consecutive cells of which only a part is in memory at a time.

    Parameters
    ----------
    indptr
        int64, (n_obs + 1,), starts at 0.
    parts
        All rows in order, to be read once; no count above `STREAM_MAX_COUNT`.
    n_vars
        Number of genes.
    """

    indptr: NDArray[np.int64]
    parts: Iterator[CompactCsr]
    n_vars: int

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return self.indptr.size - 1

    @property
    def nnz(self) -> int:
        """Number of stored counts."""
        return int(self.indptr[-1])


@ahead_of("process", "i8[::1], u2[::1], u2[::1], i8")
@compiled
def _scan(indptr: NDArray[Any], indices: NDArray[Any], data: NDArray[Any], n_vars: int) -> tuple[int, int]:
    largest = np.uint64(0)
    for row in range(indptr.size - 1):
        entries = slice(indptr[row], indptr[row + 1])
        columns, counts = indices[entries], data[entries]
        n_wrong = 0
        # Loops without a way out become vector instructions.
        for i in range(1, columns.size):
            n_wrong += columns[i] <= columns[i - 1]
        for i in range(columns.size):
            n_wrong += counts[i] <= 0
        if columns.size and not 0 <= np.int64(columns[0]) <= np.int64(columns[-1]) < n_vars:
            n_wrong += 1
        if n_wrong:
            return row, 0
        highest = counts[0] if counts.size else data.dtype.type(0)
        for i in range(counts.size):
            highest = max(highest, counts[i])
        largest = max(largest, np.uint64(highest))
    return -1, int(largest)
