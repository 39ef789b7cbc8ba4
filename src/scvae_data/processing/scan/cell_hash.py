"""Rows of counts in, a 128-bit hash of each out: equal cells have equal hashes, whatever run they come from.

A row's hash is a sum over its entries, so the order of genes does not
matter, and a gene enters by a hash of its key, not by its position: which
other files a run has changes neither.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.system.jit import compiled

__all__ = ["LEAST_GENES", "hash_row", "hash_rows"]

LEAST_GENES = 50
"""Cells of fewer genes are not compared: shallow ones are equal by chance."""

# Odd constants of splitmix64 and of MurmurHash3, so that the two halves mix counts in different ways.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
SECOND = np.uint64(0xC2B2AE3D27D4EB4F)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
S30, S27, S31 = np.uint64(30), np.uint64(27), np.uint64(31)


@compiled
def mix(word: np.uint64) -> np.uint64:
    """Spread every bit of a word over all of them (splitmix64's finaliser)."""
    word = (word ^ (word >> S30)) * MIX_1
    word = (word ^ (word >> S27)) * MIX_2
    return word ^ (word >> S31)


@compiled
def hash_row(
    indices: NDArray[Any], data: NDArray[np.uint32], key_hashes: NDArray[np.uint64]
) -> tuple[np.uint64, np.uint64]:
    """Return both halves of a row's hash: the sum of ``mix(key + count * odd)`` over its entries, modulo 2**64."""
    first, second = np.uint64(0), np.uint64(0)
    for k in range(indices.size):
        gene, count = np.uint64(indices[k]), np.uint64(data[k])
        first += mix(key_hashes[gene, 0] + count * GOLDEN)
        second += mix(key_hashes[gene, 1] ^ (count * SECOND))
    return first, second


@compiled
def hash_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[Any],
    key_hashes: NDArray[np.uint64],
    hashes: NDArray[np.uint64],
) -> None:
    """Fill each row's hash, see `hash_row`.

    Parameters
    ----------
    indptr, indices, data
        The rows; counts above zero, each gene once.
    key_hashes
        From `hash_keys`, shape (n_genes, 2).
    hashes
        Filled, uint64, shape (n_rows, 2).
    """
    for row in range(indptr.size - 1):
        entries = slice(indptr[row], indptr[row + 1])
        hashes[row, 0], hashes[row, 1] = hash_row(indices[entries], data[entries], key_hashes)
