"""Tables inside an H5AD file, in every encoding since anndata 0.5: a node in, columns out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.readers.hdf5 import ensure_filters, read_attribute_strings, read_strings, to_strings

__all__ = ["StoredFrame"]


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
        self._uns = uns if isinstance(uns, h5py.Group) else {}
        self._compound = isinstance(node, h5py.Dataset)
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
            if name in self._node and isinstance(self._node[name], h5py.Dataset | h5py.Group):
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
            if isinstance(node, h5py.Group) and member in node:
                node = node[member]
        return int(node.shape[0])

    def index(self) -> NDArray[np.object_]:
        """Row names as ``str``."""
        return self.strings(self._index_name)

    def strings(self, name: str) -> NDArray[np.object_]:
        """One column with every value as ``str``, missing ones as ``""``."""
        if not self._compound and isinstance(self._node[name], h5py.Dataset):
            node = self._node[name]
            if "categories" not in node.attrs:
                return read_strings(self._path, node)
        values = self.column(name).astype(object)
        return to_strings(values.where(values.notna(), None).to_numpy())

    def is_text(self, name: str) -> bool:
        """Whether a column holds text, or categories, which mostly are texts."""
        if self._compound:
            return self._node.dtype[name].kind in "SO" or f"{name}_categories" in self._uns
        node = self._node[name]
        if isinstance(node, h5py.Group):
            return "categories" in node or ("values" in node and node["values"].dtype.kind in "SOU")
        return "categories" in node.attrs or node.dtype.kind in "SOU"

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
        key = f"{name}_categories"
        if key in self._uns and values.dtype.kind in "iu":
            return _categorical(values, read_strings(self._path, self._uns[key]), ordered=False)
        return to_strings(values) if values.dtype.kind in "SO" else _native(values)

    def _group_column(self, name: str) -> Any:
        node = self._node[name]
        if isinstance(node, h5py.Group):
            return self._encoded_column(node)
        ensure_filters(self._path, node)
        reference = node.attrs.get("categories")
        if isinstance(reference, h5py.Reference):
            categories = self._node.file[reference]
            ordered = bool(np.any(categories.attrs.get("ordered", False)))
            return _categorical(node[()], self._values(categories), ordered=ordered)
        return self._values(node)

    def _encoded_column(self, node: Any) -> Any:
        if "codes" in node and "categories" in node:
            names = node["categories"]
            categories = self._encoded_column(names) if isinstance(names, h5py.Group) else self._values(names)
            return _categorical(self._values(node["codes"]), categories, ordered=bool(node.attrs.get("ordered", False)))
        if "values" in node and "mask" in node:
            return _nullable(self._values(node["values"]), self._values(node["mask"]).astype(bool))
        kind = _encoding(node)
        raise ValueError(f"encoding {kind or 'unknown'} is not a plain column")

    def _values(self, dataset: Any) -> NDArray[Any]:
        ensure_filters(self._path, dataset)
        if dataset.dtype.kind in "SOU":
            return read_strings(self._path, dataset)
        values = np.atleast_1d(dataset[()])
        if values.ndim != 1 or values.dtype.kind not in "biuf":
            raise ValueError(f"{values.ndim}-dimensional {values.dtype} is not a plain column")
        return _native(values)


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
