"""Latents of all cells in, ``latents.h5ad`` out: streamed, so that memory does not grow with the number of cells.

The file is laid out as anndata lays it out; ``anndata.read_h5ad`` opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from torch import distributed

from scvae_data.errors import StoreError
from scvae_data.loading.select.split import PARTS
from scvae_data.store.files import atomic_file
from scvae_data.training.ranks import Ranks

__all__ = ["KEY", "joined_shares", "predict_share", "with_split", "write_latents"]

Latents = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Global rows (n,) and latents (n, n_latent) of some cells."""

KEY = "X_scvae"
OBS_NAME = "obs_name"
SPLIT, OUR_SPLIT = "split", "scvae_split"  # the second where obs has a column of the first name
BLOCK = 65_536  # rows per HDF5 chunk and per pass over codes


def write_latents(
    path: Path,
    latents: Iterable[Latents],
    obs: Callable[[NDArray[np.int64]], Iterable[pa.Table]],
    uns: Mapping[str, Any],
) -> int:
    """Write latents and obs of cells as an AnnData file without X.

    Parameters
    ----------
    path
        The file; replaced only when the new one is whole.
    latents
        Batches of (global rows, latents (n, n_latent)), rows ascending
        throughout: the order of the file.
    obs
        Given all rows, the tables whose rows, one after the other, describe
        them; the column ``obs_name`` becomes the index.
    uns
        Strings and numbers to keep with the file, under ``uns["scvae_data"]``.

    Returns
    -------
    Number of cells.

    Raises
    ------
    StoreError
        If rows are not ascending, or obs has another number of them.
    """
    from anndata.io import write_elem

    with atomic_file(path) as target, h5py.File(target, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        rows = _write_obsm(file.create_group("obsm"), latents)
        _write_obs(file.create_group("obs"), obs(rows), len(rows))
        write_elem(file, "var", pd.DataFrame(index=pd.Index([], dtype=str)))
        write_elem(file, "uns", {"scvae_data": dict(uns)})
        for name in ("layers", "obsp", "varm", "varp"):
            write_elem(file, name, {})
    return len(rows)


def with_split(tables: Iterable[pa.Table], parts: NDArray[np.int8]) -> Iterator[pa.Table]:
    """Add to the obs of cells which side of the split each is on; missing for those on none.

    Parameters
    ----------
    tables
        Whose rows, one after the other, are the cells.
    parts
        Positions in :data:`~scvae_data.loading.select.split.PARTS`, -1 for none.
    """
    first = 0
    for table in tables:
        name = SPLIT if SPLIT not in table.column_names else OUR_SPLIT
        codes = parts[first : first + len(table)]
        yield table.append_column(name, pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), list(PARTS)))
        first += len(table)


def predict_share(run_dir: Path, latents: Iterable[Latents], ranks: Ranks) -> None:
    """Leave the latents of this rank's share where the first one finds them, and say so to all."""
    with share_file(run_dir, ranks.rank).open("wb") as file:
        for rows, values in latents:
            np.save(file, rows)
            np.save(file, values)
    distributed.barrier()


def joined_shares(run_dir: Path, latents: Iterable[Latents], ranks: Ranks) -> Iterator[Latents]:
    """Latents of this rank's share, which is the first, and then those of the others; in order of the rows.

    One batch is in memory at a time, whatever the number of cells.
    """
    yield from latents
    if ranks.size == 1:
        return
    distributed.barrier()
    for rank in range(1, ranks.size):
        path = share_file(run_dir, rank)
        n_bytes = path.stat().st_size
        with path.open("rb") as file:
            while file.tell() < n_bytes:
                yield np.load(file), np.load(file)
        path.unlink()


def share_file(run_dir: Path, rank: int) -> Path:
    """Where a rank's latents lie until they are joined."""
    return run_dir / f".latents-of-rank-{rank}.npy"


def _write_obsm(obsm: h5py.Group, latents: Iterable[Latents]) -> NDArray[np.int64]:
    """Write the latents; returns their rows, which take 8 bytes per cell."""
    obsm.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
    dataset: h5py.Dataset | None = None
    seen: list[NDArray[np.int64]] = []
    for rows, values in latents:
        if dataset is None:
            dataset = _array(obsm, KEY, np.float32, shape=(0, values.shape[1]))
        _extend(dataset, values)
        seen.append(rows)
    rows = np.concatenate(seen) if seen else np.zeros(0, np.int64)
    if (np.diff(rows) <= 0).any():
        at = int((np.diff(rows) <= 0).argmax())
        raise StoreError(f"latents must come in row order, but row {rows[at + 1]} follows row {rows[at]}")
    return rows


def _write_obs(group: h5py.Group, tables: Iterable[pa.Table], n_obs: int) -> None:
    """Write tables one after the other as one data frame."""
    columns: dict[str, Column] = {}
    n_written = 0
    for table in tables:
        if not columns:
            columns = {name: Column(group, name, table.schema.field(name).type) for name in table.column_names}
        for name, column in columns.items():
            column.append(table[name].combine_chunks())
        n_written += len(table)
    if n_written != n_obs:
        raise StoreError(
            f"obs has {n_written} rows for {n_obs} cells; write the dataset anew with process.py overwrite=true"
        )
    for column in columns.values():
        column.close()
    names = [column.name for name, column in columns.items() if name != OBS_NAME]
    group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": OBS_NAME})
    group.attrs.create("column-order", names, dtype=h5py.string_dtype(), shape=(len(names),))


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
        self.is_float = pa.types.is_floating(kind)
        self.is_string = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        self.is_bool = pa.types.is_boolean(kind)
        if self.categories is not None:
            dtype: Any = np.int32
        elif self.is_string or not (self.is_float or self.is_bool or pa.types.is_integer(kind)):
            self.is_string, dtype = True, h5py.string_dtype()
        else:
            dtype = kind.to_pandas_dtype()
        self.values = _array(group, self.name, dtype)
        self.mask = _array(group, f"{self.name} mask", bool)
        self.any_missing = False

    def append(self, values: pa.Array) -> None:
        """Add the entries of ``values``."""
        missing = values.is_null().to_numpy(zero_copy_only=False)
        if self.categories is not None:
            _extend(self.values, self._codes(values))
            return
        if self.is_float:
            _extend(self.values, values.to_numpy(zero_copy_only=False))
            return
        if self.is_string:
            filled = pc.fill_null(values.cast(pa.string()), "").to_numpy(zero_copy_only=False)
        else:
            filled = pc.fill_null(values, False if self.is_bool else 0).to_numpy(zero_copy_only=False)
        _extend(self.values, filled)
        _extend(self.mask, missing)
        self.any_missing = self.any_missing or bool(missing.any())

    def close(self) -> None:
        """Bring the column into its final layout."""
        mask_name = f"{self.name} mask"
        if self.categories is not None:
            del self.group[mask_name]
            self._close_categories()
        elif self.any_missing:
            self.group.move(self.name, f"{self.name} values")
            nullable = self.group.create_group(self.name)
            kind = (
                "nullable-string-array"
                if self.is_string
                else "nullable-boolean"
                if self.is_bool
                else "nullable-integer"
            )
            nullable.attrs.update({"encoding-type": kind, "encoding-version": "0.1.0"})
            self.group.move(f"{self.name} values", f"{self.name}/values")
            self.group.move(mask_name, f"{self.name}/mask")
        else:
            del self.group[mask_name]

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
        _extend(_array(group, "categories", h5py.string_dtype()), np.array(names, dtype=object))
        for start in range(0, len(self.values), BLOCK):
            self.values[start : start + BLOCK] = renumbered[self.values[start : start + BLOCK]]
        self.group.move(used, f"{self.name}/codes")


def _array(group: h5py.Group, name: str, dtype: Any, shape: tuple[int, ...] = (0,)) -> h5py.Dataset:
    """An empty data set that can grow, marked as anndata marks arrays."""
    chunks = (BLOCK if len(shape) == 1 else max(1, BLOCK // shape[1]), *shape[1:])
    dataset = group.create_dataset(
        name, shape=shape, maxshape=(None, *shape[1:]), dtype=dtype, chunks=chunks, compression="gzip",
        compression_opts=1, shuffle=True, track_times=False,
    )  # fmt: skip
    is_string = h5py.check_string_dtype(dataset.dtype) is not None
    dataset.attrs.update({"encoding-type": "string-array" if is_string else "array", "encoding-version": "0.2.0"})
    return dataset


def _extend(dataset: h5py.Dataset, values: NDArray[Any]) -> None:
    start = len(dataset)
    dataset.resize(start + len(values), axis=0)
    dataset[start:] = values
