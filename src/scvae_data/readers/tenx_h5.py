"""10x Genomics HDF5 matrices, of CellBender too: v3 (one ``matrix`` group) and v2 (one group per genome)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.readers.base import DEFAULT_MAX_ELEMENTS, CsrBlock, GeneTable, Storage
from scvae_data.readers.features import FeatureFilter, empty_cell_table, keep_gene_expression
from scvae_data.readers.gene_names import genes_from_features
from scvae_data.readers.hdf5 import open_file, read_strings, reading
from scvae_data.readers.matrices import StoredMatrix
from scvae_data.readers.transpose import CompactRows
from scvae_data.system.hdf5_guard import DEFAULT_LIMITS, Limits

__all__ = ["TenxH5Reader", "genome_groups", "has_v3_matrix"]

MATRIX_MEMBERS = {"barcodes", "data", "indices", "indptr", "shape"}


def has_v3_matrix(file: Any) -> bool:
    """Whether an open HDF5 file has the layout of Cell Ranger 3 and later."""
    node = file.get("matrix")
    return isinstance(node, h5py.Group) and set(node) >= MATRIX_MEMBERS | {"features"}


def genome_groups(file: Any) -> list[str]:
    """Names of the genome groups of a file from before Cell Ranger 3, sorted."""
    groups = [name for name in file if isinstance(file[name], h5py.Group)]
    return sorted(name for name in groups if set(file[name]) >= MATRIX_MEMBERS | {"genes"})


def denoised(file: Any, group: str, n_barcodes: int) -> tuple[str, ...]:
    """What is told of a file of CellBender, which writes its own counts in the layout of Cell Ranger.

    It keeps what it found of each droplet in a group of its own, before
    version 0.3 beside the counts. The barcodes of cells alone are in a second file.

    Parameters
    ----------
    group
        Name of the group of the counts.
    """
    found = file.get("droplet_latents/cell_probability", file.get(f"{group}/latent_cell_probability"))
    if found is None and group != "background_removed":
        return ()
    told = "counts are those that CellBender left of the background"
    n_cells = n_barcodes if found is None else int((np.nan_to_num(found[()]) > 0.5).sum())
    if n_cells < n_barcodes:
        told += f"; of {n_barcodes:,} barcodes it calls {n_cells:,} cells, which its file …_filtered.h5 has alone"
    return (told,)


@dataclass
class _Part:
    """One group of the file: its matrix as stored, read as cells × features."""

    matrix: StoredMatrix
    barcodes: NDArray[np.object_]
    ids: NDArray[np.object_]
    symbols: NDArray[np.object_] | None
    types: NDArray[np.object_] | None


class TenxH5Reader:
    """Reader of one 10x HDF5 file; see :class:`~scvae_data.readers.base.Reader`.

    The only slot is ``"matrix"``. Features other than gene expression are
    dropped and counted in ``notes``; several genomes become one matrix with
    the columns of all.

    Parameters
    ----------
    path
        The file.
    format
        ``"10x_h5_v3"`` or ``"10x_h5_v2"``.
    limits
        What it may ask for.
    """

    slots: tuple[str, ...] = ("matrix",)
    obs_columns: tuple[str, ...] = ()

    def __init__(self, path: Path, format: str, limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = path
        self._limits = limits
        self.format = format
        self._file: Any = None
        self._joined: CompactRows | None = None

    def __enter__(self) -> Self:
        self._file = open_file(self.path, self._limits)
        try:
            with reading(self.path):
                names = ["matrix"] if self.format == "10x_h5_v3" else genome_groups(self._file)
                self._parts = [self._read_part(self._file[name]) for name in names]
                self._prepare(names)
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._joined = None
        self._parts = []
        self._file.close()

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self._barcodes)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was dropped or joined."""
        return self._notes

    def genes(self, slot: str) -> GeneTable:
        """The kept features."""
        return self._genes

    def barcodes(self) -> NDArray[np.object_]:
        """Cell barcodes as stored."""
        return self._barcodes

    def obs(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A table without columns: these files describe no cells."""
        return empty_cell_table(self.path, self.n_obs, columns)

    def storage(self, slot: str) -> Storage:
        """How the matrix is stored; genes × cells by column is cells × genes by row."""
        nnz = sum(len(part.matrix.data) for part in self._parts)
        return Storage(layout="csr", dtype=str(self._parts[0].matrix.data.dtype), nnz=nnz)

    def blocks(self, slot: str, *, max_elements: int = DEFAULT_MAX_ELEMENTS) -> Iterator[CsrBlock]:
        """Rows in order, kept columns only."""
        with reading(self.path):
            if len(self._parts) > 1:
                self._joined = self._joined or self._join(max_elements)
                yield from self._joined.blocks(max_elements)
                return
            for block in self._parts[0].matrix.blocks(max_elements):
                yield self._filter.apply(block)

    def _read_part(self, group: Any) -> _Part:
        n_features, n_cells = (int(size) for size in group["shape"][()].ravel()[:2])
        barcodes = read_strings(self.path, group["barcodes"])
        ids, symbols, types = self._read_features(group)
        if len(barcodes) != n_cells or len(ids) != n_features:
            raise InputError(
                self.path,
                "size_mismatch",
                f"the matrix is {n_features:,} features × {n_cells:,} cells but there are {len(ids):,} features and "
                f"{len(barcodes):,} barcodes; download the file again",
            )
        matrix = StoredMatrix(self.path, "csr", (n_cells, n_features), group["data"], group["indices"], group["indptr"])
        return _Part(matrix, barcodes, ids, symbols, types)

    def _read_features(
        self, group: Any
    ) -> tuple[NDArray[np.object_], NDArray[np.object_] | None, NDArray[np.object_] | None]:
        if self.format == "10x_h5_v2":
            symbols = read_strings(self.path, group["gene_names"]) if "gene_names" in group else None
            return read_strings(self.path, group["genes"]), symbols, None
        features = group["features"]
        named = {key: read_strings(self.path, features[key]) for key in ("name", "feature_type") if key in features}
        ids = read_strings(self.path, features["id"])
        types = named.get("feature_type")
        return ids, named.get("name"), types if types is not None and len(types) == len(ids) else None

    def _prepare(self, names: list[str]) -> None:
        if len(self._parts) > 1:
            self._barcodes: NDArray[np.object_] = pd.unique(np.concatenate([part.barcodes for part in self._parts]))
            self._notes: tuple[str, ...] = (f"joined {len(names)} genomes as columns: {', '.join(names)}",)
        else:
            self._barcodes = self._parts[0].barcodes
            self._notes = ()
        self._notes += denoised(self._file, names[0], self.n_obs)
        ids = np.concatenate([part.ids for part in self._parts])
        given = [part.symbols for part in self._parts if part.symbols is not None]
        symbols = np.concatenate(given) if len(given) == len(self._parts) else None
        types = self._parts[0].types
        self._filter: FeatureFilter = keep_gene_expression(self.path, types, ids, symbols)
        self._notes += self._filter.notes
        keep = self._filter.keep
        self._genes = genes_from_features(ids[keep], None if symbols is None else symbols[keep])

    def _join(self, max_elements: int) -> CompactRows:
        """All genomes in memory, matched by barcode: filtered files call cells per genome."""
        index = pd.Index(self._barcodes)
        row_of = [index.get_indexer(pd.Index(part.barcodes)).astype(np.int64) for part in self._parts]
        per_row = np.zeros(self.n_obs, dtype=np.int64)
        for part, rows in zip(self._parts, row_of, strict=True):
            np.add.at(per_row, rows, np.diff(part.matrix.row_borders()))
        n_columns = [part.matrix.shape[1] for part in self._parts]
        joined = CompactRows(per_row, sum(n_columns), self._parts[0].matrix.data.dtype)
        offsets = np.concatenate([[0], np.cumsum(n_columns)])
        for part, rows, offset in zip(self._parts, row_of, offsets[:-1], strict=True):
            for block in part.matrix.blocks(max_elements):
                local = rows[block.first_row : block.first_row + block.n_rows]
                joined.add(np.repeat(local, np.diff(block.indptr)), block.indices.astype(np.int64) + offset, block.data)
        return joined
