"""10x Matrix Market folders: matrix.mtx with barcodes.tsv and features.tsv or genes.tsv, plain or gzip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.readers.base import DEFAULT_MAX_ELEMENTS, CsrBlock, GeneTable, Storage, row_spans
from scvae_data.readers.feature_table import FeatureTable, make_features
from scvae_data.readers.features import FeatureFilter, empty_cell_table, keep_gene_expression
from scvae_data.readers.mtx_folder import MtxTriple, find_triple, read_lines
from scvae_data.readers.mtx_text import MtxHeader, open_text, read_entries, read_header, reading_text
from scvae_data.readers.table_layout import has_header
from scvae_data.readers.table_lines import columns_behind, first_column
from scvae_data.readers.transpose import CompactRows, Entries, compress_rows
from scvae_data.system.hdf5_guard import DEFAULT_LIMITS, Limits

__all__ = ["MtxReader"]


@dataclass(frozen=True)
class _Survey:
    """What one pass over the text finds out."""

    n_per_cell: NDArray[np.int64]
    is_sorted: bool
    """Whether cells come one after the other in order."""
    dtype: np.dtype[Any]
    """int64, or float64 if any value is not a whole number or the file says "real"."""


class MtxReader:
    """Reader of one 10x matrix folder; see :class:`~scvae_data.readers.base.Reader`.

    The only slot is ``"matrix"``. Genes × cells and cells × genes are told
    apart by the numbers of barcodes and features; if these are equal it is
    genes × cells, as 10x writes it, unless the name says ``cells_x_genes``. Text sorted by cell is streamed; other
    text is converted once, in memory.

    Parameters
    ----------
    path
        The folder, or one matrix file in it.
    limits
        What it may ask for.
    """

    format = "10x_mtx"
    slots: tuple[str, ...] = ("matrix",)

    def __init__(self, path: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = path
        self._limits = limits
        self._survey: _Survey | None = None
        self._rows: CompactRows | None = None

    def __enter__(self) -> Self:
        triple = find_triple(self.path)
        self._matrix = triple.matrix
        with reading_text(triple.matrix), open_text(triple.matrix) as file:
            self._header: MtxHeader = read_header(file, triple.matrix)
        feature_lines, barcode_lines = (
            read_lines(part, self._limits.max_table_bytes) for part in (triple.features, triple.barcodes)
        )
        n_headers, self._cells_are_columns = self._orient(triple, feature_lines, barcode_lines)
        features = self._named(triple, make_features(triple.features, feature_lines, n_headers[0]))
        beside = triple.beside
        self._beside = (f"{', '.join(beside)} beside {triple.matrix.name} left out",) if beside else ()
        header, cells = barcode_lines[: n_headers[1]], barcode_lines[n_headers[1] :]
        self._barcodes: NDArray[np.object_] = first_column(triple.barcodes, cells)
        self._described = columns_behind(triple.barcodes, header[0], cells) if header else {}
        self._filter: FeatureFilter = keep_gene_expression(self.path, features.types, features.ids, features.symbols)
        self._genes = features.genes(self._filter.keep)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows = None

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self._barcodes)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was dropped."""
        return (*self._beside, *self._filter.notes)

    def genes(self, slot: str) -> GeneTable:
        """The kept features."""
        return self._genes

    def barcodes(self) -> NDArray[np.object_]:
        """Cell barcodes as stored."""
        return self._barcodes

    @property
    def obs_columns(self) -> tuple[str, ...]:
        """Names of the columns that stand behind the names of cells, under a header."""
        return tuple(self._described)

    def obs(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Cell table with a RangeIndex; its fields are text, as they are written."""
        wanted = self.obs_columns if columns is None else columns
        if absent := [name for name in wanted if name not in self._described]:
            return empty_cell_table(self.path, self.n_obs, absent)
        return pd.DataFrame({name: self._described[name] for name in wanted}, index=pd.RangeIndex(self.n_obs))

    def storage(self, slot: str) -> Storage:
        """How the matrix is stored."""
        dtype = "float64" if self._header.field == "real" else "int64"
        return Storage(layout="coo", dtype=dtype, nnz=self._header.nnz)

    def blocks(self, slot: str, *, max_elements: int = DEFAULT_MAX_ELEMENTS) -> Iterator[CsrBlock]:
        """Rows in order, kept columns only; the text is checked whole before the first block."""
        if self._survey is None:
            self._survey = self._read_survey()
        survey = self._survey
        if survey.is_sorted:
            blocks = self._stream(survey, max_elements)
        else:
            if self._rows is None:
                self._rows = compress_rows(self._entries, survey.n_per_cell, len(self._filter.keep), survey.dtype)
            blocks = self._rows.blocks(max_elements)
        for block in blocks:
            yield self._filter.apply(block)

    def _named(self, triple: MtxTriple, features: FeatureTable) -> FeatureTable:
        """The features with the symbols of a file of their own, if there is one."""
        if triple.symbols is None or features.symbols is not None:
            return features
        symbols = first_column(triple.symbols, read_lines(triple.symbols, self._limits.max_table_bytes))
        if len(symbols) != len(features):
            raise InputError(
                self.path,
                "size_mismatch",
                f"{triple.symbols.name} has {len(symbols):,} lines and {triple.features.name} {len(features):,}; take "
                "both from one run",
            )
        return replace(features, symbols=np.where(symbols == "", features.ids, symbols))

    def _orient(
        self, triple: MtxTriple, features: Sequence[str], barcodes: Sequence[str]
    ) -> tuple[tuple[int, int], bool]:
        """Header lines of the two tables (none if it fits so) and whether cells are the matrix's columns."""
        shape = (self._header.n_rows, self._header.n_columns)
        no_header = ""
        for headers in ((0, 0), (1, 0), (0, 1), (1, 1)):
            sizes = (len(features) - headers[0], len(barcodes) - headers[1])
            if shape not in (sizes, sizes[::-1]):
                continue
            tables = ((triple.features, features), (triple.barcodes, barcodes))
            named = [(path, lines) for (path, lines), header in zip(tables, headers, strict=True) if header]
            if all(has_header(lines) for _, lines in named):
                return headers, shape == sizes and not (triple.has_cells_first and shape == sizes[::-1])
            no_header = "".join(
                f", and line 1 of {path.name} ({lines[0][:40]!r}) is no header" for path, lines in named
            )
        raise InputError(
            self.path,
            "size_mismatch",
            f"the matrix is {shape[0]:,} × {shape[1]:,} but there are {len(features):,} features and "
            f"{len(barcodes):,} barcodes{no_header}; take the three files from one run",
        )

    def _entries(self) -> Iterator[Entries]:
        """Cells, features and values in file order."""
        for rows, columns, values in read_entries(self._matrix):
            yield (columns, rows, values) if self._cells_are_columns else (rows, columns, values)

    def _read_survey(self) -> _Survey:
        n_per_cell = np.zeros(self.n_obs, dtype=np.int64)
        is_sorted, is_integral, last = True, self._header.field != "real", 0
        for cells, _, values in self._entries():
            if not cells.size:
                continue
            n_per_cell += np.bincount(cells, minlength=self.n_obs)
            is_sorted = is_sorted and int(cells[0]) >= last and bool((cells[1:] >= cells[:-1]).all())
            is_integral = is_integral and bool((values == np.floor(values)).all() and np.isfinite(values).all())
            last = int(cells[-1])
        return _Survey(n_per_cell, is_sorted, np.dtype(np.int64 if is_integral else np.float64))

    def _stream(self, survey: _Survey, max_elements: int) -> Iterator[CsrBlock]:
        """Blocks filled from text that comes cell by cell."""
        indptr = np.concatenate([[0], np.cumsum(survey.n_per_cell)])
        parts = self._entries()
        features = np.empty(0, dtype=np.int32)
        data = np.empty(0, dtype=survey.dtype)
        for start, stop in row_spans(indptr, max_elements):
            n = int(indptr[stop] - indptr[start])
            held = [(features, data)]
            n_held = len(data)
            while n_held < n:
                _, more, values = next(parts)
                held.append((more.astype(np.int32), values.astype(survey.dtype)))
                n_held += len(more)
            features = np.concatenate([part[0] for part in held])
            data = np.concatenate([part[1] for part in held])
            n_vars = len(self._filter.keep)
            yield CsrBlock(start, indptr[start : stop + 1] - indptr[start], features[:n], data[:n], n_vars)
            features, data = features[n:], data[n:]
