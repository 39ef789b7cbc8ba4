"""Tables of cells of several directories in, the same columns of all cells out: joined by name, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scvae_data.store.cell_tables import ALL_ROWS, GENE_SET, CellTables, ChunkTables
from scvae_data.store.obs_writer import ARROW_TYPES, NAME_COLUMN, ObsColumn

__all__ = ["DIRECTORY_COLUMN", "JoinedTables", "join_columns"]

DIRECTORY_COLUMN = "processed_dir"
"""The obs column that says which of several directories a cell is of."""


def join_columns(
    tables: Sequence[Mapping[str, ObsColumn]], directories: Sequence[str]
) -> tuple[dict[str, ObsColumn], list[str]]:
    """Put the obs columns of several directories together, by name.

    Categories of the first directory keep their codes. Numbers get a type that
    holds those of all, one that may be missing where a directory lacks the column.

    Returns
    -------
    The columns, with :data:`DIRECTORY_COLUMN` last, and the names of those whose values are of no common type.
    """
    columns: dict[str, ObsColumn] = {}
    left_out: list[str] = []
    for name in dict.fromkeys(name for table in tables for name in table):
        found = [table[name] for table in tables if name in table]
        dtype = common_type([column.dtype for column in found], len(found) == len(tables))
        if dtype is None:
            left_out.append(name)
        elif dtype == "categorical":
            first, *others = [column.categories or () for column in found]
            new = sorted(set().union(*others) - set(first))
            columns[name] = ObsColumn(dtype, (*first, *new))
        else:
            columns[name] = ObsColumn(dtype)
    columns[DIRECTORY_COLUMN] = ObsColumn("categorical", tuple(directories))
    return columns, left_out


def common_type(types: Sequence[str], everywhere: bool) -> str | None:
    """The type of a column that has other types in several directories; None if there is none.

    >>> common_type(["int32", "int64"], True), common_type(["int64", "Int8"], True), common_type(["uint8"], False)
    ('int64', 'Int64', 'UInt8')
    >>> common_type(["int64", "float32"], False), common_type(["bool"], False), common_type(["string", "int8"], True)
    ('float64', 'boolean', None)
    """
    kinds = set(types)
    if kinds in ({"categorical"}, {"string"}):
        return types[0]
    if kinds <= {"bool", "boolean"}:
        return "bool" if everywhere and kinds == {"bool"} else "boolean"
    if kinds & {"categorical", "string", "bool", "boolean"}:
        return None
    plain = np.result_type(*(name.lower() for name in types)).name
    nullable = not everywhere or any(name[0] in "IU" for name in types)
    return plain.replace("i", "I", 1).replace("u", "U", 1) if nullable and plain[0] in "iu" else plain


class JoinedTables(ChunkTables):
    """Reads metadata of the cells of several directories.

    Parameters
    ----------
    tables
        Those of each directory.
    columns
        Of :func:`join_columns`.
    first_sets
        Gene sets before those of each directory.
    """

    def __init__(
        self, tables: Sequence[CellTables], columns: Mapping[str, ObsColumn], first_sets: Sequence[int]
    ) -> None:
        self.columns = {NAME_COLUMN: ObsColumn("string"), **columns}
        self._tables = list(tables)
        self._first_sets = list(first_sets)
        self._first_chunks = np.cumsum([0, *(table.first_rows.size - 1 for table in tables)])
        first_rows = np.cumsum([0, *(int(table.first_rows[-1]) for table in tables)])
        starts = [table.first_rows[:-1] + first for table, first in zip(tables, first_rows.tolist(), strict=False)]
        self._first_rows = first_rows
        self.first_rows = np.concatenate([*starts, first_rows[-1:]])
        self._codes: dict[tuple[int, str], NDArray[np.int32]] = {}

    def arrays(self, chunk_id: int, names: Iterable[str], rows: NDArray[np.int64] | slice = ALL_ROWS) -> dict[str, Any]:
        """Columns of one chunk, or of some of its rows; see :meth:`ChunkTables.arrays`."""
        number = int(np.searchsorted(self._first_chunks, chunk_id, side="right")) - 1
        table, wanted = self._tables[number], list(names)
        chunk = chunk_id - int(self._first_chunks[number])
        found = table.arrays(chunk, [name for name in wanted if name in table.columns], rows)
        n_chunk = int(table.first_rows[chunk + 1] - table.first_rows[chunk])
        n_rows = len(range(n_chunk)[rows]) if isinstance(rows, slice) else len(rows)
        return {name: self._joined(number, name, found.get(name), n_rows) for name in wanted}

    def obs_tables(self, rows: NDArray[np.int64]) -> Iterator[pa.Table]:
        """All columns of ascending global rows, a table for each chunk that holds any."""
        borders = np.searchsorted(rows, self._first_rows)
        for number, table in enumerate(self._tables):
            mine = rows[borders[number] : borders[number + 1]] - self._first_rows[number]
            for stored in table.obs_tables(mine):
                yield pa.table({name: self._stored(number, name, stored) for name in self.columns})

    def split_bounds(self, limit: int) -> NDArray[np.int64]:
        """Cells of each chunk whose ``split_hash`` is below ``limit``; int64, (n_chunks,)."""
        return np.concatenate([table.split_bounds(limit) for table in self._tables])

    def _joined(self, number: int, name: str, values: Any, n_rows: int) -> Any:
        """What a column of a directory is among those of all; ``values`` is None where the directory lacks it."""
        column = self.columns[name]
        if name == DIRECTORY_COLUMN:
            return np.full(n_rows, number, np.int32)
        if column.categories is not None:
            if values is None:
                return np.full(n_rows, len(column.categories), np.int32)
            return self._codes_of(number, name)[values]
        if column.dtype == "string":
            return np.full(n_rows, None, object) if values is None else values
        if column.dtype[0] in "IU" or column.dtype == "boolean":
            import pandas as pd  # here: a start of training needs none of it

            known = [None] * n_rows if values is None else values
            return pd.array(known, dtype=column.dtype)  # type: ignore[arg-type]
        if values is None:
            return np.full(n_rows, np.nan, column.dtype)
        if not isinstance(values, np.ndarray):
            return values.to_numpy(column.dtype, na_value=np.nan)
        plain = values.astype(column.dtype, copy=False)
        return plain + np.int32(self._first_sets[number]) if name == GENE_SET else plain

    def _codes_of(self, number: int, name: str) -> NDArray[np.int32]:
        """The code among those of all of each code of a directory."""
        found = self._codes.get((number, name))
        if found is None:
            place = self.columns[name].place
            theirs = self._tables[number].columns[name].categories or ()
            found = np.array([*(place[category] for category in theirs), len(place)], np.int32)
            self._codes[number, name] = found
        return found

    def _stored(self, number: int, name: str, table: pa.Table) -> pa.Array | pa.ChunkedArray:
        column = self.columns[name]
        kind = ARROW_TYPES[column.dtype]
        if name == DIRECTORY_COLUMN:
            directory = pa.array([(column.categories or ())[number]])
            return pa.DictionaryArray.from_arrays(np.zeros(len(table), np.int32), directory)
        if name not in table.column_names:
            return pa.nulls(len(table), kind)
        if name == GENE_SET:
            return pa.array(table[name].to_numpy() + np.int32(self._first_sets[number]))
        return table[name].cast(kind)
