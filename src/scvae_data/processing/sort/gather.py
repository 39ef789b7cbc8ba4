"""A range of order keys in, the rows of all runs in that range out, sorted, a part at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scvae_data.processing.sort.obs_schema import ObsSchema
from scvae_data.processing.sort.packed import place_rows
from scvae_data.processing.sort.ranks import keys_at, ranks_of
from scvae_data.processing.sort.sorted_run import SortedRun
from scvae_data.processing.work import WorkFolder
from scvae_data.store import CompactCsr, count_dtype, index_dtype

__all__ = ["ChunkRange", "Gathered", "chunk_ranges", "gather"]


@dataclass(frozen=True)
class Slice:
    """The rows of one run inside a range of keys."""

    run: SortedRun
    start: int
    stop: int
    live: NDArray[np.bool_]


@dataclass(frozen=True)
class ChunkRange:
    """The cells of one chunk.

    Parameters
    ----------
    low, high
        Their order keys: from ``low`` to below ``high``, to the last for None.
    first_row
        Global row of the first.
    """

    low: int
    high: int | None
    first_row: int


@dataclass(frozen=True)
class Gathered:
    """Rows of several runs in one order.

    Parameters
    ----------
    keys
        Order key and second hash, uint64, shape (n, 2).
    indptr
        Where each row starts among the entries over the kept genes, int64, shape (n + 1,).
    obs
        Their obs in the directory's schema.
    totals
        Total count over the kept genes, int64, shape (n,).
    """

    keys: NDArray[np.uint64]
    indptr: NDArray[np.int64]
    obs: pa.Table
    totals: NDArray[np.int64]
    _slices: Sequence[Slice]
    _ranks: NDArray[np.int64]
    _gene_map: NDArray[np.int32]
    _n_genes: int
    _max_count: int

    def parts(self, max_entries: int) -> Iterator[CompactCsr]:
        """Yield the rows, at most ``max_entries`` or one row at a time, while the runs are open.

        Each part reads all slices, and unpacks its own rows.
        """
        first, n_rows = 0, len(self.keys)
        while first < n_rows:
            limit = self.indptr[first] + max_entries
            stop = max(int(np.searchsorted(self.indptr, limit, side="right")) - 1, first + 1)
            yield self._part(first, min(stop, n_rows))
            first = stop

    def _part(self, first: int, stop: int) -> CompactCsr:
        """Collect the rows from ``first`` to ``stop``."""
        starts = self.indptr[first : stop + 1] - self.indptr[first]
        targets = np.full(len(self.keys), -1, np.int64)
        inside = (self._ranks >= first) & (self._ranks < stop)
        targets[inside] = starts[self._ranks[inside] - first]
        indices = np.empty(starts[-1], index_dtype(self._n_genes))
        data = np.empty(starts[-1], count_dtype(self._max_count))
        n_before = 0
        for part in self._slices:
            n_live = int(part.live.sum())
            place_slice(part, targets[n_before : n_before + n_live], self._gene_map, indices, data)
            n_before += n_live
        return CompactCsr(starts, indices, data, self._n_genes)


def gather(
    runs: Sequence[SortedRun],
    low: int,
    high: int | None,
    gene_map: NDArray[np.int32],
    schema: ObsSchema,
    *,
    sort_by: Literal["key", "hash"],
    n_genes: int,
    max_count: int,
) -> Gathered:
    """Find the rows whose order key is at least ``low`` and below ``high``.

    Parameters
    ----------
    gene_map
        Column of each gene of the universe, -1 for those left out.
    sort_by
        ``"key"``: by order key; ``"hash"``: by the second hash, so that a
        split by it is one contiguous range.
    n_genes, max_count
        Fix the types of indices and data: uint16 where they fit, else uint32.
    """
    slices = [slice_run(run, low, high) for run in runs]
    slices = [part for part in slices if part.live.any()]
    keys = np.concatenate([keys_of(part) for part in slices]) if slices else np.empty((0, 2), np.uint64)
    totals, lengths = (np.concatenate(parts) if slices else np.empty(0, np.int64) for parts in live_totals(slices))
    sorting = np.lexsort((keys[:, 1], keys[:, 0]) if sort_by == "key" else (keys[:, 0], keys[:, 1]))
    indptr = np.zeros(len(keys) + 1, np.int64)
    np.cumsum(lengths[sorting], out=indptr[1:])
    ranks = np.empty(len(keys), np.int64)
    ranks[sorting] = np.arange(len(keys))
    obs = pa.concat_tables([schema.slice(obs_of(part)) for part in slices]) if slices else pa.table({})
    obs = obs.take(pa.array(sorting)).combine_chunks()
    return Gathered(keys[sorting], indptr, obs, totals[sorting], slices, ranks, gene_map, n_genes, max_count)


def slice_run(run: SortedRun, low: int, high: int | None) -> Slice:
    """Find the rows of a run inside a range of keys; rows with total 0 do not live."""
    start, stop = run.rank(low), run.n_rows if high is None else run.rank(high)
    return Slice(run, start, stop, np.asarray(run.totals()[0][start:stop] > 0))


def keys_of(part: Slice) -> NDArray[np.uint64]:
    """Return order key and second hash of the living rows."""
    rows = slice(part.start, part.stop)
    return np.column_stack([part.run.array("order")[rows][part.live], part.run.array("hash")[rows][part.live]])


def live_totals(slices: Sequence[Slice]) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Return totals and numbers of entries of the living rows, per slice."""
    totals, lengths = [], []
    for part in slices:
        all_totals, all_lengths = part.run.totals()
        totals.append(np.asarray(all_totals[part.start : part.stop])[part.live])
        lengths.append(np.asarray(all_lengths[part.start : part.stop])[part.live].astype(np.int64))
    return totals, lengths


def obs_of(part: Slice) -> pa.Table:
    """Return the obs of the living rows."""
    table = part.run.obs(part.start, part.stop)
    return table if part.live.all() else table.filter(pa.array(part.live))


def place_slice(
    part: Slice,
    targets: NDArray[np.int64],
    gene_map: NDArray[np.int32],
    indices: NDArray[Any],
    data: NDArray[Any],
) -> None:
    """Copy the living rows of a slice to their places."""
    places = np.full(part.stop - part.start, -1, np.int64)
    places[part.live] = targets
    for first, starts, packed in part.run.packed(part.start, part.stop):
        of_rows = places[first - part.start : first - part.start + len(starts) - 1]
        place_rows(starts, packed, of_rows, gene_map, indices, data)


def chunk_ranges(work: WorkFolder, runs: Sequence[str], chunk_size: int) -> list[ChunkRange]:
    """Cut the cells that stay into chunks of ``chunk_size``; cells of one key stay together."""
    lists = []
    for path in runs:
        with SortedRun(work.path / path) as run:
            lists.append(living_keys(run))
    lows = np.unique(keys_at(lists, np.arange(0, sum(map(len, lists)), chunk_size)))
    ends = [*lows[1:].tolist(), None]
    return [ChunkRange(*values) for values in zip(lows.tolist(), ends, ranks_of(lists, lows).tolist(), strict=True)]


def living_keys(run: SortedRun) -> NDArray[np.uint64]:
    """Return the order keys of the rows with a total above 0; memory-mapped where all rows are such."""
    alive = run.totals()[0] > 0
    keys: NDArray[np.uint64] = run.array("order")
    return keys if alive.all() else keys[alive]
