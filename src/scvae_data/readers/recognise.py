"""A path in, the reader for what is there out; the content decides, not the name."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import h5py

from scvae_data.errors import InputError
from scvae_data.readers.base import Reader, ReaderClass
from scvae_data.readers.h5ad import H5adReader
from scvae_data.readers.hdf5 import open_file, reading
from scvae_data.readers.mtx import MtxReader
from scvae_data.readers.mtx_folder import find_triple
from scvae_data.readers.tenx_h5 import TenxH5Reader, genome_groups, has_v3_matrix
from scvae_data.system.hdf5_guard import DEFAULT_LIMITS, Limits
from scvae_data.system.import_path import imported

__all__ = ["open_reader"]

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
USER_BLOCKS = (0, 512, 1024, 2048, 4096)
"""Where an HDF5 file may begin, within what is read here."""
SNIFFED_BYTES = 8192
ACCEPTED = "give H5AD, 10x H5 or a 10x mtx folder"


def open_reader(path: Path, limits: Limits = DEFAULT_LIMITS, own: Sequence[str] = ()) -> Reader:
    """Choose the reader for a file or folder.

    The file is looked at and closed again; the reader opens it on entry and
    checks the rest there.

    Parameters
    ----------
    path
        An H5AD file, a 10x HDF5 file, a folder with one 10x mtx matrix, or
        one matrix.mtx file beside its barcodes and features.
    limits
        What the file may ask for.
    own
        Import paths of readers of the user's own, see `ReaderClass`; they are asked before ours.

    Returns
    -------
    Reader

    Raises
    ------
    ConfigError
        A reader of the user's own cannot be imported.
    InputError
        ``missing``, ``truncated``, ``unreadable``, ``no_counts``,
        ``not_single_cell``, ``unsupported`` (loom, Zarr), ``ambiguous``, ``unsafe``.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(path, "missing", "there is no such file or folder; check the path")
    for name in own:
        reader: ReaderClass = imported(name, "input.readers")
        if reader.recognises(path):
            return reader(path, limits)
    if path.is_dir():
        _refuse_zarr(path)
        find_triple(path)
        return MtxReader(path, limits)
    if not path.is_file():
        raise InputError(path, "unreadable", f"a pipe or a device, not a file; {ACCEPTED}")
    head = _read_head(path)
    if any(head[at : at + 8] == HDF5_SIGNATURE for at in USER_BLOCKS):
        return _open_hdf5(path, limits)
    if head.startswith(b"\x1f\x8b"):
        head = _gunzip_head(path)
        if head.startswith(HDF5_SIGNATURE):
            raise InputError(path, "unreadable", "a gzip file with HDF5 inside; gunzip it first")
    if head.startswith(b"%%MatrixMarket"):
        find_triple(path)
        return MtxReader(path, limits)
    raise _refusal(path, head)


def _refuse_zarr(folder: Path) -> None:
    if any((folder / name).exists() for name in (".zgroup", ".zattrs", "zarr.json")):
        raise InputError(folder, "unsupported", "a Zarr store, which is not read; write it as H5AD")


def _read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(SNIFFED_BYTES)
    except OSError as error:
        raise InputError(path, "unreadable", f"cannot be opened ({error.strerror}); check its permissions") from error
    if not head:
        raise InputError(path, "truncated", "the file is empty; copy it again")
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
            held = ", ".join(file["mod"]) or "none"
            raise InputError(path, "unsupported", f"a MuData file (modalities: {held}); write its RNA as H5AD")
        if {"obs", "var"} <= names:
            return H5adReader(path, limits)
        if {"row_attrs", "col_attrs"} <= names and isinstance(file.get("matrix"), h5py.Dataset):
            raise InputError(path, "unsupported", f"a loom file, which is not read; {ACCEPTED}")
        held = ", ".join(sorted(names)[:8]) or "nothing"
        raise InputError(path, "not_single_cell", f"HDF5 without cells, genes and a matrix (holds {held}); {ACCEPTED}")


def _refusal(path: Path, head: bytes) -> InputError:
    if head.startswith(b"PK") and (b".zgroup" in head or b".zattrs" in head or b"zarr.json" in head):
        return InputError(path, "unsupported", "a zipped Zarr store, which is not read; write it as H5AD")
    if head.startswith(b"PK"):
        return InputError(path, "not_single_cell", f"a zip archive; unpack it and {ACCEPTED}")
    if head[257:262] == b"ustar":
        return InputError(path, "not_single_cell", f"a tar archive; unpack it and {ACCEPTED}")
    if b"\0" not in head and _is_table(head):
        remedy = "convert it, e.g. with scanpy.read_csv(…).T.write_h5ad(…), .T where rows are genes"
        return InputError(path, "not_single_cell", f"a table of text; {remedy}; or {ACCEPTED}")
    if b"\0" not in head:
        return InputError(path, "not_single_cell", f"a text file; {ACCEPTED}")
    return InputError(path, "not_single_cell", f"neither HDF5 nor Matrix Market; {ACCEPTED}")


def _is_table(head: bytes) -> bool:
    """Whether the first two lines are columns between the same separators; a line of names may lack the first."""
    lines = head.splitlines()[:2]
    numbers = [[line.count(mark) for line in lines] for mark in (b"\t", b",", b";")]
    return len(lines) == 2 and any(first and second - first in (0, 1) for first, second in numbers)
