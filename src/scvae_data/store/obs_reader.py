"""Columns and row groups of the global obs table in, data frames and category codes out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scvae_data.remote.location import Location
from scvae_data.store.files import FileFacts
from scvae_data.store.obs_writer import NAME_COLUMN, ObsColumn
from scvae_data.store.parquet_checksums import Tail, TailError, read_tail
from scvae_data.store.source import ListedFile, LocalFile, OpenSource, damaged

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ObsReader", "as_pandas"]


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
    open_source
        Opens the file, for each read anew.
    """

    def __init__(
        self,
        path: Location,
        facts: FileFacts,
        columns: Mapping[str, ObsColumn],
        first_rows: NDArray[np.int64],
        open_source: OpenSource = LocalFile,
    ) -> None:
        self.path = path
        self.open_source = open_source
        self.facts = facts
        self.columns = {NAME_COLUMN: ObsColumn("string"), **columns}
        self.first_rows = first_rows
        self._tail: Tail | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tail": None}

    def read(self, columns: Sequence[str], row_groups: Sequence[int] | None = None) -> pd.DataFrame:
        """Whole row groups, in the order given; all of them by default. The result has a RangeIndex."""
        import pandas as pd  # here: a start of training needs none of it

        values = self.arrays(columns, row_groups)
        frame = {name: as_pandas(found, self.columns[name]) for name, found in values.items()}
        return pd.DataFrame(frame, index=range(len(next(iter(values.values()), ()))))

    def arrays(
        self, columns: Sequence[str], row_groups: Sequence[int] | None = None, rows: NDArray[np.int64] | None = None
    ) -> dict[str, Any]:
        """Values of whole row groups, or of some of their rows: codes, or values as pandas has them.

        A missing value has the number of categories as its code.
        """
        table = self.table(columns, row_groups)
        if rows is not None:
            table = table.take(pa.array(rows))
        try:
            return {name: self._values(name, table[name]) for name in columns}
        except (pa.ArrowException, AttributeError, TypeError, ValueError) as error:
            raise damaged(self.path, f"a column is not of the type that the index says ({error})") from None

    def table(self, columns: Sequence[str], row_groups: Sequence[int] | None = None) -> pa.Table:
        """Whole row groups as they are stored, as many rows as the index says; categories are local to each."""
        groups = list(range(self.first_rows.size - 1) if row_groups is None else row_groups)
        try:
            table = self._read_table(list(columns), groups)
        except (OSError, pa.ArrowException, ValueError) as error:
            fault = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise damaged(self.path, fault) from None
        if table.num_rows != int(sum(self.first_rows[group + 1] - self.first_rows[group] for group in groups)):
            raise damaged(self.path, f"its row groups hold {table.num_rows} rows, which is not what the index says")
        return table

    def _values(self, name: str, values: pa.ChunkedArray) -> Any:
        column = self.columns[name]
        if column.categories is not None:
            return self._global_codes(name, values, column)
        if column.dtype == "string":
            return values.to_pandas().to_numpy(object)
        if column.dtype == "boolean" or column.dtype[0] in "IU":
            import pandas as pd

            missing = values.is_null().to_numpy()
            plain = values.fill_null(0 if column.dtype != "boolean" else False).to_numpy()
            kind = pd.arrays.BooleanArray if column.dtype == "boolean" else pd.arrays.IntegerArray
            return kind(plain, missing)
        return values.to_numpy() if column.dtype == "bool" else joined(values.chunks, column.dtype)

    def _global_codes(self, name: str, values: pa.ChunkedArray, column: ObsColumn) -> NDArray[np.int32]:
        """Map the dictionary of each row group, which holds its own values, to that of the directory."""
        n_categories = len(column.place)
        parts = []
        for part in values.chunks:
            local = part.dictionary.to_pylist()
            if unknown := [item for item in local if item not in column.place]:
                raise damaged(self.path, f"{name} holds {unknown[0]!r}, which the index does not list")
            to_global = np.array([*(column.place[item] for item in local), n_categories], dtype=np.int32)
            indices = part.indices.fill_null(len(local)) if part.null_count else part.indices
            parts.append(to_global[joined([indices])])
        return np.concatenate([np.zeros(0, np.int32), *parts])

    def _read_table(self, columns: list[str], groups: list[int]) -> pa.Table:
        file = ListedFile(self.path, self.facts.bytes, self.open_source)
        tail = self._tail = self._tail or file.proved(lambda: self._read_tail(file))
        place = {name: number for number, name in enumerate(self.columns)}
        wanted = [(group, place[name]) for group in groups for name in columns]
        proved = dict(file.proved(partial(tail.column_chunk, file.read, *each)) for each in wanted)
        # Without pre_buffer each column chunk is asked for as it is.
        parquet = pq.ParquetFile(Proved(proved, self.facts.bytes), metadata=tail.metadata, pre_buffer=False)
        return parquet.read_row_groups(groups, columns=columns, use_threads=False)

    def _read_tail(self, file: ListedFile) -> Tail:
        """The end of the file, checked."""
        facts = self.facts
        tail = read_tail(file.read, facts.bytes, facts.tail_bytes or 0, facts.tail_crc32 or 0)
        if tail.crc32.shape[0] != self.first_rows.size - 1 or tail.metadata.schema.names != list(self.columns):
            raise TailError("its row groups or columns are not those of the index")
        return tail


class Proved:
    """A file object of those bytes of a file that were proved to be right, by their first one.

    What is parsed is what was checked, whatever happens to the file meanwhile.
    """

    closed = False

    def __init__(self, parts: Mapping[int, bytes], n_bytes: int) -> None:
        self._parts = parts
        self._n_bytes = n_bytes
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte, counted as files do; return which it is."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._n_bytes}[whence]
        return self._at

    def tell(self) -> int:
        """Which byte is read next."""
        return self._at

    def read(self, n_bytes: int) -> bytes:
        """The next ``n_bytes``."""
        part = self._parts.get(self._at, b"")
        if len(part) != n_bytes:
            raise OSError(f"asked for {n_bytes} bytes at {self._at}, where {len(part)} are known")
        self._at += n_bytes
        return part

    def close(self) -> None:
        """Nothing is open."""


def joined(parts: Sequence[pa.Array], kind: str = "int32") -> NDArray[Any]:
    """Copy the numbers of arrays without gaps into one; pyarrow's ``to_numpy`` would import pandas."""
    return np.concatenate([np.zeros(0, kind), *(np.from_dlpack(part) for part in parts)])


def as_pandas(values: Any, column: ObsColumn) -> Any:
    """What :meth:`ObsReader.arrays` gives of a column, as a data frame holds it."""
    if column.categories is None:
        return values
    import pandas as pd

    codes = np.where(values == len(column.categories), np.int32(-1), values)
    return pd.Categorical.from_codes(codes, categories=pd.Index(column.categories, dtype=object))
