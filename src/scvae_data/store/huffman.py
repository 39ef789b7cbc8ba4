"""How often symbols occur in, the lengths and the bits of their codes out, as deflate (RFC 1951) defines them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scvae_data.system.jit import compiled

__all__ = ["LONGEST_CODE", "code_lengths", "codes_of", "is_complete"]

LONGEST_CODE = 15


@compiled
def code_lengths(counts: NDArray[np.int64], longest: int) -> NDArray[np.int64]:
    """Return the bits of each symbol's code, 0 for one that does not occur; two or more must occur.

    Together the codes are about as short as they can be where none has more
    than ``longest`` bits: rare symbols count for more until none has.
    """
    # Rare symbols first; from the last one on, since in most tables high ones are rare. Equal counts leave no choice.
    by_count = np.empty(counts.size, np.int64)
    n_leaves, total = 0, 0
    for symbol in range(counts.size - 1, -1, -1):
        if counts[symbol]:
            place = n_leaves
            while place and counts[by_count[place - 1]] > counts[symbol]:
                by_count[place] = by_count[place - 1]
                place -= 1
            by_count[place] = symbol
            n_leaves += 1
            total += counts[symbol]
    root = 2 * n_leaves - 2
    weight, parent, depth = np.empty(root + 1, np.int64), np.empty(root + 1, np.int64), np.empty(root + 1, np.int64)
    least = total >> (longest + 2)
    while True:
        for leaf in range(n_leaves):
            weight[leaf] = max(counts[by_count[leaf]], least)
        leaf, inner = 0, n_leaves  # the lightest of either kind that has no parent yet
        for node in range(n_leaves, root + 1):
            weight[node] = 0
            for _ in range(2):
                if inner == node or (leaf < n_leaves and weight[leaf] <= weight[inner]):
                    child, leaf = leaf, leaf + 1
                else:
                    child, inner = inner, inner + 1
                parent[child] = node
                weight[node] += weight[child]
        depth[root] = 0
        for node in range(root - 1, -1, -1):
            depth[node] = depth[parent[node]] + 1
        if depth[0] <= longest:
            break
        least += least // 4 + 1
    lengths = np.zeros(counts.size, np.int64)
    for leaf in range(n_leaves):
        lengths[by_count[leaf]] = depth[leaf]
    return lengths


@compiled
def codes_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the code of each symbol, its first bit lowest; 0 where the length is 0."""
    n_of = np.zeros(LONGEST_CODE + 1, np.int64)
    for length in lengths:
        n_of[length] += 1
    n_of[0] = 0
    following = np.zeros(LONGEST_CODE + 1, np.int64)
    for length in range(1, LONGEST_CODE + 1):
        following[length] = (following[length - 1] + n_of[length - 1]) << 1
    codes = np.zeros(lengths.size, np.int64)
    for symbol in range(lengths.size):
        rest = following[lengths[symbol]]
        following[lengths[symbol]] += 1
        for _ in range(lengths[symbol]):
            codes[symbol] = codes[symbol] << 1 | rest & 1
            rest >>= 1
    return codes


@compiled
def is_complete(lengths: NDArray[np.int64]) -> bool:
    """Whether any bits begin with exactly one of the codes."""
    share = 0
    for length in lengths:
        if length:
            share += 1 << (LONGEST_CODE - length)
    return bool(share == 1 << LONGEST_CODE)
