"""Matrices inside HDF5 files and Zarr stores: a node in, row blocks out, whatever the layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.readers.base import CsrBlock, Layout, Sample, Storage, row_spans
from scvae_data.readers.hdf5 import ensure_filters, is_array, read_attribute_strings
from scvae_data.readers.plain_chunks import past_cache
from scvae_data.readers.transpose import CompactRows, Entries, compress_rows

__all__ = ["StoredMatrix", "Transposed", "find_matrix"]


@dataclass
class StoredMatrix:
    """A matrix of cells × genes in an open file or store."""

    path: Path
    layout: Layout
    shape: tuple[int, int]
    data: Any
    """Values of a sparse matrix, or the whole dense one."""
    indices: Any = None
    indptr: Any = None
    _rows: CompactRows | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        name, (n_data, *_) = self.data.name, self.data.shape
        if self.data.dtype.kind not in "biuf":
            raise InputError(self.path, "no_counts", f"{name} holds {self.data.dtype}, not numbers; leave the file out")
        if self.layout == "dense":
            return
        n_major = self.shape[0] if self.layout == "csr" else self.shape[1]
        if self.indices.dtype.kind not in "iu" or self.indptr.dtype.kind not in "iu" or self.data.ndim != 1:
            kinds = (
                f"{self.indices.dtype} indices and {self.indptr.dtype} borders of {self.data.ndim}-dimensional values"
            )
            raise InputError(self.path, "unreadable", f"{name}: {kinds} are no sparse matrix; write the file again")
        if self.indptr.shape != (n_major + 1,) or self.indices.shape != self.data.shape:
            raise InputError(
                self.path,
                "size_mismatch",
                f"{name}: {self.indptr.shape[0]:,} borders, {self.indices.shape[0]:,} indices, {n_data:,} values "
                f"do not make a {self.layout} matrix of {self.shape[0]:,} × {self.shape[1]:,}; write the file again",
            )

    @property
    def storage(self) -> Storage:
        """Layout, dtype and number of stored elements (None for dense)."""
        nnz = None if self.layout == "dense" else int(self.data.shape[0])
        return Storage(layout=self.layout, dtype=str(self.data.dtype), nnz=nnz)

    def blocks(self, max_elements: int) -> Iterator[CsrBlock]:
        """Rows in order; column-wise storage is converted on the first call and kept until the file is closed."""
        for node in (self.data, self.indices, self.indptr):
            if node is not None:
                ensure_filters(self.path, node)
        if self.layout == "csr":
            yield from self._csr_blocks(max_elements)
        elif self.layout == "dense" and not self._is_column_chunked(max_elements):
            yield from self._dense_blocks(max_elements)
        else:
            if self._rows is None:
                self._rows = self._converted(max_elements)
            yield from self._rows.blocks(max_elements)

    def sample(self, n_values: int = 30_000) -> Sample:
        """Values from the beginning, the middle and the end, a third of ``n_values`` each."""
        ensure_filters(self.path, self.data)
        n_rows = int(self.data.shape[0])
        width = 1 if self.data.ndim == 1 else max(self.shape[1], 1)
        size = max(1, n_values // 3 // width)
        if n_rows <= 3 * size:
            parts = [self.data[:]]
        else:
            parts = [self.data[start : start + size] for start in (0, (n_rows - size) // 2, n_rows - size)]
        values = np.concatenate([_numeric(part).ravel() for part in parts])
        return Sample(values, n_rows * (1 if self.data.ndim == 1 else self.shape[1]))

    def _csr_blocks(self, max_elements: int) -> Iterator[CsrBlock]:
        indptr = self.row_borders()
        stored_indices, stored_data = past_cache(self.indices), past_cache(self.data)
        for start, stop in row_spans(indptr, max_elements):
            first, last = int(indptr[start]), int(indptr[stop])
            indices = _native(stored_indices[first:last])
            self._check_indices(indices, self.shape[1])
            yield CsrBlock(
                first_row=start,
                indptr=indptr[start : stop + 1] - first,
                indices=indices,
                data=_numeric(stored_data[first:last]),
                n_vars=self.shape[1],
            )

    def row_borders(self) -> NDArray[np.int64]:
        """Where each row, or column of a column-wise matrix, starts among the values; refused unless they ascend."""
        indptr: NDArray[np.int64] = np.asarray(self.indptr[()]).astype(np.int64)
        if indptr[0] != 0 or indptr[-1] != self.data.shape[0] or (np.diff(indptr) < 0).any():
            raise InputError(
                self.path,
                "unreadable",
                f"{self.indptr.name} does not rise from 0 to {self.data.shape[0]:,}; write the file again",
            )
        return indptr

    def _check_indices(self, indices: NDArray[Any], n_minor: int) -> None:
        """Refuse what would make a kernel write outside its arrays."""
        unsigned = indices.view(f"u{indices.itemsize}")  # in which what is below 0 is large
        if unsigned.size and int(unsigned.max()) >= n_minor:
            bad = int(indices[unsigned.argmax()])
            raise InputError(
                self.path, "unreadable", f"{self.indices.name} has {bad:,}, outside 0…{n_minor - 1:,}; write it again"
            )

    def _dense_blocks(self, max_elements: int) -> Iterator[CsrBlock]:
        n_obs, n_vars = self.shape
        n_rows = max(1, max_elements // max(n_vars, 1))
        if self.data.chunks and self.data.chunks[0] < n_rows:
            n_rows -= n_rows % self.data.chunks[0]  # so that no HDF5 chunk is decompressed twice
        for start in range(0, n_obs, n_rows):
            dense = _numeric(self.data[start : start + n_rows])
            rows, columns = np.nonzero(dense)
            per_row = np.bincount(rows, minlength=len(dense))
            yield CsrBlock(
                first_row=start,
                indptr=np.concatenate([[0], np.cumsum(per_row)]).astype(np.int64),
                indices=columns.astype(np.int32),
                data=dense[rows, columns],
                n_vars=n_vars,
            )

    def _is_column_chunked(self, max_elements: int) -> bool:
        """Whether row blocks would decompress every HDF5 chunk many times over."""
        if not self.data.chunks or self.data.chunks[0] == 1:
            return False
        n_spanned = min(self.data.chunks[0], self.shape[0]) * self.shape[1]
        return bool(n_spanned > 4 * max_elements and self.data.chunks[1] < self.shape[1])

    def _converted(self, max_elements: int) -> CompactRows:
        per_row = np.zeros(self.shape[0], dtype=np.int64)
        if self.layout == "dense":
            for rows, _, _ in self._dense_panels(max_elements):
                per_row += np.bincount(rows, minlength=self.shape[0])
            return compress_rows(lambda: self._dense_panels(max_elements), per_row, self.shape[1], self._dtype)
        n_stored = int(self.indices.shape[0])
        for start in range(0, n_stored, max_elements):
            part = _native(self.indices[start : start + max_elements])
            self._check_indices(part, self.shape[0])
            per_row += np.bincount(part, minlength=self.shape[0])
        return compress_rows(lambda: self._csc_entries(max_elements), per_row, self.shape[1], self._dtype)

    @property
    def _dtype(self) -> np.dtype[Any]:
        return _numeric(np.empty(0, dtype=self.data.dtype)).dtype

    def _csc_entries(self, max_elements: int) -> Iterator[Entries]:
        indptr = self.row_borders()
        for start in range(0, int(indptr[-1]), max_elements):
            stop = min(start + max_elements, int(indptr[-1]))
            columns = np.searchsorted(indptr, np.arange(start, stop), side="right") - 1
            rows = self.indices[start:stop].astype(np.int64)
            yield rows, columns, _numeric(self.data[start:stop])

    def _dense_panels(self, max_elements: int) -> Iterator[Entries]:
        """Non-zero entries of groups of whole columns, column by column."""
        n_obs, n_vars = self.shape
        width = self.data.chunks[1]
        width *= max(1, max_elements // max(n_obs * width, 1))
        for first in range(0, n_vars, width):
            columns, rows = np.nonzero(panel := _numeric(self.data[:, first : first + width]).T)
            yield rows, columns + first, panel[columns, rows]


class Transposed:
    """A stored matrix of genes × cells seen as cells × genes.

    Parameters
    ----------
    dataset
        As h5py opens it.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.name, self.dtype, self.ndim, self.attrs, self.id = (
            dataset.name, dataset.dtype, dataset.ndim, dataset.attrs, dataset.id,
        )  # fmt: skip
        self.shape = dataset.shape and dataset.shape[::-1]
        # Without chunks a gene lies in one piece, a cell in as many as there are genes.
        chunks = dataset.chunks or (dataset.shape and (1, dataset.shape[-1]))
        self.chunks = chunks and chunks[::-1]

    def __getitem__(self, key: slice | tuple[slice, slice]) -> NDArray[Any]:
        """Read rows, or rows and columns."""
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        values: NDArray[Any] = self._dataset[columns, rows].T
        return values


def find_matrix(path: Path, node: Any) -> StoredMatrix | None:
    """Recognise a matrix in today's or the older H5AD encodings.

    Returns
    -------
    StoredMatrix or None
        None where nothing is stored (anndata writes "null" for a missing X).
    """
    if is_array(node):
        if node.shape is None or node.ndim != 2:
            return None
        return StoredMatrix(path, "dense", (int(node.shape[0]), int(node.shape[1])), node)
    if not {"data", "indices", "indptr"} <= set(node):
        return None
    encoding = node.attrs.get("encoding-type", node.attrs.get("h5sparse_format", "csr"))
    layout: Layout = "csc" if "".join(read_attribute_strings(encoding)).startswith("csc") else "csr"
    shape = node.attrs.get("shape", node.attrs.get("h5sparse_shape"))
    if shape is None and "shape" in node:
        shape = node["shape"][()]
    if shape is None:
        raise InputError(path, "unreadable", f"{node.name} does not say its shape; write the file again with anndata")
    n_obs, n_vars = (int(size) for size in np.asarray(shape).ravel()[:2])
    return StoredMatrix(path, layout, (n_obs, n_vars), node["data"], node["indices"], node["indptr"])


def _native(values: NDArray[Any]) -> NDArray[Any]:
    """Byte order of this machine, which compiled kernels insist on."""
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _numeric(values: NDArray[Any]) -> NDArray[Any]:
    """Values in a dtype that numba knows, without loss."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind == "f" and values.dtype.itemsize == 2:
        return values.astype(np.float32)
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        return values.astype(np.float64)
    return _native(values)
