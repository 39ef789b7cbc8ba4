"""What is known of each cell, chunk by chunk, wherever it lies: in a row table, else in an obs table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scvae_data.remote.location import Location
from scvae_data.store.files import FileFacts
from scvae_data.store.obs_reader import ObsReader, as_pandas
from scvae_data.store.obs_writer import NAME_COLUMN, ObsColumn
from scvae_data.store.row_table import LIMITS, RowTable
from scvae_data.store.source import OpenSource, damaged

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ALL_ROWS", "GENE_SET", "CellTables", "ChunkTables", "Generation"]

ALL_ROWS = slice(None)
SPLIT_HASH, GENE_SET = "split_hash", "gene_set"


@dataclass(frozen=True)
class Generation:
    """Chunks that were written by one run, and the files that tell of their cells.

    Parameters
    ----------
    n_chunks
        How many; they follow those of the generation before.
    obs
        Parquet file of all metadata, a row group a chunk.
    rows
        Row table of the columns of fixed width; None in directories of version 1.
    row_columns
        Columns of the row table, with the type that each is stored in.
    gene_sets
        Masks of measured genes; None in directories of version 1. The obs column
        ``gene_set`` counts within the generation.
    n_categories
        Categories of each categorical column that the directory had with this
        generation: the first ones of those that it has.
    processing_id
        What its chunks say they were made by.
    """

    n_chunks: int
    obs: str
    rows: str | None = None
    row_columns: Mapping[str, str] = field(default_factory=dict)
    gene_sets: str | None = None
    n_categories: Mapping[str, int] = field(default_factory=dict)
    processing_id: str = ""

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables of its cells."""
        return (self.obs,) if self.rows is None else (self.obs, self.rows)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of its files."""
        return self.tables if self.gene_sets is None else (*self.tables, self.gene_sets)


class ChunkTables(ABC):
    """What is known of each cell, by the chunk that it is in."""

    columns: Mapping[str, ObsColumn]
    """All obs columns, the names of the cells among them."""
    first_rows: NDArray[np.int64]
    """Global row of each chunk's first cell and, last, the number of cells."""

    @abstractmethod
    def arrays(self, chunk_id: int, names: Iterable[str], rows: NDArray[np.int64] | slice = ALL_ROWS) -> dict[str, Any]:
        """Columns of one chunk, or of some of its rows: codes of categories as int32, else values.

        A missing value has the number of categories as its code. Numbers have the
        type of the column, nullable ones are pandas arrays, texts are objects.
        """

    @abstractmethod
    def obs_tables(self, rows: NDArray[np.int64]) -> Iterator[pa.Table]:
        """All columns of ascending global rows as they are stored, a table for each chunk that holds any."""

    @abstractmethod
    def split_bounds(self, limit: int) -> NDArray[np.int64]:
        """Cells of each chunk whose ``split_hash`` is below ``limit``; int64, (n_chunks,)."""

    def array(self, chunk_id: int, name: str) -> Any:
        """One column of one chunk; see :meth:`arrays`."""
        return self.arrays(chunk_id, [name])[name]

    def frame(self, names: Sequence[str], pieces: Iterable[tuple[int, NDArray[np.int64] | slice]]) -> pd.DataFrame:
        """Columns of some rows of some chunks, one below the other; memory is for one chunk more than is asked for."""
        import pandas as pd  # here: a start of training needs none of it

        parts: dict[str, list[Any]] = {name: [] for name in names}
        n_rows = 0
        for chunk_id, rows in pieces:
            taken = self.arrays(chunk_id, names, rows)
            n_rows += len(next(iter(taken.values())))
            for name, values in taken.items():
                parts[name].append(values)
        frame = {name: as_pandas(_joined(parts[name]), self.columns[name]) for name in names}
        return pd.DataFrame(frame, index=range(n_rows))


class CellTables(ChunkTables):
    """Reads metadata of the cells of a directory; what is asked of one chunk is read from one place.

    Parameters
    ----------
    directory
        Where the files are.
    generations
        In the order of their chunks.
    files
        Entries of the files in the index.
    columns
        All obs columns.
    first_rows
        Global row of each chunk's first cell and, last, the number of cells; int64.
    first_sets
        Gene sets before those of each generation.
    open_source
        Opens the files.
    """

    def __init__(
        self,
        directory: Location,
        generations: Sequence[Generation],
        files: Mapping[str, FileFacts],
        columns: Mapping[str, ObsColumn],
        first_rows: NDArray[np.int64],
        first_sets: Sequence[int],
        open_source: OpenSource,
    ) -> None:
        self._first_sets = list(first_sets)
        self.columns = {NAME_COLUMN: ObsColumn("string"), **columns}
        self.first_rows = first_rows
        self._first_chunks = np.cumsum([0, *(generation.n_chunks for generation in generations)])
        self._obs: list[ObsReader] = []
        self._rows: list[RowTable | None] = []
        for generation, first in zip(generations, self._first_chunks.tolist(), strict=False):
            mine = first_rows[first : first + generation.n_chunks + 1]
            mine = mine - mine[0]
            obs, rows = generation.obs, generation.rows
            self._obs.append(ObsReader(directory / obs, files[obs], columns, mine, open_source))
            self._rows.append(
                None
                if rows is None
                else RowTable(directory / rows, files[rows], generation.row_columns, mine, open_source)
            )

    def arrays(self, chunk_id: int, names: Iterable[str], rows: NDArray[np.int64] | slice = ALL_ROWS) -> dict[str, Any]:
        """Columns of one chunk, or of some of its rows: codes of categories as int32, else values.

        A missing value has the number of categories as its code. Numbers have the
        type of the column, nullable ones are pandas arrays, texts are objects.
        ``gene_set`` counts over all generations.
        """
        number, chunk = self._place(chunk_id)
        table, wanted = self._rows[number], list(names)
        quick = [] if table is None else [name for name in wanted if name in table.types]
        found = {name: self._plain(table, name, chunk)[rows] for name in quick if table is not None}
        if others := [name for name in wanted if name not in found]:
            # Texts of a few rows are made texts of after they are chosen.
            few = None if isinstance(rows, slice) else rows
            read = self._obs[number].arrays(others, [chunk], few)
            found |= read if few is not None else {name: values[rows] for name, values in read.items()}
        if GENE_SET in found and self._first_sets[number]:
            found[GENE_SET] = found[GENE_SET] + np.int32(self._first_sets[number])
        return {name: found[name] for name in wanted}

    def obs_tables(self, rows: NDArray[np.int64]) -> Iterator[pa.Table]:
        """All columns of ascending global rows as they are stored, a table for each chunk that holds any."""
        borders = np.searchsorted(rows, self.first_rows)
        for chunk_id in np.flatnonzero(np.diff(borders)).tolist():
            number, chunk = self._place(chunk_id)
            local = rows[borders[chunk_id] : borders[chunk_id + 1]] - self.first_rows[chunk_id]
            table = self._obs[number].table(list(self.columns), [chunk]).take(pa.array(local))
            if first := self._first_sets[number]:
                place = table.column_names.index(GENE_SET)
                table = table.set_column(place, GENE_SET, [pa.array(table[GENE_SET].to_numpy() + np.int32(first))])
            yield table

    def split_bounds(self, limit: int) -> NDArray[np.int64]:
        """Cells of each chunk whose ``split_hash`` is below ``limit``; int64, (n_chunks,).

        Tables have them for whole hundredths of the range; for others the hashes are read.
        """
        step = int(np.searchsorted(LIMITS, limit))
        listed = step < LIMITS.size and int(LIMITS[step]) == limit
        parts = [np.zeros(0, np.int64)]
        for (first, end), table in zip(pairwise(self._first_chunks.tolist()), self._rows, strict=True):
            if limit <= 0:
                parts.append(np.zeros(end - first, np.int64))
            elif table is not None and listed:
                parts.append(table.split_bounds[:, step].astype(np.int64))
            else:
                below = [np.count_nonzero(self.array(chunk, SPLIT_HASH) < limit) for chunk in range(first, end)]
                parts.append(np.array(below, np.int64))
        return np.concatenate(parts)

    def stored_twice(self, chunk_id: int) -> Iterator[tuple[str, Any, Any]]:
        """Columns of one chunk that are in both tables: name, values in the row table, values in the obs table."""
        number, chunk = self._place(chunk_id)
        if (table := self._rows[number]) is not None:
            for name, values in self._obs[number].arrays(list(table.types), [chunk]).items():
                yield name, self._plain(table, name, chunk), values

    def _place(self, chunk_id: int) -> tuple[int, int]:
        """Generation of a chunk, and its number there."""
        number = int(np.searchsorted(self._first_chunks, chunk_id, side="right")) - 1
        return number, chunk_id - int(self._first_chunks[number])

    def _plain(self, table: RowTable, name: str, chunk: int) -> NDArray[Any]:
        stored, column = table.read(name, chunk), self.columns[name]
        if column.categories is None:
            return stored
        codes = stored.astype(np.int32)
        n_categories = len(column.categories)
        codes[stored == np.iinfo(stored.dtype).max] = n_categories
        if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) <= n_categories:
            raise damaged(table.path, f"{name} has codes of no category")
        return codes


def _joined(parts: Sequence[Any]) -> Any:
    """Values one below the other."""
    if not parts:
        return np.zeros(0, object)
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return type(parts[0])._concat_same_type(parts)
