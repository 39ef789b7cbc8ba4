"""Tables and scalars into an HDF5 group, in AnnData's on-disk encoding.

Written here rather than by anndata so that the bytes do not change with its
version, and so that workers need not import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["encode", "write_frame", "write_mapping"]

COMPRESS_FROM_BYTES = 1024
STRING = h5py.string_dtype("utf-8")


def encode(target: h5py.Group | h5py.Dataset, encoding: str, version: str) -> None:
    """Mark an element with its AnnData encoding."""
    target.attrs["encoding-type"] = encoding
    target.attrs["encoding-version"] = version


def _create(group: h5py.Group, name: str, values: NDArray[Any]) -> h5py.Dataset:
    """Write one array, compressed where that can pay."""
    if values.nbytes < COMPRESS_FROM_BYTES:
        return group.create_dataset(name, data=values)
    return group.create_dataset(name, data=values, chunks=values.shape, compression="gzip", shuffle=True)


def _write_array(group: h5py.Group, name: str, values: NDArray[Any]) -> None:
    encode(_create(group, name, values), "array", "0.2.0")


def _write_strings(group: h5py.Group, name: str, values: NDArray[np.object_]) -> None:
    """Write strings with a fixed length: HDF5 compresses these, but not strings of variable length.

    The var names and symbols of a small chunk would otherwise outweigh its counts.
    """
    encoded = "\0".join(values.tolist()).encode().split(b"\0")
    width = max(map(len, encoded))
    if not width or len(encoded) != len(values):
        # Fixed length ends at the first zero byte and cannot be 0.
        dataset = group.create_dataset(name, data=values, dtype=STRING)
    else:
        dataset = _create(group, name, np.array(encoded, dtype=h5py.string_dtype("utf-8", width)))
    encode(dataset, "string-array", "0.2.0")


def _write_masked(
    group: h5py.Group, name: str, encoding: str, values: NDArray[Any], missing: NDArray[np.bool_]
) -> None:
    masked = group.create_group(name)
    encode(masked, encoding, "0.1.0")
    if encoding == "nullable-string-array":
        _write_strings(masked, "values", values)
    else:
        _write_array(masked, "values", values)
    _write_array(masked, "mask", missing)


def _write_categorical(group: h5py.Group, name: str, column: pd.Series[Any]) -> None:
    values = column.cat.remove_unused_categories()
    categories = sorted(values.cat.categories)
    codes = values.cat.set_categories(categories).cat.codes
    categorical = group.create_group(name)
    encode(categorical, "categorical", "0.2.0")
    categorical.attrs["ordered"] = False
    _write_array(categorical, "codes", codes.to_numpy())
    _write_strings(categorical, "categories", np.array(categories, dtype=object))


def _write_column(group: h5py.Group, name: str, column: pd.Series[Any]) -> None:
    import pandas as pd  # here: a start of training needs none of it

    dtype = column.dtype
    missing = column.isna().to_numpy(dtype=bool)
    if isinstance(dtype, pd.CategoricalDtype):
        _write_categorical(group, name, column)
    elif isinstance(dtype, pd.BooleanDtype):
        _write_masked(group, name, "nullable-boolean", column.fillna(False).to_numpy(dtype=bool), missing)
    elif pd.api.types.is_extension_array_dtype(dtype) and pd.api.types.is_integer_dtype(dtype):
        plain = column.fillna(0).to_numpy(dtype=dtype.type)
        _write_masked(group, name, "nullable-integer", plain, missing)
    elif pd.api.types.is_float_dtype(dtype):
        _write_array(group, name, column.to_numpy(dtype=getattr(dtype, "type", np.float64), na_value=np.nan))
    elif isinstance(dtype, np.dtype) and dtype.kind in "biu":
        _write_array(group, name, column.to_numpy())
    elif pd.api.types.infer_dtype(column, skipna=True) in ("string", "empty"):
        values = np.where(missing, "", column.to_numpy(dtype=object))
        if missing.any():
            _write_masked(group, name, "nullable-string-array", values, missing)
        else:
            _write_strings(group, name, values)
    else:
        raise StoreError(f"obs column {name!r} of type {dtype} cannot be stored; make it numbers, booleans or strings")


def write_frame(group: h5py.Group, name: str, frame: pd.DataFrame) -> None:
    """Write a data frame as ``group[name]``; its index are the names of the axis.

    Categories are sorted and unused ones dropped, so that equal columns give
    equal bytes. Strings, numbers, booleans, their nullable kinds and
    categories of strings are possible.

    Raises
    ------
    StoreError
        If a column has another type or a name with a slash.
    """
    table = group.create_group(name)
    encode(table, "dataframe", "0.2.0")
    table.attrs["_index"] = "_index"
    table.attrs["column-order"] = np.array(frame.columns, dtype=STRING)
    _write_strings(table, "_index", frame.index.to_numpy(dtype=object))
    for column in frame.columns:
        if not isinstance(column, str) or "/" in column or column in ("", ".", "_index"):
            raise StoreError(f"column name {column!r} cannot be stored in HDF5; rename it")
        _write_column(table, column, frame[column])


def write_mapping(group: h5py.Group, name: str, content: Mapping[str, Any]) -> None:
    """Write nested mappings of strings, booleans and numbers as ``group[name]``, keys sorted."""
    target = group.create_group(name)
    encode(target, "dict", "0.1.0")
    for key, value in sorted(content.items()):
        if isinstance(value, Mapping):
            write_mapping(target, key, value)
        elif isinstance(value, str):
            encode(target.create_dataset(key, data=value, dtype=STRING), "string", "0.2.0")
        else:
            encode(target.create_dataset(key, data=value), "numeric-scalar", "0.2.0")
