"""Tables of counts as text: CSV, TSV and the like, plain or gzip, with genes or cells as rows."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.readers.base import DEFAULT_MAX_ELEMENTS, CsrBlock, GeneTable, Storage, row_spans
from scvae_data.readers.feature_table import FeatureTable, find_columns
from scvae_data.readers.features import FeatureFilter, empty_cell_table, keep_gene_expression, says_types
from scvae_data.readers.gene_names import tells_genes
from scvae_data.readers.mtx_text import open_text, reading_text
from scvae_data.readers.opening import TableRows
from scvae_data.readers.table_layout import TableLayout, decoded, read_layout
from scvae_data.readers.table_sides import rows_of
from scvae_data.readers.transpose import CompactRows, Entries, compress_rows
from scvae_data.system.hdf5_guard import DEFAULT_LIMITS, Limits

__all__ = ["TableReader"]

TEXT_BYTES = 8 * 2**20
"""Text parsed at once; a line that is longer is parsed by itself."""
FAULT = re.compile(r"In CSV column #(?P<column>\d+): Row #(?P<row>\d+): .*invalid value '(?P<value>.*)'", re.DOTALL)
RAGGED = re.compile(r"Row #(?P<row>\d+): Expected (?P<wanted>\d+) columns, got (?P<found>\d+)")

Strings = NDArray[np.object_]
Dense = NDArray[np.float64]


class TableReader:
    """Reader of one table; see :class:`~scvae_data.readers.base.Reader`.

    The only slot is ``"matrix"``. Columns that hold no counts are ids and
    symbols of genes, or columns of the cell table. A table of cells is
    streamed; one of genes is converted once, in memory.

    Parameters
    ----------
    path
        The file.
    limits
        What it may ask for.
    rows
        What its rows are; None if its names shall tell.
    """

    format = "table"
    slots: tuple[str, ...] = ("matrix",)

    def __init__(self, path: Path, limits: Limits = DEFAULT_LIMITS, rows: TableRows | None = None) -> None:
        self.path = path
        self._limits = limits
        self._given = rows
        self._rows: CompactRows | None = None

    def __enter__(self) -> Self:
        self._layout: TableLayout = read_layout(self.path, self._limits.max_table_bytes)
        header, texts = self._layout.header, self._layout.texts
        self._columns: Strings = np.array([header[column] for column in self._layout.counts], dtype=object)
        self._described = self._texts()
        names = self._described[0]
        told = self._given or rows_of(names.tolist(), self._columns.tolist(), [header[column] for column in texts])
        if told is None:
            raise InputError(
                self.path,
                "ambiguous",
                f"a table, and whether its rows ({', '.join(names[:3])} …) or its columns "
                f"({', '.join(self._columns[:3])} …) are genes cannot be told; say with input.table_rows=genes or "
                "input.table_rows=cells, or leave it out if it holds no counts",
            )
        self._are_genes = told == "genes"
        self._features: FeatureTable = self._find_features()
        self._filter: FeatureFilter = keep_gene_expression(
            self.path, self._features.types, self._features.ids, self._features.symbols
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows = None

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.barcodes())

    @property
    def notes(self) -> tuple[str, ...]:
        """What was dropped."""
        return (*self._left_out, *self._filter.notes)

    @property
    def obs_columns(self) -> tuple[str, ...]:
        """Names of the columns that stand beside the counts of cells."""
        return () if self._are_genes else tuple(self._beside)

    def genes(self, slot: str) -> GeneTable:
        """The kept features."""
        return self._features.genes(self._filter.keep)

    def barcodes(self) -> Strings:
        """Names of cells as they are written."""
        return self._columns if self._are_genes else self._described[0]

    def obs(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Cell table with a RangeIndex; its fields are text, as they are written."""
        absent = [name for name in columns or () if name not in self.obs_columns]
        if absent or self._are_genes:
            return empty_cell_table(self.path, self.n_obs, absent)
        wanted = self.obs_columns if columns is None else columns
        return pd.DataFrame({name: self._beside[name] for name in wanted}, index=pd.RangeIndex(self.n_obs))

    def storage(self, slot: str) -> Storage:
        """How the matrix is stored."""
        return Storage(layout="dense", dtype="float64", nnz=None)

    def blocks(self, slot: str, *, max_elements: int = DEFAULT_MAX_ELEMENTS) -> Iterator[CsrBlock]:
        """Rows in order, kept columns only; a block has at most ``max_elements`` values other than zero."""
        for block in (
            self._cells_of_genes(max_elements) if self._are_genes else self._stream(self._dense(), max_elements)
        ):
            yield self._filter.apply(block)

    def _find_features(self) -> FeatureTable:
        """Tell what of the columns without counts names genes, and what is left."""
        names = [self._layout.header[column] for column in self._layout.texts]
        if not self._are_genes:
            self._beside = self._named(names[1:], self._described[1:])
            self._left_out: tuple[str, ...] = ()
            return FeatureTable(self._columns, None, None)
        columns = dict(enumerate(self._described))
        naming = [i for i, values in columns.items() if i == 0 or tells_genes(values) or says_types(values)]
        heads = [names[i].lower().replace(" ", "_") for i in naming]
        place = {role: naming[i] for role, i in find_columns(self.path, [columns[i] for i in naming], heads).items()}
        left = [names[i] or f"column {self._layout.texts[i] + 1}" for i in columns if i not in place.values()]
        self._left_out = (f"no counts, left out: {', '.join(left)}",) if left else ()
        symbols, types = (columns[place[role]] if role in place else None for role in ("symbol", "type"))
        return FeatureTable(columns[place["id"]], symbols, types)

    def _named(self, names: Sequence[str], columns: Sequence[Strings]) -> dict[str, Strings]:
        """Columns of the cell table by their names, which must differ."""
        if twice := [name for name, n in Counter(names).items() if n > 1]:
            raise InputError(self.path, "unreadable", f"two columns are called {twice[0]!r}; rename one of them")
        return dict(zip(names, columns, strict=True))

    def _stream(self, parts: Iterable[tuple[int, Dense]], max_elements: int) -> Iterator[CsrBlock]:
        """Rows of cells, which come some at a time."""
        for first_row, values in parts:
            rows, columns = np.nonzero(values)
            indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(values)))]).astype(np.int64)
            data = values[rows, columns]
            for start, stop in row_spans(indptr, max_elements):
                inside = slice(indptr[start], indptr[stop])
                borders = indptr[start : stop + 1] - indptr[start]
                yield CsrBlock(first_row + start, borders, columns[inside], data[inside], values.shape[1])

    def _cells_of_genes(self, max_elements: int) -> Iterator[CsrBlock]:
        """Cells of a table of genes; the first of them, which a survey looks at, without converting all."""
        n_head = 0
        if self._rows is None:
            n_head = min(self.n_obs, max(1, max_elements // max(len(self._features), 1)))
            head = np.vstack([values for _, values in self._dense(n_head)])
            yield from self._stream([(0, head.T)], max_elements)
            self._rows = self._transposed()
        yield from self._rows.blocks(max_elements, n_head)

    def _transposed(self) -> CompactRows:
        n_per_cell = np.zeros(self.n_obs, dtype=np.int64)
        for _, values in self._dense():
            n_per_cell += np.count_nonzero(values, axis=0)
        return compress_rows(self._entries, n_per_cell, len(self._features), np.float64)

    def _entries(self) -> Iterator[Entries]:
        """Cells, genes and counts of a table of genes."""
        for first_row, values in self._dense():
            genes, cells = np.nonzero(values)
            yield cells, genes + first_row, values[genes, cells]

    def _dense(self, n_columns: int | None = None) -> Iterator[tuple[int, Dense]]:
        """The first columns of counts, or all, some rows at a time, each with the number of its first row."""
        for first_row, table in self._tables(self._layout.counts[:n_columns], "double"):
            values = np.empty((table.num_rows, table.num_columns))
            for number, column in enumerate(table.columns):
                values[:, number] = column.to_numpy()
            yield first_row, values

    def _texts(self) -> list[Strings]:
        """The columns without counts, whole."""
        found: list[list[bytes]] = [[] for _ in self._layout.texts]
        for _, table in self._tables(self._layout.texts, "binary"):
            for values, column in zip(found, table.columns, strict=True):
                values.extend(column.to_pylist())
        return [np.array([decoded(value).strip() for value in values], dtype=object) for values in found]

    def _tables(self, columns: Sequence[int], dtype: str) -> Iterator[tuple[int, Any]]:
        """Some columns as Arrow tables, of some lines each, with the number of their first row."""
        import pyarrow as pa  # here: training on raw files, by the older names, starts without it
        from pyarrow import csv

        wanted = [str(column) for column in columns]
        convert = csv.ConvertOptions(
            column_types=dict.fromkeys(wanted, pa.type_for_alias(dtype)), null_values=[], include_columns=wanted
        )
        parse = csv.ParseOptions(delimiter=self._layout.separator)
        names = [str(column) for column in range(len(self._layout.header))]
        first_row = 0
        for lines in self._lines():
            read = csv.ReadOptions(column_names=names, block_size=len(lines) + 1, use_threads=False)
            try:
                table = csv.read_csv(io.BytesIO(lines), read, parse, convert)
            except pa.ArrowInvalid as error:
                raise self._fault(str(error), first_row) from error
            yield first_row, table
            first_row += table.num_rows

    def _lines(self) -> Iterator[bytes]:
        """Whole lines below the header."""
        with reading_text(self.path), open_text(self.path) as file:
            for _ in range(self._layout.n_above):
                file.readline()
            rest = b""
            while text := file.read(TEXT_BYTES):
                cut = text.rfind(b"\n") + 1
                if cut:
                    yield rest + text[:cut]
                rest = text[cut:] if cut else rest + text
            if rest.strip():
                yield rest

    def _fault(self, said: str, first_row: int) -> InputError:
        """Name the field that is no number, or the line that is too long or too short."""
        if match := FAULT.search(said):
            line, column = self._layout.n_above + first_row + int(match["row"]), int(match["column"])
            what = f"holds {match['value']!r}" if match["value"] else "is empty"
            return InputError(
                self.path,
                "not_counts",
                f"line {line}, column {column + 1} ({self._layout.header[column]}) {what}, which is no count; write 0 "
                "where nothing was counted",
            )
        if match := RAGGED.search(said):
            line = self._layout.n_above + first_row + int(match["row"])
            text = f"line {line} has {match['found']} columns, the others {match['wanted']}; write it like the others"
            return InputError(self.path, "unreadable", text)
        return InputError(self.path, "unreadable", f"no table ({' '.join(said.split())[:200]}); write it again")
