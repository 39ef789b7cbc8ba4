"""UMIs drawn from profiles: per cell a few profiles and how many draws from each, rows of counts out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scvae_data.system.jit import compiled

__all__ = ["alias_tables", "sample_rows"]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
LOW_16 = np.uint64(0xFFFF)
ALIAS = np.uint32(0xFFFF)
SIXTEEN = np.uint32(16)
HALF = np.uint64(32)
SHIFT_1, SHIFT_2, SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)
KEPT_OF_KNOCKED_DOWN = 0.25
"""Share of its UMIs that a perturbed gene keeps."""


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


@compiled
def _fill_alias_table(probabilities: NDArray[np.float64], table: NDArray[np.uint32]) -> None:
    n = probabilities.shape[0]
    scaled = probabilities * n
    small = np.empty(n, dtype=np.int64)
    large = np.empty(n, dtype=np.int64)
    n_small = n_large = 0
    for i in range(n):
        if scaled[i] < 1.0:
            small[n_small] = i
            n_small += 1
        else:
            large[n_large] = i
            n_large += 1
    while n_small and n_large:
        n_small -= 1
        low, high = small[n_small], large[n_large - 1]
        table[low] = (np.uint32(scaled[low] * 65536.0) << SIXTEEN) | np.uint32(high)
        scaled[high] -= 1.0 - scaled[low]
        if scaled[high] < 1.0:
            n_large -= 1
            small[n_small] = high
            n_small += 1
    for k in range(n_large):
        table[large[k]] = np.uint32(large[k])
    for k in range(n_small):
        table[small[k]] = np.uint32(small[k])


@compiled
def _next(state: np.uint64) -> np.uint64:
    """SplitMix64: the random number that belongs to ``state``."""
    z = state
    z = (z ^ (z >> SHIFT_1)) * MIX_1
    z = (z ^ (z >> SHIFT_2)) * MIX_2
    return z ^ (z >> SHIFT_3)


@compiled
def sample_rows(
    tables: NDArray[np.uint32],
    profiles_nk: NDArray[np.int32],
    draws_nk: NDArray[np.int64],
    knocked_down_n: NDArray[np.int64],
    seeds_n: NDArray[np.uint64],
    indices: NDArray[np.int32],
    data: NDArray[np.int32],
    indptr: NDArray[np.int64],
) -> None:
    """Draw the UMIs of some cells and write them as compressed rows.

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
    indices, data, indptr
        Written: columns ascending, counts, row borders. The first two must
        have room for every draw.
    """
    n_genes = tables.shape[1]
    span = np.uint64(n_genes)
    counts = np.zeros(n_genes, dtype=np.int32)
    at = 0
    indptr[0] = 0
    for cell in range(profiles_nk.shape[0]):
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
            n_before = counts[gene]
            for _ in range(n_before):
                state += GOLDEN
                if (_next(state) >> HALF) > np.uint64(KEPT_OF_KNOCKED_DOWN * 4294967295.0):
                    counts[gene] -= 1
        for i in range(n_genes):
            if counts[i]:
                indices[at] = i
                data[at] = counts[i]
                counts[i] = 0
                at += 1
        indptr[cell + 1] = at
