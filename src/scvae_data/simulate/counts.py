"""Counts drawn from the profiles of a planned experiment: compressed rows, block by block."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.simulate.experiment import Experiment
from scvae_data.system.cpus import n_cpus
from scvae_data.system.jit import ahead_of, compiled

__all__ = ["CountBlock", "count_blocks"]

CountBlock = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]
"""Row borders, columns and counts of consecutive cells."""
MAX_DRAWS = 2_000_000  # UMIs of one block: 16 MB, or a single cell
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
LOW_16 = np.uint64(0xFFFF)
ALIAS = np.uint32(0xFFFF)
SIXTEEN = np.uint32(16)
HALF = np.uint64(32)
SHIFT_1, SHIFT_2, SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)
KEPT_OF_KNOCKED_DOWN = 0.25  # share of its UMIs that a perturbed gene keeps


def count_blocks(experiment: Experiment, *, max_draws: int = MAX_DRAWS) -> Iterator[CountBlock]:
    """Rows of an experiment in order, drawn ahead in threads; the counts do not depend on the block size."""
    tables = alias_tables(experiment.profiles_pg)
    per_cell: tuple[NDArray[Any], ...] = (
        experiment.profiles_nk,
        experiment.draws_nk,
        experiment.knocked_down_n,
        experiment.seeds_n,
    )
    n_threads = min(4, n_cpus())
    with ThreadPoolExecutor(n_threads) as pool:
        ahead: deque[Future[CountBlock]] = deque()
        for rows in _spans(experiment.draws_nk.sum(axis=1), max_draws):
            ahead.append(pool.submit(sample_rows, tables, *(values[rows] for values in per_cell)))
            if len(ahead) > n_threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _spans(draws_n: NDArray[np.int64], max_draws: int) -> Iterator[slice]:
    """Runs of cells of ``max_draws`` UMIs at most, or of one cell."""
    drawn = np.concatenate([[0], np.cumsum(draws_n)])
    start = 0
    while start < len(draws_n):
        stop = int(np.searchsorted(drawn, drawn[start] + max_draws, side="right")) - 1
        stop = max(stop, start + 1)
        yield slice(start, stop)
        start = stop


def alias_tables(profiles: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Turn profiles into tables from which one draw takes constant time.

    Parameters
    ----------
    profiles
        Non-negative weights, shape (n_profiles, n_genes), each row with a positive sum.

    Returns
    -------
    NDArray[np.uint32]
        The same shape. The upper half of an entry is the probability to keep
        its gene, in units of 2**-16; the lower half the gene taken otherwise.
        Small entries matter: a file has a hundred tables, and a draw is as
        fast as its entry is near.
    """
    tables = np.empty(profiles.shape, dtype=np.uint32)
    for profile, table in zip(profiles, tables, strict=True):
        _fill_alias_table(profile / profile.sum(), table)
    return tables


@ahead_of("process", "f8[::1], u4[::1]")
@compiled
def _fill_alias_table(probabilities: NDArray[np.float64], table: NDArray[np.uint32]) -> None:
    n = len(probabilities)
    table[:] = np.arange(n)
    scaled = probabilities * n
    large, is_small = np.flatnonzero(scaled >= 1.0), np.flatnonzero(scaled < 1.0)
    small = np.empty(n, dtype=np.int64)
    n_large, n_small = len(large), len(is_small)
    small[:n_small] = is_small
    while n_small and n_large:
        n_small -= 1
        low, high = small[n_small], large[n_large - 1]
        table[low] = (np.uint32(scaled[low] * 65536.0) << SIXTEEN) | np.uint32(high)
        scaled[high] -= 1.0 - scaled[low]
        if scaled[high] < 1.0:
            n_large -= 1
            small[n_small] = high
            n_small += 1


@compiled
def _next(state: np.uint64) -> np.uint64:
    """SplitMix64: the random number that belongs to ``state``."""
    state = (state ^ (state >> SHIFT_1)) * MIX_1
    state = (state ^ (state >> SHIFT_2)) * MIX_2
    return state ^ (state >> SHIFT_3)


@ahead_of("process", "u4[:, ::1], i4[:, ::1], i8[:, ::1], i8[::1], u8[::1]")
@compiled
def sample_rows(
    tables: NDArray[np.uint32],
    profiles_nk: NDArray[np.int32],
    draws_nk: NDArray[np.int64],
    knocked_down_n: NDArray[np.int64],
    seeds_n: NDArray[np.uint64],
) -> CountBlock:
    """Draw the UMIs of some cells; their rows have ascending columns.

    Parameters
    ----------
    tables
        From :func:`alias_tables`.
    profiles_nk, draws_nk
        Per cell: rows of ``tables`` and how many UMIs to draw from each.
    knocked_down_n
        Gene that loses most of its UMIs, or −1.
    seeds_n
        One per cell, so that a cell does not depend on which others are drawn.
    """
    n_draws = draws_nk.sum()
    indices, data = np.empty(n_draws, dtype=np.int32), np.empty(n_draws, dtype=np.int32)
    indptr = np.empty(len(draws_nk) + 1, dtype=np.int64)
    span = np.uint64(tables.shape[1])
    counts = np.zeros(tables.shape[1], dtype=np.int32)
    at = indptr[0] = 0
    for cell in range(len(draws_nk)):
        state = seeds_n[cell]
        for k in range(profiles_nk.shape[1]):
            table = tables[profiles_nk[cell, k]]
            for _ in range(draws_nk[cell, k]):
                state += GOLDEN
                bits = _next(state)
                place = ((bits >> HALF) * span) >> HALF
                entry = table[place]
                kept = (bits & LOW_16) < np.uint64(entry >> SIXTEEN)
                counts[place if kept else np.uint64(entry & ALIAS)] += 1
        gene = knocked_down_n[cell]
        if gene >= 0:
            for _ in range(counts[gene]):
                state += GOLDEN
                if (_next(state) >> HALF) > np.uint64(KEPT_OF_KNOCKED_DOWN * 4294967295.0):
                    counts[gene] -= 1
        for i in np.flatnonzero(counts):
            indices[at], data[at] = i, counts[i]
            at += 1
        counts[:] = 0
        indptr[cell + 1] = at
    return indptr, indices[:at].copy(), data[:at].copy()
