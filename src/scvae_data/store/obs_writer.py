"""The cells of each chunk in, the global obs table out: one Parquet row group a chunk, written in a stream."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scvae_data.errors import StoreError
from scvae_data.store.files import FileFacts, atomic_file, sha256_file
from scvae_data.store.parquet_checksums import seal

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NAME_COLUMN", "NUMBERS", "OBS_FILE", "ObsColumn", "ObsWriter", "global_codes", "obs_columns"]

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
    ``categories`` are the distinct values of a categorical column, sorted
    as far as they were written together; else None.
    """

    dtype: str
    categories: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in ARROW_TYPES:
            raise StoreError(f"obs columns cannot have type {self.dtype!r}; it must be one of {', '.join(ARROW_TYPES)}")
        if (self.dtype == "categorical") != (self.categories is not None):
            raise StoreError("an obs column has categories if and only if it is categorical")
        if self.categories is not None and len(set(self.categories)) != len(self.categories):
            raise StoreError("the categories of an obs column must be unique")

    @cached_property
    def place(self) -> Mapping[str, int]:
        """Code of each category."""
        return {category: code for code, category in enumerate(self.categories or ())}

    def __getstate__(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "categories": self.categories}


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
    every_category
        Write all categories with every row group, as version 1 of the format does.
    """

    def __init__(self, path: Path, columns: Mapping[str, ObsColumn], *, every_category: bool = False) -> None:
        self.path = path
        self.columns = dict(columns)
        self.every_category = every_category
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
        arrays += [_to_arrow(name, obs[name], column, self.every_category) for name, column in self.columns.items()]
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


def _to_arrow(name: str, values: pd.Series[Any], column: ObsColumn, every_category: bool) -> pa.Array:
    kind = ARROW_TYPES[column.dtype]
    try:
        if column.categories is not None:
            codes = global_codes(values, column)
            # The values that occur: their number does not grow with the directory.
            used = np.arange(len(column.categories)) if every_category else np.unique(codes[codes >= 0])
            local = pa.array(np.searchsorted(used, codes).astype(np.int32), pa.int32(), mask=codes < 0)
            names = [column.categories[code] for code in used.tolist()]
            return pa.DictionaryArray.from_arrays(local, pa.array(names, pa.string()))
        # NaN stays NaN: in a float column it is a value, not a gap.
        return pa.array(values, kind, from_pandas=column.dtype not in ("float32", "float64"))
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as error:
        raise StoreError(f"obs column {name!r} does not hold {column.dtype} values: {error}") from None


def global_codes(values: pd.Series[Any], column: ObsColumn) -> NDArray[np.int32]:
    """Code of every value of a categorical column, -1 for a missing one; (n_obs,).

    Raises
    ------
    ValueError
        If a value is not among the categories.
    """
    import pandas as pd

    local = pd.Categorical(values)
    of_local = np.array([*(column.place.get(name, -2) for name in local.categories), -1], np.int32)
    codes: NDArray[np.int32] = of_local[local.codes]
    if (codes == -2).any():
        unknown = sorted(set(local.categories[np.unique(local.codes[codes == -2])]))
        raise ValueError(f"{unknown[:3]} are not among its categories")
    return codes
