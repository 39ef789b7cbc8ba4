"""Equal rows have equal hashes, whatever the genes' order and the other genes; and the kernel equals NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from scvae_data.processing.genes.universe import hash_keys
from scvae_data.processing.scan.cell_hash import GOLDEN, MIX_1, MIX_2, SECOND, hash_rows

KEYS = [f"ENSG{n:011d}" for n in range(40)]


def hashes_of(dense: np.ndarray, keys: list[str]) -> np.ndarray:
    rows, columns = np.nonzero(dense)
    starts = np.searchsorted(rows, np.arange(len(dense) + 1))
    out = np.zeros((len(dense), 2), np.uint64)
    hash_rows(starts, columns.astype(np.uint16), dense[rows, columns].astype(np.uint32), hash_keys(keys), out)
    return out


def mix(words: np.ndarray) -> np.ndarray:
    words = (words ^ (words >> np.uint64(30))) * MIX_1
    words = (words ^ (words >> np.uint64(27))) * MIX_2
    return words ^ (words >> np.uint64(31))


@pytest.fixture
def dense() -> np.ndarray:
    return np.random.default_rng(0).poisson(0.5, (30, len(KEYS))) * np.array([1, 70_000] * 20)


def test_the_kernel_equals_numpy(dense: np.ndarray) -> None:
    keys, counts = hash_keys(KEYS), dense.astype(np.uint64)
    present = dense > 0
    halves = [mix(keys[:, 0] + counts * GOLDEN), mix(keys[:, 1] ^ (counts * SECOND))]
    expected = np.column_stack([np.where(present, half, np.uint64(0)).sum(axis=1, dtype=np.uint64) for half in halves])
    np.testing.assert_array_equal(hashes_of(dense, KEYS), expected)


def test_order_of_genes_and_genes_without_counts_do_not_matter(dense: np.ndarray) -> None:
    order = np.random.default_rng(1).permutation(len(KEYS))
    wider = np.concatenate([np.zeros((30, 7), int), dense[:, order]], axis=1)
    keys = [f"other{n}" for n in range(7)] + [KEYS[n] for n in order]
    np.testing.assert_array_equal(hashes_of(wider, keys), hashes_of(dense, KEYS))


def test_any_difference_changes_both_halves(dense: np.ndarray) -> None:
    base = hashes_of(dense, KEYS)
    changed = dense.copy()
    changed[:, 0] += 1
    swapped = dense.copy()
    swapped[:, [1, 3]] = dense[:, [3, 1]]
    assert (hashes_of(changed, KEYS) != base).all()
    differ = dense[:, 1] != dense[:, 3]
    assert differ.any()
    assert (hashes_of(swapped, KEYS)[differ] != base[differ]).all()
