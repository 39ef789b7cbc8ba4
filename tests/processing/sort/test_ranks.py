from __future__ import annotations

import numpy as np
import pytest

from scvae_data.processing.sort.ranks import keys_at, ranks_of


@pytest.mark.parametrize("largest", [3, 1_000, 2**64 - 1])
def test_keys_are_those_of_the_joined_lists(largest: int) -> None:
    rng = np.random.default_rng(largest % 97)
    lists = [np.sort(rng.integers(0, largest, n, np.uint64, endpoint=True)) for n in (0, 1, 50, 200)]
    joined = np.sort(np.concatenate(lists))
    ranks = np.arange(0, len(joined), 7)
    np.testing.assert_array_equal(keys_at(lists, ranks), joined[ranks])
    np.testing.assert_array_equal(ranks_of(lists, joined), np.searchsorted(joined, joined))


def test_no_key_has_no_rank() -> None:
    assert keys_at([np.empty(0, np.uint64)], np.arange(0)).tolist() == []
