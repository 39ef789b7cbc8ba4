"""Tables inside H5AD files, in every encoding since anndata 0.5, Zarr stores and loom files: a node in, columns out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.readers.hdf5 import (
    ensure_filters,
    is_array,
    is_text,
    read_attribute_strings,
    read_strings,
    to_strings,
)

__all__ = ["LoomFrame", "StoredFrame"]

LOGICALS = {"FALSE": False, "TRUE": True, "NA": None}
"""What R calls the numbers of its logicals."""


class StoredFrame:
    """``obs`` or ``var`` as it lies in the file; columns are read when asked for.

    Parameters
    ----------
    path
        The file, for messages.
    node
        A group of columns (anndata ≥ 0.7) or a compound data set (before).
    uns
        The file's ``uns`` group, where files before 0.7 keep the categories.
    """

    def __init__(self, path: Path, node: Any, uns: Any = None) -> None:
        self._path = path
        self._node = node
        self._uns = {} if uns is None or is_array(uns) else uns
        self._compound = is_array(node)
        if self._compound and node.dtype.names is None:
            raise InputError(path, "unreadable", f"{node.name} is not a table; write the file again with anndata")
        self._index_name = self._find_index_name()

    def _find_index_name(self) -> str:
        if self._compound:
            names = self._node.dtype.names
            return next((name for name in ("_index", "index") if name in names), names[0])
        stored = self._node.attrs.get("_index")
        candidates = [*read_attribute_strings(stored), "_index", "index"]
        for name in candidates:
            if name in self._node and (is_array(self._node[name]) or hasattr(self._node[name], "keys")):
                return name
        raise InputError(
            self._path, "unreadable", f"{self._node.name} has no index column; write the file again with anndata"
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are present, in their order, without the index."""
        if self._compound:
            return tuple(name for name in self._node.dtype.names if name != self._index_name)
        order = self._node.attrs.get("column-order")
        names = read_attribute_strings(order) if order is not None else list(self._node)
        skipped = {self._index_name, "__categories"}
        return tuple(name for name in names if name not in skipped and name in self._node)

    def __len__(self) -> int:
        if self._compound:
            return int(self._node.shape[0])
        node = self._node[self._index_name]
        for member in ("codes", "values"):  # an index may be categorical or nullable
            if not is_array(node) and member in node:
                node = node[member]
        return int(node.shape[0])

    def index(self) -> NDArray[np.object_]:
        """Row names as ``str``."""
        return self.strings(self._index_name)

    def strings(self, name: str) -> NDArray[np.object_]:
        """One column with every value as ``str``, missing ones as ``""``."""
        if not self._compound and is_array(self._node[name]):
            node = self._node[name]
            if "categories" not in node.attrs and not names_of_numbers(node.dtype):
                return read_strings(self._path, node)
        values = self.column(name).astype(object)
        return to_strings(values.where(values.notna(), None).to_numpy())

    def is_text(self, name: str) -> bool:
        """Whether a column holds text, or categories, which mostly are texts."""
        if self._compound:
            return has_names(self._node.dtype[name]) or f"{name}_categories" in self._uns
        node = self._node[name]
        if not is_array(node):
            return "categories" in node or ("values" in node and has_names(node["values"].dtype))
        return "categories" in node.attrs or has_names(node.dtype)

    def column(self, name: str) -> pd.Series[Any]:
        """One column; categories and nullable dtypes are kept, bytes are decoded."""
        try:
            values = self._compound_column(name) if self._compound else self._group_column(name)
            return pd.Series(values, name=name)
        except (ValueError, TypeError) as error:
            where = f"{self._node.name}/{name}"
            raise InputError(
                self._path, "unreadable", f"column {where} is damaged ({error}); write the file again"
            ) from error

    def frame(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All columns, or the named ones in that order, under a RangeIndex.

        Raises
        ------
        InputError
            ``missing_column`` if one is not there.
        """
        wanted = self.columns if columns is None else tuple(columns)
        absent = [name for name in wanted if name not in self.columns]
        if absent:
            there = ", ".join(self.columns[:20]) or "none"
            raise InputError(
                self._path, "missing_column", f"{self._node.name} has no column {absent[0]!r}; it has {there}"
            )
        data = {name: self.column(name) for name in wanted}
        return pd.DataFrame(data, index=pd.RangeIndex(len(self)), columns=pd.Index(wanted, dtype=object))

    def _compound_column(self, name: str) -> Any:
        ensure_filters(self._path, self._node)
        values = np.ascontiguousarray(self._node[name])
        if names := names_of_numbers(self._node.dtype[name]):
            return _enumerated(values, names)
        key = f"{name}_categories"
        if key in self._uns and values.dtype.kind in "iu":
            return _categorical(values, read_strings(self._path, self._uns[key]), ordered=False)
        return to_strings(values) if is_text(values.dtype) else _native(values)

    def _group_column(self, name: str) -> Any:
        node = self._node[name]
        if not is_array(node):
            return self._encoded_column(node)
        ensure_filters(self._path, node)
        if names := names_of_numbers(node.dtype):
            return _enumerated(node[()], names)
        reference = node.attrs.get("categories")
        if reference is not None:  # an HDF5 reference, or in a Zarr store the path from here
            categories = self._node[reference]
            ordered = bool(np.any(categories.attrs.get("ordered", False)))
            return _categorical(node[()], self._values(categories), ordered=ordered)
        return self._values(node)

    def _encoded_column(self, node: Any) -> Any:
        if "codes" in node and "categories" in node:
            names = node["categories"]
            categories = self._values(names) if is_array(names) else self._encoded_column(names)
            return _categorical(self._values(node["codes"]), categories, ordered=bool(node.attrs.get("ordered", False)))
        if "values" in node and "mask" in node:
            values, mask = self._values(node["values"]), self._values(node["mask"]).astype(bool)
            if names := names_of_numbers(node["values"].dtype):
                return pd.Series(_enumerated(values, names)).mask(mask).array
            return _nullable(values, mask)
        kind = _encoding(node)
        raise ValueError(f"encoding {kind or 'unknown'} is not a plain column")

    def _values(self, dataset: Any) -> NDArray[Any]:
        ensure_filters(self._path, dataset)
        if is_text(dataset.dtype):
            return read_strings(self._path, dataset)
        values = np.atleast_1d(dataset[()])
        if values.ndim != 1 or values.dtype.kind not in "biuf":
            raise ValueError(f"{values.ndim}-dimensional {values.dtype} is not a plain column")
        return _native(values)


class LoomFrame(StoredFrame):
    """Attributes of a loom file's cells or genes, as they lie in the file.

    Parameters
    ----------
    path
        The file, for messages.
    node
        ``col_attrs`` or ``row_attrs``.
    n_rows
        How many cells or genes the matrix has.
    names
        Attributes that may be the index, the likeliest first. If there is
        none it is the first text whose values all differ, else the numbers
        from 0 on.
    """

    def __init__(self, path: Path, node: Any, n_rows: int, names: Sequence[str]) -> None:
        self._n_rows = n_rows
        self._names = names
        super().__init__(path, node)

    def _find_index_name(self) -> str:
        there = self._of_one_value
        for name in self._names:
            if name in there:
                return name
        texts = (name for name in there if is_text(self._node[name].dtype))
        return next((name for name in texts if len(set(self.strings(name))) == self._n_rows), "")

    @property
    def _of_one_value(self) -> list[str]:
        shape = (self._n_rows,)
        return [name for name in self._node if is_array(self._node[name]) and self._node[name].shape == shape]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the attributes that have one value for each row."""
        return tuple(name for name in self._of_one_value if name != self._index_name)

    @property
    def others(self) -> tuple[str, ...]:
        """Names of those that have not."""
        return tuple(name for name in self._node if name not in self._of_one_value)

    def __len__(self) -> int:
        return self._n_rows

    def index(self) -> NDArray[np.object_]:
        """Row names as ``str``."""
        if not self._index_name:
            return to_strings(np.arange(self._n_rows))
        return super().index()


def names_of_numbers(dtype: Any) -> dict[int, str]:
    """What an enumeration of HDF5 calls its numbers; empty for any other type, and for booleans."""
    return {number: name for name, number in (h5py.check_enum_dtype(dtype) or {}).items()}


def has_names(dtype: Any) -> bool:
    """Whether values are texts, or numbers that stand for some."""
    return is_text(dtype) or bool(names_of_numbers(dtype))


def _enumerated(values: NDArray[Any], names: Mapping[int, str]) -> Any:
    """The names behind numbers, as R writes logicals and factors; missing where a number has none."""
    numbers = pd.Series(_native(values))
    if LOGICALS.keys() >= {*names.values()}:
        return numbers.map({number: LOGICALS[name] for number, name in names.items()}).astype("boolean").array
    return pd.Categorical(numbers.map(names))


def _encoding(node: Any) -> str:
    return "".join(read_attribute_strings(node.attrs.get("encoding-type")))


def _native(values: NDArray[Any]) -> NDArray[Any]:
    """Byte order of this machine, which pandas insists on."""
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _categorical(codes: NDArray[Any], categories: Any, *, ordered: bool) -> Any:
    unique = pd.Index(categories)
    if unique.is_unique and not unique.hasnans:
        return pd.Categorical.from_codes(codes.astype(np.int64), categories=unique, ordered=ordered)
    # Categories that are equal once decoded, or missing: pandas refuses them, the values are still clear.
    values = np.empty(len(categories) + 1, dtype=object)
    values[:-1] = categories
    if codes.size and (codes.max() >= len(categories) or codes.min() < -1):
        raise ValueError("codes point past the categories")
    return values[codes]  # −1 finds the last one, None


def _nullable(values: NDArray[Any], mask: NDArray[np.bool_]) -> Any:
    kind = values.dtype.kind
    if kind == "b":
        return pd.arrays.BooleanArray(values, mask)
    if kind in "iu":
        return pd.arrays.IntegerArray(values, mask)
    if kind == "f":
        return pd.array(np.where(mask, np.nan, values), dtype="Float64")
    out = values.astype(object)
    out[mask] = None
    return pd.array(out, dtype="string")
