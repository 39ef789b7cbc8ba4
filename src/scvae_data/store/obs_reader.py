"""Columns and row groups of the global obs table in, data frames and category codes out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scvae_data.errors import DamagedFileError
from scvae_data.store.files import FileFacts, open_plain
from scvae_data.store.obs_writer import NAME_COLUMN, ObsColumn
from scvae_data.store.parquet_checksums import Tail, TailError, read_tail

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ObsReader"]


class ObsReader:
    """Read columns and row groups of ``obs.parquet``.

    Parameters
    ----------
    path
        The file.
    facts
        Its entry in the index.
    columns
        Its columns, from the index.
    first_rows
        Global first row of every row group and, last, the number of rows; int64.
    """

    def __init__(
        self, path: Path, facts: FileFacts, columns: Mapping[str, ObsColumn], first_rows: NDArray[np.int64]
    ) -> None:
        self.path = path
        self.facts = facts
        self.columns = {NAME_COLUMN: ObsColumn("string"), **columns}
        self.first_rows = first_rows
        self._tail: Tail | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tail": None}

    def read(self, columns: Sequence[str], row_groups: Sequence[int] | None = None) -> pd.DataFrame:
        """Whole row groups, in the order given; all of them by default. The result has a RangeIndex."""
        import pandas as pd  # here: a start of training needs none of it

        table = self._table(columns, row_groups)
        return pd.DataFrame({name: self._to_pandas(name, table[name]) for name in columns}, index=range(table.num_rows))

    def numbers(self, column: str) -> NDArray[Any]:
        """Every value of a column of plain numbers, in its type; (n_obs,)."""
        return joined(self._table([column])[column].chunks)

    def codes(self, column: str) -> NDArray[np.int32]:
        """Codes of every row against the sorted categories; a missing value has the number of categories."""
        categories = self.columns[column].categories
        assert categories is not None
        codes = self._global_codes(column, self._table([column])[column], categories)
        codes[codes < 0] = len(categories)
        return codes

    def _table(self, columns: Sequence[str], row_groups: Sequence[int] | None = None) -> pa.Table:
        """Whole row groups, as many rows as the index says."""
        groups = list(range(self.first_rows.size - 1) if row_groups is None else row_groups)
        try:
            table = self._read_table(list(columns), groups)
        except (OSError, pa.ArrowException, ValueError) as error:
            fault = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise self._damaged(fault) from None
        if table.num_rows != int(sum(self.first_rows[group + 1] - self.first_rows[group] for group in groups)):
            raise self._damaged(f"its row groups hold {table.num_rows} rows, which is not what the index says")
        return table

    def _to_pandas(self, name: str, values: pa.ChunkedArray) -> Any:
        import pandas as pd

        column = self.columns[name]
        if column.categories is not None:
            codes = self._global_codes(name, values, column.categories)
            return pd.Categorical.from_codes(codes, categories=pd.Index(column.categories, dtype=object))
        if column.dtype == "string":
            return values.to_pandas().astype(object)
        if column.dtype == "boolean" or column.dtype[0] in "IU":
            missing = values.is_null().to_numpy()
            plain = values.fill_null(0 if column.dtype != "boolean" else False).to_numpy()
            return (
                pd.arrays.BooleanArray(plain, missing)
                if column.dtype == "boolean"
                else (pd.arrays.IntegerArray(plain, missing))
            )
        return values.to_numpy()

    def _global_codes(self, name: str, values: pa.ChunkedArray, categories: tuple[str, ...]) -> NDArray[np.int32]:
        """Map the dictionary of each row group, which holds its own values, to the global one; -1: missing."""
        place = {category: code for code, category in enumerate(categories)}
        parts = []
        for part in values.chunks:
            local = part.dictionary.to_pylist()
            if unknown := [item for item in local if item not in place]:
                raise self._damaged(f"{name} holds {unknown[0]!r}, which the index does not list")
            to_global = np.array([*(place[item] for item in local), -1], dtype=np.int32)
            indices = part.indices.fill_null(len(local)) if part.null_count else part.indices
            parts.append(to_global[joined([indices])])
        return np.concatenate([np.zeros(0, np.int32), *parts])

    def _read_table(self, columns: list[str], groups: list[int]) -> pa.Table:
        with os.fdopen(open_plain(self.path), "rb") as file:
            tail = self._load_tail(file.fileno())
            place = {name: number for number, name in enumerate(self.columns)}
            for group in groups:
                for name in columns:
                    tail.verify(file.fileno(), group, place[name])
            parquet = pq.ParquetFile(file, metadata=tail.metadata)
            return parquet.read_row_groups(groups, columns=columns, use_threads=False)

    def _load_tail(self, fd: int) -> Tail:
        """The end of the file, read and checked once."""
        if self._tail is None:
            facts = self.facts
            tail = read_tail(
                fd, file_bytes=facts.bytes, tail_bytes=facts.tail_bytes or 0, tail_crc32=facts.tail_crc32 or 0
            )
            if tail.crc32.shape[0] != self.first_rows.size - 1 or tail.metadata.schema.names != list(self.columns):
                raise TailError("its row groups or columns are not those of the index")
            self._tail = tail
        elif os.fstat(fd).st_size != self.facts.bytes:
            raise TailError("its size has changed")
        return self._tail

    def _damaged(self, fault: str) -> DamagedFileError:
        return DamagedFileError(f"{self.path}: {fault}; run process.py again with resume=true")


def joined(parts: Sequence[pa.Array]) -> NDArray[Any]:
    """Copy the numbers of arrays without gaps into one; pyarrow's ``to_numpy`` would import pandas."""
    return np.concatenate([np.from_dlpack(part) for part in parts])
