"""A path in, the reader for what is there out; the content decides, not the name."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import h5py

from scvae_data.errors import InputError
from scvae_data.readers.anndata_reader import AnnDataReader
from scvae_data.readers.base import Reader, ReaderClass
from scvae_data.readers.folders import is_store
from scvae_data.readers.hdf5 import open_file, reading
from scvae_data.readers.mtx_folder import names_of_matrix
from scvae_data.readers.mtx_layers import open_mtx
from scvae_data.readers.opening import DEFAULT_OPENING, Opening
from scvae_data.readers.refusals import folder_refusal, hdf5_refusal, refusal
from scvae_data.readers.table import TableReader
from scvae_data.readers.table_layout import read_layout
from scvae_data.readers.tenx_h5 import TenxH5Reader, genome_groups, has_v3_matrix
from scvae_data.readers.zarr_store import is_zipped_store
from scvae_data.system.hdf5_guard import Limits
from scvae_data.system.import_path import imported

__all__ = ["open_reader"]

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
USER_BLOCKS = (0, 512, 1024, 2048, 4096)
"""Where an HDF5 file may begin, within what is read here."""
SNIFFED_BYTES = 8192


def open_reader(path: Path, opening: Opening = DEFAULT_OPENING) -> Reader:
    """Choose the reader for a file or folder.

    The file is looked at and closed again; the reader opens it on entry and
    checks the rest there.

    Parameters
    ----------
    path
        A file, a Zarr store, a folder with one matrix of Matrix Market, or
        one such matrix beside its barcodes and features.
    opening
        How.

    Returns
    -------
    Reader

    Raises
    ------
    ConfigError
        A reader of the user's own cannot be imported.
    InputError
        ``missing``, ``empty``, ``truncated``, ``unreadable``, ``no_counts``,
        ``not_single_cell``, ``unsupported``, ``ambiguous``, ``unsafe``.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(path, "missing", "there is no such file or folder; check the path")
    limits = opening.limits
    for name in opening.own:
        reader: ReaderClass = imported(name, "input.readers")
        if reader.recognises(path):
            return reader(path, limits)
    if path.is_dir():
        if is_store(path):
            return AnnDataReader(path, "zarr", limits)
        if refused := folder_refusal(path):
            raise refused
        return open_mtx(path, limits)
    if not path.is_file():
        raise InputError(path, "unreadable", "a pipe or a device, not a file; give a file")
    head = _read_head(path)
    if any(head[at : at + 8] == HDF5_SIGNATURE for at in USER_BLOCKS):
        return _open_hdf5(path, limits)
    if head.startswith(b"\x1f\x8b"):
        head = _gunzip_head(path)
        if head.startswith(HDF5_SIGNATURE):
            raise InputError(path, "unreadable", "a gzip file with HDF5 inside; gunzip it first")
        if head.startswith(b"\x1f\x8b"):
            raise InputError(path, "unreadable", "a gzip file with another one inside; gunzip it once")
    if head.startswith(b"PK") and is_zipped_store(path):
        return AnnDataReader(path, "zarr", limits)
    if head.startswith(b"%%MatrixMarket"):
        return open_mtx(path, limits)
    if matrix := next((name for name in names_of_matrix(path.name) if path.with_name(name).is_file()), ""):
        raise InputError(path, "not_single_cell", f"belongs to {matrix} beside it; give the matrix only")
    if refused := refusal(path, head):
        raise refused
    read_layout(path, limits.max_table_bytes)
    return TableReader(path, limits, opening.table_rows)


def _read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(SNIFFED_BYTES)
    except OSError as error:
        raise InputError(path, "unreadable", f"cannot be opened ({error.strerror}); check its permissions") from error
    if not head:
        raise InputError(path, "empty", "is empty (0 bytes); copy it again")
    return head


def _gunzip_head(path: Path) -> bytes:
    try:
        with gzip.open(path, "rb") as file:
            return file.read(SNIFFED_BYTES)
    except EOFError as error:
        raise InputError(path, "truncated", "the gzip file is cut short; copy it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(path, "unreadable", f"gzip cannot read it ({error}); copy it again") from error


def _open_hdf5(path: Path, limits: Limits) -> Reader:
    with open_file(path, limits) as file, reading(path):
        names = set(file)
        if has_v3_matrix(file):
            return TenxH5Reader(path, "10x_h5_v3", limits)
        if genome_groups(file):
            return TenxH5Reader(path, "10x_h5_v2", limits)
        if "mod" in names:
            return AnnDataReader(path, "h5mu", limits)
        if {"obs", "var"} <= names:
            return AnnDataReader(path, "h5ad", limits)
        if {"row_attrs", "col_attrs"} <= names and isinstance(file.get("matrix"), h5py.Dataset):
            return AnnDataReader(path, "loom", limits)
        raise hdf5_refusal(path, sorted(names))
