"""What is done with a chunk that cannot be read: an error, or batches without its cells and a word about it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import DamagedFileError
from scvae_data.loading.settings import OnBadChunk
from scvae_data.remote import objects
from scvae_data.remote.location import RemotePath
from scvae_data.store.cell_index import CellIndex
from scvae_data.store.source import damaged

__all__ = ["DamagePolicy", "check_sizes", "check_totals"]

TOLERANCE = 1e-4
"""Relative; sums are float32."""
log = logging.getLogger(__name__)


def check_sizes(index: CellIndex, chunk_ids: Iterable[int]) -> None:
    """Refuse a directory that lacks chunks, or holds some of another size, before hours of training; reads nothing.

    Raises
    ------
    DamagedFileError
        Naming the first of them.
    """
    listings: dict[RemotePath, dict[str, int]] = {}
    for chunk_id in chunk_ids:
        path, _ = index.place(chunk_id)
        if isinstance(path, RemotePath):
            if path.parent not in listings:
                listings[path.parent] = listed_sizes(path.parent)
            check_listed_size(path, index.chunks[chunk_id].bytes, listings[path.parent].get(path.name))
        else:
            index.reader(chunk_id).check_size()


def listed_sizes(folder: RemotePath) -> dict[str, int]:
    """Sizes of all files of a remote directory, by name: one request for many."""
    return {path.name: facts.size for path, facts in objects.find(folder, deep=False).items()}


def check_listed_size(path: RemotePath, n_bytes: int, size: int | None) -> None:
    """Raise DamagedFileError unless a file has ``n_bytes``; ``size`` is what it has, None if it is not there."""
    if size != n_bytes:
        raise damaged(path, "is missing" if size is None else f"has {size} bytes, the index says {n_bytes}")


def check_totals(
    index: CellIndex, rows: NDArray[np.int64], totals: NDArray[np.float32], size_factor: NDArray[np.float64]
) -> None:
    """Compare the sums of counts of decoded cells with what obs.parquet says of them.

    Checksums prove that a chunk is what was written, this that it is the chunk
    of these cells: an index may name another one that is as sound.

    Raises
    ------
    DamagedFileError
        Naming the first cell that has another sum.
    """
    expected = size_factor * index.normalization["target_sum"]
    wrong = totals > expected * (1 + TOLERANCE)
    if index.normalization["size_factor_genes"] == "kept":
        wrong |= totals < expected * (1 - TOLERANCE)
    if wrong.any():
        at = int(np.argmax(wrong))
        path, _ = index.place(int(index.locate(rows[at])[0]))
        raise DamagedFileError(
            f"{path}: cell {rows[at]} has {totals[at]:,.0f} counts where obs.parquet says "
            f"{expected[at]:,.0f}; scvae-data verify {path.parent} --deep says which file is wrong"
        )


class DamagePolicy:
    """Decides over damaged chunks, and tells of each of them once; safe for threads.

    Parameters
    ----------
    on_bad_chunk
        ``"raise"`` or ``"skip"``.
    """

    def __init__(self, on_bad_chunk: OnBadChunk = "raise") -> None:
        self.on_bad_chunk = on_bad_chunk
        self._told: set[str] = set()
        self._lock = threading.Lock()

    @property
    def n_chunks(self) -> int:
        """Damaged chunks met so far."""
        return len(self._told)

    def leave_out(self, error: DamagedFileError) -> None:
        """Return if the cells are to be left out; raise ``error`` if not."""
        if self.on_bad_chunk == "raise":
            raise error
        with self._lock:
            known = str(error) in self._told
            self._told.add(str(error))
        if not known:
            log.warning("batches go on without cells (on_bad_chunk=skip): %s", error)
