"""The global obs table: one Parquet row group a chunk, written in a stream, read by column and row group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deflate
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scvae_data.errors import DamagedFileError, StoreError
from scvae_data.store.files import FileFacts, atomic_file, sha256_file

__all__ = ["NAME_COLUMN", "OBS_FILE", "ObsColumn", "ObsReader", "ObsWriter", "obs_columns"]

OBS_FILE = "obs.parquet"
NAME_COLUMN = "obs_name"

NUMBERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
ARROW_TYPES: dict[str, pa.DataType] = {
    "categorical": pa.dictionary(pa.int32(), pa.string()),
    "string": pa.string(),
    "bool": pa.bool_(),
    "boolean": pa.bool_(),
    **{name: pa.from_numpy_dtype(name) for name in NUMBERS},
    **{name.replace("i", "I", 1).replace("u", "U", 1): pa.from_numpy_dtype(name) for name in NUMBERS if "int" in name},
}


@dataclass(frozen=True)
class ObsColumn:
    """Type of an obs column over the whole directory.

    ``dtype`` is a NumPy name (``int64``, ``float32``, ``bool``), a nullable
    pandas one (``Int64``, ``boolean``), ``string`` or ``categorical``;
    ``categories`` are the sorted values of a categorical column, else None.
    """

    dtype: str
    categories: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in ARROW_TYPES:
            raise StoreError(f"obs columns cannot have type {self.dtype!r}; it must be one of {', '.join(ARROW_TYPES)}")
        if (self.dtype == "categorical") != (self.categories is not None):
            raise StoreError("an obs column has categories if and only if it is categorical")
        if self.categories is not None and list(self.categories) != sorted(set(self.categories)):
            raise StoreError("the categories of an obs column must be unique and sorted")


def obs_columns(obs: pd.DataFrame) -> dict[str, ObsColumn]:
    """Describe the columns of a data frame: categoricals by their sorted used categories, objects as strings."""
    described = {}
    for name, column in obs.items():
        if isinstance(column.dtype, pd.CategoricalDtype):
            used = tuple(sorted(column.cat.remove_unused_categories().cat.categories))
            described[str(name)] = ObsColumn("categorical", used)
        else:
            text = pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column)
            dtype = "string" if text else str(column.dtype)
            described[str(name)] = ObsColumn(dtype)
    return described


class ObsWriter:
    """Write ``obs.parquet`` row group by row group; the file appears when :meth:`close` succeeds.

    Used as a context manager, it publishes the file unless the block raises.

    Parameters
    ----------
    path
        The file.
    columns
        Every column in order, without the cell names: those come from the
        index of each frame and are stored as ``obs_name``.
    """

    def __init__(self, path: Path, columns: Mapping[str, ObsColumn]) -> None:
        self.path = path
        self.columns = dict(columns)
        fields = [pa.field(NAME_COLUMN, pa.string())]
        fields += [pa.field(name, ARROW_TYPES[column.dtype]) for name, column in self.columns.items()]
        self.schema = pa.schema(fields)
        self.facts: FileFacts | None = None
        self._stack = ExitStack()
        self._file = self._stack.enter_context(atomic_file(path))
        # Without statistics the footer stays small at 10,000 row groups, and no value is stored twice.
        self._writer = pq.ParquetWriter(
            self._file, self.schema, compression="zstd", write_statistics=False, write_page_checksum=True
        )

    def append(self, obs: pd.DataFrame) -> None:
        """Append the cells of the next chunk as one row group.

        Raises
        ------
        StoreError
            If columns are missing or hold values of another type.
        """
        if missing := [name for name in self.columns if name not in obs.columns]:
            raise StoreError(f"obs lacks the columns {', '.join(missing)}")
        arrays = [pa.array(obs.index.to_numpy(dtype=object), pa.string())]
        arrays += [_to_arrow(name, obs[name], column) for name, column in self.columns.items()]
        table = pa.Table.from_arrays(arrays, schema=self.schema)
        self._writer.write_table(table, row_group_size=max(1, len(obs)))

    def close(self) -> FileFacts:
        """Publish the file; return size and checksums for the index."""
        if self.facts is None:
            self._writer.close()
            self._file.flush()
            size = self._file.tell()
            footer = _footer_crc32(self._file, size)
            facts = FileFacts(size, sha256_file(self._file), footer)
            self._stack.close()
            self.facts = facts
        return self.facts

    def __enter__(self) -> ObsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.close()
        elif self.facts is None:
            self._stack.__exit__(kind, error, trace)  # type: ignore[arg-type]


def _to_arrow(name: str, values: pd.Series[Any], column: ObsColumn) -> pa.Array:
    kind = ARROW_TYPES[column.dtype]
    try:
        if column.categories is not None:
            categorical = pd.Categorical(values)
            if unknown := set(categorical.categories) - set(column.categories):
                unknown &= set(categorical.remove_unused_categories().categories)
                if unknown:
                    raise ValueError(f"{sorted(unknown)[:3]} are not among its categories")
            codes = pa.array(
                categorical.set_categories(column.categories).codes, pa.int32(), mask=values.isna().to_numpy()
            )
            return pa.DictionaryArray.from_arrays(codes, pa.array(column.categories, pa.string()))
        # NaN stays NaN: in a float column it is a value, not a gap.
        return pa.array(values, kind, from_pandas=column.dtype not in ("float32", "float64"))
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as error:
        raise StoreError(f"obs column {name!r} does not hold {column.dtype} values: {error}") from None


def _footer_crc32(file: Any, size: int) -> int:
    """CRC-32 of a Parquet footer, its length field and the closing magic."""
    file.seek(max(0, size - 8))
    tail = file.read(8)
    n_bytes = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or n_bytes > size - 12:
        return -1
    file.seek(size - 8 - n_bytes)
    return int(deflate.crc32(file.read(n_bytes + 8)))


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
        self._file: pq.ParquetFile | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def read(self, columns: Sequence[str], row_groups: Sequence[int] | None = None) -> pd.DataFrame:
        """Whole row groups, in the order given; all of them by default. The result has a RangeIndex."""
        file = self._open()
        groups = list(range(file.num_row_groups) if row_groups is None else row_groups)
        try:
            table = file.read_row_groups(groups, columns=list(columns), use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(str(error).splitlines()[0]) from None
        if table.num_rows != int(sum(self.first_rows[group + 1] - self.first_rows[group] for group in groups)):
            raise self._damaged(f"its row groups hold {table.num_rows} rows, which is not what the index says")
        return pd.DataFrame({name: self._to_pandas(name, table[name]) for name in columns}, index=range(table.num_rows))

    def codes(self, column: str) -> NDArray[np.int32]:
        """Codes of every row against the sorted categories; a missing value has the number of categories."""
        categories = self.columns[column].categories
        assert categories is not None
        codes = np.array(self.read([column])[column].cat.codes, dtype=np.int32)
        codes[codes < 0] = len(categories)
        return codes

    def _to_pandas(self, name: str, values: pa.ChunkedArray) -> Any:
        column = self.columns[name]
        if column.categories is not None:
            return self._to_categorical(name, values, column.categories)
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

    def _to_categorical(self, name: str, values: pa.ChunkedArray, categories: tuple[str, ...]) -> Any:
        """Map the dictionary of each row group, which holds its own values in any order, to the global one."""
        place = {category: code for code, category in enumerate(categories)}
        parts = [np.zeros(0, np.int32)]
        for part in values.chunks:
            local = part.dictionary.to_pylist()
            if unknown := [item for item in local if item not in place]:
                raise self._damaged(f"{name} holds {unknown[0]!r}, which the index does not list")
            to_global = np.array([*(place[item] for item in local), -1], dtype=np.int32)
            parts.append(to_global[part.indices.fill_null(len(local)).to_numpy(zero_copy_only=False)])
        return pd.Categorical.from_codes(np.concatenate(parts), categories=pd.Index(categories, dtype=object))

    def _open(self) -> pq.ParquetFile:
        if self._file is None:
            try:
                with self.path.open("rb") as file:
                    size = file.seek(0, 2)
                    if size != self.facts.bytes or _footer_crc32(file, size) != self.facts.footer_crc32:
                        raise self._damaged("its size or footer is not what the index says")
                opened = pq.ParquetFile(self.path, page_checksum_verification=True)
            except (OSError, pa.ArrowException) as error:
                raise self._damaged(str(error).splitlines()[0]) from None
            names = opened.schema_arrow.names
            if opened.num_row_groups != self.first_rows.size - 1 or names != list(self.columns):
                raise self._damaged("its row groups or columns are not those of the index")
            self._file = opened
        return self._file

    def _damaged(self, fault: str) -> DamagedFileError:
        return DamagedFileError(f"{self.path}: {fault}; delete the file and run process.py again with resume=true")
