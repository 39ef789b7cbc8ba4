"""Rows of a batch as CSR tensors: a quarter or less of the bytes of dense rows on the way to a device, dense there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from scvae_data.loading.batch.kernels import NO_FACTORS, scatter_rows
from scvae_data.loading.batch.nontemporal import STREAMED_BYTES

__all__ = ["SparseRows", "make_dense", "one_below_the_other", "scatter_on_device"]


class SparseRows(NamedTuple):
    """A batch of rows, compressed; moves to a device like any tuple of tensors.

    Parameters
    ----------
    indptr
        Where each row begins, int64, (n + 1,).
    indices
        Columns, (nnz,): int32, or uint16 in compact rows of up to 65,536 columns.
    data
        Values, (nnz,): float32, or in compact rows counts of type uint16 (wider if a count of the directory needs it).
    n_columns
        Width of the dense rows.
    """

    indptr: torch.Tensor
    indices: torch.Tensor
    data: torch.Tensor
    n_columns: int

    def to_sparse_csr(self) -> torch.Tensor:
        """The rows as a float32 ``torch.sparse_csr`` tensor.

        Columns must ascend, as without ``genes``, and of directories that have them in one order, they do.
        """
        index = torch.int32 if self.indices.numel() < 1 << 31 else torch.int64
        parts = self.indptr.to(index), widened(self.indices).to(index), widened(self.data).to(torch.float32)
        return torch.sparse_csr_tensor(*parts, size=self._shape(), check_invariants=False)

    def to_dense(self, size_factor: torch.Tensor | None = None) -> torch.Tensor:
        """The rows as float32 (n, n_columns) on their device; ``log1p(value / size_factor)`` if that is given."""
        if self.data.device.type == "cpu":
            x = torch.empty(self._shape(), dtype=torch.float32)
            factors = NO_FACTORS if size_factor is None else size_factor.numpy().astype(np.float64)
            arrays = self.indptr.numpy(), self.indices.numpy(), self.data.numpy()
            scatter_rows(*arrays, factors, x.nbytes >= STREAMED_BYTES, x.numpy())
            return x
        return scatter_on_device(self, size_factor)

    def rows(self, low: int, high: int) -> SparseRows:
        """Rows ``low`` to ``high``, over the same memory but for ``indptr``."""
        first, last = int(self.indptr[low]), int(self.indptr[high])
        indptr = self.indptr[low : high + 1] - first
        return SparseRows(indptr, self.indices[first:last], self.data[first:last], self.n_columns)

    @classmethod
    def joined(cls, parts: Sequence[SparseRows], take: Callable[..., NDArray[Any]]) -> SparseRows:
        """The rows of all ``parts``, in their order, in memory that ``take`` gives for a shape and type."""
        lengths = [np.diff(part.indptr.numpy()) for part in parts]
        indptr = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
        indices, data = (
            one_below_the_other([getattr(part, name) for part in parts], take) for name in ("indices", "data")
        )
        return cls(torch.from_numpy(indptr), indices, data, parts[0].n_columns)

    def _shape(self) -> tuple[int, int]:
        return self.indptr.numel() - 1, self.n_columns


def one_below_the_other(tensors: Sequence[torch.Tensor], take: Callable[..., NDArray[Any]]) -> torch.Tensor:
    """Rows of all ``tensors``; by one thread, because torch's wait for each other while others load."""
    arrays = [tensor.numpy() for tensor in tensors]
    shape = (sum(map(len, arrays)), *arrays[0].shape[1:])
    return torch.from_numpy(np.concatenate(arrays, out=take(shape, arrays[0].dtype)))


def scatter_on_device(rows: SparseRows, size_factor: torch.Tensor | None) -> torch.Tensor:
    """:meth:`SparseRows.to_dense` in torch operations, for any device; nothing waits for the device."""
    n_rows = rows.indptr.numel() - 1
    row = torch.arange(n_rows, device=rows.data.device)
    row = row.repeat_interleave(rows.indptr.diff(), output_size=rows.data.numel())
    values = widened(rows.data).to(torch.float32)
    if size_factor is not None:
        values = torch.log1p(values / size_factor[row])
    x = torch.zeros((n_rows, rows.n_columns), dtype=torch.float32, device=rows.data.device)
    x.view(-1)[row * rows.n_columns + widened(rows.indices)] = values
    return x


def widened(values: torch.Tensor) -> torch.Tensor:
    """Unsigned 16-bit values as int32, by operations that every device has; others as they are."""
    return values.view(torch.int16).to(torch.int32) & 0xFFFF if values.dtype == torch.uint16 else values


def make_dense(batch: dict[str, Any], normalized: bool, keep: bool = False) -> dict[str, Any]:
    """A copy of a batch with ``x`` and ``counts`` as dense tensors where they lie; dense ones stay as they are.

    Parameters
    ----------
    batch
        As a loader yields it, perhaps moved to a device.
    normalized
        ``x`` is meant to be log1p(count / size_factor); compact rows hold counts until now.
    keep
        Leave sparse rows of float32 values as they are where they lie in the memory of the host.
    """
    made = dict(batch)
    for key in ("x", "counts"):
        rows = batch.get(key)
        if not isinstance(rows, SparseRows) or (
            keep and rows.data.is_floating_point() and rows.data.device.type == "cpu"
        ):
            continue
        if key == "counts" and batch["x"] is rows and not normalized:
            made[key] = made["x"]
            continue
        raw = key == "x" and normalized and rows.data.dtype != torch.float32
        made[key] = rows.to_dense(batch["size_factor"] if raw else None)
    return made
