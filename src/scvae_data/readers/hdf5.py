"""HDF5 files and their small elements: a path in, open files, strings and plain errors out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.system.hdf5_guard import DEFAULT_LIMITS, SMALL_BYTES, Limits, foreign_storage, oversized

__all__ = [
    "ensure_filters",
    "is_array",
    "is_text",
    "open_file",
    "read_attribute_strings",
    "read_strings",
    "reading",
    "to_strings",
]

CHUNK_CACHE_BYTES = 32 * 2**20
"""HDF5 chunks kept per data set, so that a chunk on the border of two blocks is decompressed once."""


FEWEST_STRINGS = 64
"""Strings of variable length that are read at once where their lengths are not known, however large the file."""
REFERENCE = np.dtype([("length", "<u4"), ("place", "V12")])
"""What lies in the file for such a string."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what h5py raises on a damaged file into an :class:`InputError`."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        text = " ".join(str(error).split())
        raise InputError(path, "unreadable", f"not laid out as such a file is ({text}); write it again") from error
    except (OSError, RuntimeError, KeyError) as error:
        text = " ".join(str(error).split())
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, PermissionError):
            raise  # the disk or the mount, not the file
        if isinstance(error, OSError) and ("truncated" in text or "past the end" in text or "eof" in text.lower()):
            raise InputError(path, "truncated", "the HDF5 file is cut short; copy it again") from error
        raise InputError(path, "unreadable", f"HDF5 cannot read it ({text}); copy it again") from error


def open_file(path: Path, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Open an HDF5 file for reading.

    Returns
    -------
    h5py.File

    Raises
    ------
    InputError
        ``truncated`` or ``unreadable``; ``unsafe`` if it leads out of itself or declares more than ``limits`` allow.
    """
    with reading(path):
        file = h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE_BYTES)
        try:
            if fault := foreign_storage(file) or oversized(file, limits):
                raise InputError(path, "unsafe", f"{fault}; it is not read")
        except BaseException:
            file.close()
            raise
        return file


def is_array(node: Any) -> bool:
    """Whether a node of an HDF5 file or a Zarr store holds values, not further nodes."""
    return hasattr(node, "shape")


def ensure_filters(path: Path, dataset: Any) -> None:
    """Make the compression filters of ``dataset`` available; hdf5plugin is imported only if one is missing.

    Raises
    ------
    InputError
        ``unreadable`` if a filter is known neither to HDF5 nor to hdf5plugin.
    """
    if not hasattr(dataset, "id"):  # of a Zarr store, which brings its own
        return
    plist = dataset.id.get_create_plist()
    codes = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if all(h5py.h5z.filter_avail(code) for code in codes):
        return
    import hdf5plugin  # noqa: F401  (registers its filters; few files need it)

    missing = [code for code in codes if not h5py.h5z.filter_avail(code)]
    if missing:
        raise InputError(
            path,
            "unreadable",
            f"{dataset.name} is compressed with HDF5 filter {missing[0]}, which is not installed; recompress with gzip",
        )


def is_text(dtype: Any) -> bool:
    """Whether values of a stored dtype are strings: of fixed length, of any length, or numpy's own."""
    return dtype.kind in "SOUT"


def to_strings(values: NDArray[Any]) -> NDArray[np.object_]:
    """Array of any kind to an object array of ``str``: bytes are decoded, missing values become ``""``."""
    found = values.tolist()
    try:
        flat = list(map(bytes.decode, found))  # as nearly all are
    except (TypeError, UnicodeDecodeError):
        flat = [value if type(value) is str else _to_str(value) for value in found]
    out = np.empty(len(flat), dtype=object)
    out[:] = flat
    return out


def _to_str(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:  # names from before UTF-8 was the rule
            return value.decode("latin-1")
    return "" if value is None or value != value else str(value)


def read_strings(path: Path, dataset: Any) -> NDArray[np.object_]:
    """Data set of vlen strings, fixed-length bytes or numbers to an object array of ``str``.

    Raises
    ------
    InputError
        ``unsafe`` if vlen strings are longer than the file together: then many of them share bytes.
    """
    ensure_filters(path, dataset)
    if dataset.ndim > 1:
        raise ValueError(f"{dataset.name} has {dataset.ndim} axes")
    if dataset.ndim == 0 or not isinstance(dataset, h5py.Dataset) or h5py.check_vlen_dtype(dataset.dtype) is None:
        return to_strings(np.atleast_1d(dataset[()]))
    n_file, n_read = path.stat().st_size, 0
    # Each of them may have the length of the file.
    lengths_are_safe = text_bytes(path, dataset) <= n_file
    step = max(1, len(dataset)) if lengths_are_safe else max(FEWEST_STRINGS, SMALL_BYTES // n_file)
    strings = np.empty(dataset.shape, dtype=object)
    for start in range(0, len(strings), step):
        part = to_strings(dataset[start : start + step])
        n_read += sum(map(len, part))
        if n_read > n_file:
            raise InputError(path, "unsafe", f"{dataset.name} holds more text than the file has bytes; it is not read")
        strings[start : start + step] = part
    return strings


def text_bytes(path: Path, dataset: Any) -> float:
    """How long the strings of variable length of a data set are together; infinite where the file does not show it."""
    if (
        dataset.chunks
        or dataset.file.userblock_size
        or dataset.id.get_storage_size() != REFERENCE.itemsize * dataset.size
    ):
        return np.inf
    references = np.fromfile(path, REFERENCE, dataset.size, offset=dataset.id.get_offset() or 0)
    return float(references["length"].sum(dtype=np.int64))


def read_attribute_strings(value: Any) -> list[str]:
    """Attribute that holds strings (or an empty float array where there were none) to a list."""
    if value is None or isinstance(value, h5py.Empty):
        return []
    return [_to_str(item) for item in np.atleast_1d(value).tolist()]
