"""A folder or zip with a Zarr store in; its root group, as large as it claims to be, out.

Zarr's groups and arrays are used as HDF5's are. zarr itself is imported when
a store is opened: it takes a third of a second, and few inputs need it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

from scvae_data.errors import InputError
from scvae_data.readers.folders import STORE_FILES
from scvae_data.readers.hdf5 import is_array, reading
from scvae_data.system.hdf5_guard import Limits, too_large

__all__ = ["is_zipped_store", "open_store"]


def is_zipped_store(path: Path) -> bool:
    """Whether a zip archive holds a Zarr store at its top."""
    return not STORE_FILES.isdisjoint(info.filename for info in _members(path))


def open_store(path: Path, limits: Limits) -> tuple[Any, Callable[[], None]]:
    """Open a store for reading.

    Returns
    -------
    The root, a ``zarr.Group``, and what closes it.

    Raises
    ------
    InputError
        ``unreadable``; ``unsafe`` if it declares more than ``limits`` allow.
    """
    import zarr
    from zarr.errors import BaseZarrError
    from zarr.storage import LocalStore, ZipStore

    store: Any = LocalStore(path, read_only=True) if path.is_dir() else ZipStore(path, mode="r")
    with reading(path):
        try:
            # What is there, not what was when the list of all was written.
            root = zarr.open_group(store, mode="r", use_consolidated=False)
        except (BaseZarrError, zipfile.BadZipFile, FileNotFoundError) as error:
            text = " ".join(str(error).split())
            raise InputError(path, "unreadable", f"zarr cannot open it ({text}); write it again") from error
        try:
            _check(path, root, limits)
        except BaseException:
            store.close()
            raise
    return root, store.close


def _check(path: Path, root: Any, limits: Limits) -> None:
    """Refuse a store that declares more than it may, or whose counts are not all there.

    Zarr reads a chunk that is absent as zeros; of the values of a sparse
    matrix, which are none, all are written.
    """
    for info in _members(path):
        if info.file_size > limits.max_table_bytes:
            what = f"{info.filename} has {info.file_size:,} bytes, over input.max_table_bytes={limits.max_table_bytes}"
            raise InputError(path, "unsafe", f"{what}; it is not read")
    for name, array in root.members(max_depth=None):
        if not is_array(array):
            continue
        size = int(array.dtype.itemsize)
        if fault := too_large(name, array.size * size, prod(array.chunks) * size, array.nbytes_stored, limits):
            raise InputError(path, "unsafe", f"{fault}; it is not read")
        is_sparse = name.endswith("/data") and f"{name.removesuffix('data')}indptr" in root
        if is_sparse and (n_absent := array.nchunks - array.nchunks_initialized) > 0:
            text = f"{name} lacks {n_absent:,} of its {array.nchunks:,} chunks; copy the store again"
            raise InputError(path, "truncated", text)


def _members(path: Path) -> list[zipfile.ZipInfo]:
    """What a zip archive holds; nothing of a folder."""
    if path.is_dir():
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except zipfile.BadZipFile as error:
        raise InputError(path, "truncated", f"the zip archive is damaged ({error}); copy it again") from error
