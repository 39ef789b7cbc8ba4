"""The cells of each chunk in, the global obs table out: one Parquet row group a chunk, written in a stream."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from scvae_data.errors import StoreError
from scvae_data.store.files import FileFacts, atomic_file, sha256_file
from scvae_data.store.parquet_checksums import seal

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NAME_COLUMN", "OBS_FILE", "ObsColumn", "ObsWriter", "obs_columns"]

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
    import pandas as pd  # here: a start of training needs none of it

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
        self._writer = pq.ParquetWriter(self._file, self.schema, compression="zstd", write_statistics=False)

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
            tail_bytes, tail_crc32 = seal(self._file)
            digest = sha256_file(self._file)
            facts = FileFacts(self._file.tell(), digest, tail_bytes, tail_crc32)
            self._stack.close()
            self.facts = facts
        return self.facts

    def __enter__(self) -> ObsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.close()
        elif self.facts is None:
            # Or it would try to when it is collected, into a file that is closed.
            with suppress(pa.ArrowException, OSError):
                self._writer.close()
            self._stack.__exit__(kind, error, trace)  # type: ignore[arg-type]


def _to_arrow(name: str, values: pd.Series[Any], column: ObsColumn) -> pa.Array:
    import pandas as pd

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
