"""Pairs of texts from many tables in; how often each came, and which are new, out.

Tables have tens of thousands of rows, and most of their pairs came before:
as numbers they are compared many at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from scvae_data.processing.genes.texts import NO_TEXT, Numbers, Texts

__all__ = ["PairCounts"]

BITS = 32


class PairCounts:
    """How often pairs of texts came; one of them empty is no pair.

    Parameters
    ----------
    texts
        Numbers of the texts.

    Examples
    --------
    >>> pairs = PairCounts(texts := Texts())
    >>> new = pairs.add(texts.numbers(["B", "A", ""]), texts.numbers(["2", "1", "3"]))
    >>> new = pairs.add(texts.numbers(["A", "A"]), texts.numbers(["1", "2"]), weight=3)
    >>> list(pairs), pairs.of("A", "1"), pairs.of("A", "3")
    ([('B', '2', 1), ('A', '1', 4), ('A', '2', 3)], 4, 0)
    """

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._keys, self._counts = np.empty(0, np.int64), np.empty(0, np.int64)
        self._order: list[NDArray[np.int64]] = []

    def add(self, first: Numbers, second: Numbers, weight: int = 1) -> NDArray[np.int64]:
        """Count the distinct pairs of a table ``weight`` times; return a row of each, sorted by the first texts."""
        rows = np.flatnonzero((first != NO_TEXT) & (second != NO_TEXT))
        keys, places = np.unique(first[rows].astype(np.int64) << BITS | second[rows], return_index=True)
        at = np.asarray(np.searchsorted(self._keys, keys))
        known = at < len(self._keys)
        known[known] = self._keys[at[known]] == keys[known]
        self._counts[at[known]] += weight
        new = ~known
        self._keys = np.insert(self._keys, at[new], keys[new])
        self._counts = np.insert(self._counts, at[new], weight)
        self._order.append(keys[new][np.argsort(places[new])])
        return np.asarray(rows[places])

    def of(self, first: str, second: str) -> int:
        """Return how often a pair came."""
        key = self._texts.number(first) << BITS | self._texts.number(second)
        place = int(np.searchsorted(self._keys, key))
        return int(self._counts[place]) if place < len(self._keys) and self._keys[place] == key else 0

    def arrays(self) -> tuple[Numbers, Numbers, NDArray[np.int64]]:
        """Return the texts of every pair and how often it came, in the order in which they came first."""
        keys = np.concatenate([np.empty(0, np.int64), *self._order])
        counts = self._counts[np.searchsorted(self._keys, keys)]
        return (keys >> BITS).astype(np.int32), (keys & ((1 << BITS) - 1)).astype(np.int32), counts

    def __iter__(self) -> Iterator[tuple[str, str, int]]:
        """Yield every pair and how often it came, in that order."""
        first, second, counts = self.arrays()
        return zip(self._texts.named(first), self._texts.named(second), counts.tolist(), strict=True)
