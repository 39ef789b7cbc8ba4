"""Values of cells, and what obs says of them, in; one file that anndata or a reader of Parquet opens out.

Streamed, block by block: memory does not grow with the number of cells. An
``.h5ad`` file is laid out as anndata lays it out, a ``.zarr`` folder is copied
from one, a ``.parquet`` file has a column for each of obs and of the values.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scvae_data.calling import program
from scvae_data.errors import ConfigError, StoreError
from scvae_data.results.frames import BLOCK, Frame, array, extend
from scvae_data.store.files import atomic_file

if TYPE_CHECKING:
    import zarr

__all__ = ["SUFFIXES", "Content", "check_suffix", "write_cells", "write_genes", "write_h5ad"]

PIECE_BYTES = 64_000_000  # values of a row group of a Parquet file
SUFFIXES = (".h5ad", ".zarr", ".parquet")

Obs = Callable[[NDArray[np.int64]], Iterable[pa.Table]]
"""Given global rows, the tables whose rows, one after the other, describe them."""
Cells = Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Blocks of global rows (n,), ascending throughout, and values (n, n_columns)."""


@dataclass(frozen=True)
class Content:
    """What the values of cells are, and what else is kept with them."""

    place: Literal["X", "obsm", "obs"]
    """Where AnnData has them."""
    name: str
    """Their key in obsm; else what one of them is, for people."""
    columns: list[str]
    """Names of the columns."""
    var: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(index=pd.Index([], dtype=str)))
    """About the columns of X."""
    uns: Mapping[str, Any] = field(default_factory=dict)
    """Strings and numbers to keep, under ``uns["scvae_data"]``."""


def write_cells(path: Path, cells: Cells, obs: Obs, content: Content) -> int:
    """Write values and obs of cells in the form that the suffix of ``path`` names; returns the number of cells.

    Raises
    ------
    ConfigError
        If there is no such form.
    StoreError
        If rows are not ascending, or obs has another number of them.
    """
    suffix = check_suffix(path)
    if suffix == ".parquet":
        return write_parquet(path, cells, obs, content)
    if suffix == ".h5ad":
        return write_h5ad(path, cells, obs, content)
    with whole_folder(path) as folder:
        between = folder.with_suffix(".h5ad")
        try:
            n_obs = write_h5ad(between, cells, obs, content)
            copy_to_zarr(between, folder, content)
        finally:
            between.unlink(missing_ok=True)
    return n_obs


def write_genes(path: Path, table: pd.DataFrame) -> None:
    """Write a table with a row for each gene: as ``var`` of an AnnData object without cells, or as Parquet."""
    from anndata import AnnData
    from anndata.io import write_elem

    suffix = check_suffix(path)
    if suffix == ".parquet":
        with atomic_file(path) as target:
            table.to_parquet(target)
        return
    adata = AnnData(np.zeros((0, len(table)), np.float32), var=table.rename_axis(None))
    if suffix == ".zarr":
        with whole_folder(path) as folder:
            write_elem(new_zarr(folder), "/", adata)
        return
    with atomic_file(path) as target, h5py.File(target, "w") as file:
        write_elem(file, "/", adata)


def check_suffix(path: Path) -> str:
    """The suffix of a file that is to be written.

    Raises
    ------
    ConfigError
        If it names no form.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: the suffix says in which form to write; give one of {', '.join(SUFFIXES)}")
    return path.suffix


def write_h5ad(path: Path, cells: Cells, obs: Obs, content: Content) -> int:
    """Write an AnnData file; replaced only when the new one is whole. Otherwise as :func:`write_cells`."""
    with atomic_file(path) as target, h5py.File(target, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        frame = Frame(file.create_group("obs"))
        obsm = file.create_group("obsm")
        obsm.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
        group, name = (file, "X") if content.place == "X" else (obsm, content.name)
        matrix = None
        if content.place != "obs":
            matrix = array(group, name, np.float32, shape=(0, len(content.columns)))
        for rows, values in pieces(cells, BLOCK, matrix):
            for table, part in described(rows, values, obs):
                frame.append(with_values(table, part, content.columns) if matrix is None else table)
        n_obs = frame.close()
        write_rest(file, content)
    return n_obs


def write_parquet(path: Path, cells: Cells, obs: Obs, content: Content) -> int:
    """Write a Parquet file with the columns of obs and of the values; otherwise as :func:`write_cells`."""
    n_rows = int(np.clip(PIECE_BYTES // (4 * max(1, len(content.columns))), 1, BLOCK))
    tables = (
        with_values(table, part, content.columns)
        for rows, values in pieces(cells, n_rows)
        for table, part in described(rows, values, obs)
    )
    if (first := next(tables, None)) is None:
        raise StoreError(f"{path}: there is no cell to write")
    n_obs, schema = 0, first.schema.with_metadata({"scvae_data": json.dumps(dict(content.uns))})
    with atomic_file(path) as target, pq.ParquetWriter(target, schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table.cast(schema))
            n_obs += len(table)
    return n_obs


def pieces(
    cells: Cells, n_rows: int, matrix: h5py.Dataset | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Blocks together, at least ``n_rows`` rows at a time; with a ``matrix``, values go there and are held no longer.

    Raises
    ------
    StoreError
        If rows are not ascending.
    """
    held: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    last = -1
    for rows, values in cells:
        steps = np.diff(rows, prepend=last)
        if (steps <= 0).any():
            at = int((steps <= 0).argmax())
            before = rows[at - 1] if at else last
            raise StoreError(f"cells must come in row order, but row {rows[at]} follows row {before}")
        last = int(rows[-1]) if rows.size else last
        if matrix is not None:
            extend(matrix, values)
        # A slice would hold the values.
        held.append((rows, values if matrix is None else np.empty((len(values), 0), np.float32)))
        if sum(len(part) for part, _ in held) >= n_rows:
            yield _together(held)
            held = []
    if held:
        yield _together(held)


def described(
    rows: NDArray[np.int64], values: NDArray[np.float32], obs: Obs
) -> Iterator[tuple[pa.Table, NDArray[np.float32]]]:
    """Tables of obs of some rows, each with the values of its rows.

    Raises
    ------
    StoreError
        If obs has another number of rows.
    """
    start = 0
    for table in obs(rows):
        yield table, values[start : start + len(table)]
        start += len(table)
    if start != len(rows):
        raise StoreError(
            f"obs has {start} rows for {len(rows)} cells; write the dataset anew: {program('process')} overwrite=true"
        )


def with_values(table: pa.Table, values: NDArray[np.float32], columns: list[str]) -> pa.Table:
    """A table of obs with the values as further columns.

    Raises
    ------
    StoreError
        If obs has a column of that name.
    """
    if taken := [name for name in columns if name in table.column_names]:
        raise StoreError(f"obs has a column {taken[0]!r} already; write .h5ad, or leave it out")
    arrays = [pa.array(np.ascontiguousarray(values[:, place])) for place in range(len(columns))]
    return pa.table(
        [*(table[name].combine_chunks() for name in table.column_names), *arrays], names=[*table.column_names, *columns]
    )


def write_rest(group: h5py.Group | zarr.Group, content: Content) -> None:
    """Write what is not of cells."""
    from anndata.io import write_elem

    write_elem(group, "var", content.var)
    write_elem(group, "uns", {"scvae_data": dict(content.uns)})
    for name in ("layers", "obsp", "varm", "varp"):
        write_elem(group, name, {})


def new_zarr(folder: Path) -> zarr.Group:
    """An empty Zarr folder, in the version that every anndata reads."""
    import zarr

    return zarr.open_group(folder, mode="w", zarr_format=2)


def copy_to_zarr(source: Path, folder: Path, content: Content) -> None:
    """Copy an AnnData file into a Zarr folder, block by block."""
    root = new_zarr(folder)
    with h5py.File(source, "r") as file:
        root.attrs.update(_plain(file.attrs))
        for name in ("obs", "obsm", "X"):
            if name in file:
                _copy(file, root, name)
    write_rest(root, content)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder that becomes ``path`` when the block ends, and vanishes when it raises."""
    folder = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
        folder.rename(path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _together(
    held: list[tuple[NDArray[np.int64], NDArray[np.float32]]],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    rows, values = zip(*held, strict=True)
    return np.concatenate(rows), np.concatenate(values)


def _copy(source: h5py.Group, target: zarr.Group, name: str) -> None:
    """Copy what ``name`` is in ``source``, and all below it."""
    from zarr.dtype import VariableLengthUTF8

    item = source[name]
    if isinstance(item, h5py.Group):
        made = target.create_group(name)
        for inner in item:
            _copy(item, made, inner)
        made.attrs.update(_plain(item.attrs))
        return
    is_text = h5py.check_string_dtype(item.dtype) is not None
    dtype: Any = VariableLengthUTF8() if is_text else item.dtype
    array = target.create_array(name, shape=item.shape, dtype=dtype, chunks=item.chunks)
    readable = item.asstr() if is_text else item
    for start in range(0, len(item), item.chunks[0]):
        array[start : start + item.chunks[0]] = readable[start : start + item.chunks[0]]
    array.attrs.update(_plain(item.attrs))


def _plain(attrs: Any) -> dict[str, Any]:
    """Attributes of HDF5 as JSON has them."""
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in attrs.items()}
