"""Sorted lists of keys in, the keys at given ranks of all of them together out: nothing is joined, or sorted again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["keys_at", "ranks_of"]


def keys_at(lists: Sequence[NDArray[np.uint64]], ranks: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the keys at some ranks, all of them halving their distance at once; uint64, shape (n_ranks,).

    Parameters
    ----------
    lists
        Sorted keys, memory-mapped or not.
    ranks
        From 0 to below the number of all keys.

    Examples
    --------
    >>> lists = [np.array([1, 4, 9], np.uint64), np.array([2, 4], np.uint64)]
    >>> keys_at(lists, np.arange(5)).tolist()
    [1, 2, 4, 4, 9]
    """
    filled = [keys for keys in lists if len(keys)]
    low = np.full(len(ranks), min((keys[0] for keys in filled), default=0), np.uint64)
    high = np.full(len(ranks), max((keys[-1] for keys in filled), default=0), np.uint64)
    while (low < high).any():
        middle = low + ((high - low) >> np.uint64(1))
        reached = ranks_of(filled, middle, including=True) > ranks
        low, high = np.where(reached, low, middle + np.uint64(1)), np.where(reached, middle, high)
    return low


def ranks_of(
    lists: Sequence[NDArray[np.uint64]], keys: NDArray[np.uint64], *, including: bool = False
) -> NDArray[np.int64]:
    """Return how many of all keys are below each of some, or at it as well; int64, shape (n_keys,)."""
    side: Literal["left", "right"] = "right" if including else "left"
    found = np.zeros(len(keys), np.int64)
    for one in lists:
        found += np.searchsorted(one, keys, side=side)
    return found
