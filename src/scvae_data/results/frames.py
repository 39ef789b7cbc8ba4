"""Tables of obs in, a data frame of an HDF5 file that grows by them out, laid out as anndata lays it out."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["BLOCK", "Frame", "array", "extend"]

OBS_NAME = "obs_name"
BLOCK = 65_536
"""Rows per HDF5 chunk, and per pass over codes."""


class Frame:
    """A data frame of the file that grows by tables."""

    def __init__(self, group: h5py.Group) -> None:
        self._group = group
        self._columns: dict[str, Column] = {}
        self._n_rows = 0

    def append(self, table: pa.Table) -> None:
        """Add the rows of a table; all have the columns of the first."""
        if not self._columns:
            self._columns = {
                name: Column(self._group, name, table.schema.field(name).type) for name in table.column_names
            }
        for name, column in self._columns.items():
            column.append(table[name].combine_chunks())
        self._n_rows += len(table)

    def close(self) -> int:
        """Bring the columns into their final layout; returns the number of rows."""
        for column in self._columns.values():
            column.close()
        names = [column.name for name, column in self._columns.items() if name != OBS_NAME]
        self._group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": OBS_NAME})
        self._group.attrs.create("column-order", names, dtype=h5py.string_dtype(), shape=(len(names),))
        return self._n_rows


class Column:
    """A column of the file that grows by Arrow arrays: numbers, truth values, strings or categories.

    Whole numbers, truth values and strings with missing entries take
    anndata's nullable layouts; whether there are any is known at the end only,
    so the mask is written along and dropped if empty.
    """

    def __init__(self, group: h5py.Group, name: str, kind: pa.DataType) -> None:
        self.group = group
        self.name = name.replace("/", "_")  # "/" would make an HDF5 group
        self.categories: dict[str, int] | None = {} if pa.types.is_dictionary(kind) else None
        self.nullable, dtype, self.filling = _layout(kind)
        self.values = array(group, self.name, dtype)
        self.mask = array(group, f"{self.name} mask", bool)
        self.any_missing = False

    def append(self, values: pa.Array) -> None:
        """Add the entries of ``values``."""
        if self.categories is not None:
            extend(self.values, self._codes(values))
        elif self.nullable is None:
            extend(self.values, values.to_numpy(zero_copy_only=False))
        else:
            missing = values.is_null().to_numpy(zero_copy_only=False)
            given = values.cast(pa.string()) if self.filling == "" else values
            extend(self.values, pc.fill_null(given, self.filling).to_numpy(zero_copy_only=False))
            extend(self.mask, missing)
            self.any_missing = self.any_missing or bool(missing.any())

    def close(self) -> None:
        """Bring the column into its final layout."""
        mask_name = f"{self.name} mask"
        if self.any_missing:
            self.group.move(self.name, f"{self.name} values")
            nullable = self.group.create_group(self.name)
            nullable.attrs.update({"encoding-type": self.nullable, "encoding-version": "0.1.0"})
            self.group.move(f"{self.name} values", f"{self.name}/values")
            self.group.move(mask_name, f"{self.name}/mask")
            return
        del self.group[mask_name]
        if self.categories is not None:
            self._close_categories()

    def _codes(self, values: pa.DictionaryArray) -> NDArray[np.int32]:
        """Codes of ``values`` among the categories met so far; -1 where missing. Unused ones are not met."""
        assert self.categories is not None
        known = self.categories
        names = values.dictionary.to_pylist()
        local = pc.fill_null(values.indices.cast(pa.int64()), len(names)).to_numpy()
        codes = np.full(len(names) + 1, -1, dtype=np.int32)
        for used in np.unique(local[local < len(names)]).tolist():
            codes[used] = known.setdefault(str(names[used]), len(known))
        found: NDArray[np.int32] = codes[local]
        return found

    def _close_categories(self) -> None:
        """Sort the categories, as anndata does, and renumber the codes block by block."""
        assert self.categories is not None
        names = sorted(self.categories)
        renumbered = np.full(len(names) + 1, -1, dtype=np.int32)  # the last entry serves code -1
        renumbered[[self.categories[name] for name in names]] = np.arange(len(names), dtype=np.int32)
        used = "codes of " + self.name
        self.group.move(self.name, used)
        group = self.group.create_group(self.name)
        group.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
        extend(array(group, "categories", h5py.string_dtype()), np.array(names, dtype=object))
        for start in range(0, len(self.values), BLOCK):
            self.values[start : start + BLOCK] = renumbered[self.values[start : start + BLOCK]]
        self.group.move(used, f"{self.name}/codes")


def _layout(kind: pa.DataType) -> tuple[str | None, Any, Any]:
    """Encoding of a column of a kind with missing entries, type on disk, and what stands for missing ones there."""
    if pa.types.is_dictionary(kind):
        return None, np.int32, None
    if pa.types.is_floating(kind):
        return None, kind.to_pandas_dtype(), None
    if pa.types.is_boolean(kind):
        return "nullable-boolean", kind.to_pandas_dtype(), False
    if pa.types.is_integer(kind):
        return "nullable-integer", kind.to_pandas_dtype(), 0
    return "nullable-string-array", h5py.string_dtype(), ""


def array(group: h5py.Group, name: str, dtype: Any, shape: tuple[int, ...] = (0,)) -> h5py.Dataset:
    """An empty data set that can grow, marked as anndata marks arrays."""
    chunks = (BLOCK if len(shape) == 1 else max(1, BLOCK // shape[1]), *shape[1:])
    dataset = group.create_dataset(
        name, shape=shape, maxshape=(None, *shape[1:]), dtype=dtype, chunks=chunks, compression="gzip",
        compression_opts=1, shuffle=True, track_times=False,
    )  # fmt: skip
    is_string = h5py.check_string_dtype(dataset.dtype) is not None
    dataset.attrs.update({"encoding-type": "string-array" if is_string else "array", "encoding-version": "0.2.0"})
    return dataset


def extend(dataset: h5py.Dataset, values: NDArray[Any]) -> None:
    """Add values at the end of a data set."""
    start = len(dataset)
    dataset.resize(start + len(values), axis=0)
    dataset[start:] = values
