"""An array in an HDF5 file in, ranges of it out: read past HDF5 where its chunks are plain, without their cache."""

from __future__ import annotations

import os
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = ["past_cache"]

LEAST_LENGTH = 64
"""Values of a chunk; of smaller ones there may be too many to know where each is."""


def past_cache(node: Any) -> Any:
    """Return what gives ranges of a node of one dimension: itself, or what reads its chunks into place.

    HDF5 would read each chunk into its cache, and copy it from there.
    """
    places = plain_places(node)
    return node if places is None else PlainChunks(node, places)


def plain_places(node: Any) -> NDArray[np.uint64] | None:
    """Return where each chunk of a data set begins in its file; None unless all lie there as they are in memory."""
    if not isinstance(node, h5py.Dataset) or node.ndim != 1 or not node.chunks or not node.size:
        return None
    if node.chunks[0] < LEAST_LENGTH:
        return None
    properties, file = node.id.get_create_plist(), node.file
    as_in_memory = node.dtype.kind in "iuf" and node.id.get_type().equal(h5py.h5t.py_create(node.dtype))
    if properties.get_nfilters() or not as_in_memory or file.driver != "sec2" or file.userblock_size:
        return None
    length = node.chunks[0]  # h5py asks the file each time
    places = np.zeros(-(-node.size // length), np.uint64)
    node.id.chunk_iter(lambda chunk: places.__setitem__(chunk.chunk_offset[0] // length, chunk.byte_offset))
    return places if places.all() else None  # a chunk that was never written has no place


class PlainChunks:
    """The values of such a data set, read from the file that HDF5 has open.

    Parameters
    ----------
    dataset
        As h5py opens it.
    places
        Of `plain_places`.
    """

    def __init__(self, dataset: Any, places: NDArray[np.uint64]) -> None:
        self._file, self._places = dataset.file, places
        self._name, self._length, self._dtype = dataset.name, dataset.chunks[0], dataset.dtype

    def __getitem__(self, span: slice) -> NDArray[Any]:
        """Read consecutive values.

        Raises
        ------
        OSError
            The file is shorter than it was.
        """
        fd, start, stop = self._file.id.get_vfd_handle(), span.start, span.stop
        values = np.empty(stop - start, self._dtype)
        at = start
        while at < stop:
            chunk, first = divmod(at, self._length)
            part = values[at - start : min(at + self._length - first, stop) - start]
            if os.preadv(fd, [part.data], int(self._places[chunk]) + first * part.itemsize) != part.nbytes:
                raise OSError(f"truncated within {self._name}")  # HDF5 would read zeros
            at += part.size
        return values
