"""Tables that have ids and symbols in; which of them has the symbols of another table out.

Clones are renamed from one annotation to the next, so that a symbol of the
one is another gene in the other. A table of symbols is best told by one of
its own annotation, which has all of its symbols.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from scvae_data.processing.genes.reference import loose

__all__ = ["Annotations"]

SAME = 0.98
"""Share of a table's symbols that one of its own annotation has: releases that follow each other share less."""
LOOKED_UP = 1024
"""As many symbols of a table stand for all of them: those with the lowest hashes."""
MOST_TABLES = 100


class Annotations:
    """The largest tables that have ids and symbols; memory and time do not grow with their number beyond that."""

    def __init__(self) -> None:
        self._tables: list[tuple[int, str, NDArray[np.int64]]] = []
        self._pairs: dict[str, NDArray[np.int64]] = {}
        self._contents: set[int] = set()

    def add(self, name: str, pairs: Sequence[tuple[str, str]]) -> None:
        """Note a table by its pairs of symbol and id, in order; one that has those of an earlier one says no more."""
        content = hash(tuple(pairs))
        if content in self._contents:
            return
        self._contents.add(content)
        symbols = hashes_of(symbol for symbol, _ in pairs)
        self._tables.append((-len(symbols), name, symbols))
        self._pairs[name] = np.unique(np.fromiter(map(hash_pair, pairs), np.int64))
        self._tables.sort(key=lambda table: table[:2])
        for _, least, _ in self._tables[MOST_TABLES:]:
            del self._pairs[least]
        del self._tables[MOST_TABLES:]

    def same(self, symbols: Iterable[str]) -> list[str]:
        """Return the tables that have most of some symbols, if that is almost all; the largest first."""
        wanted = hashes_of(symbols)[:LOOKED_UP]
        shares = {
            name: float(np.isin(wanted, known[: np.searchsorted(known, wanted[-1], "right")]).mean())
            for _, name, known in (self._tables if len(wanted) else ())
        }
        best = max(shares.values(), default=0.0)
        return [name for name, share in shares.items() if share == best] if best >= SAME else []

    def agree(self, names: Iterable[str], symbol: str, ids: Iterable[str]) -> bool:
        """Whether tables all have some ids beside a symbol."""
        pairs = np.fromiter((hash_pair((symbol, gene_id)) for gene_id in ids), np.int64)
        return all(has_all(self._pairs[name], pairs) for name in names)


def has_all(known: NDArray[np.int64], wanted: NDArray[np.int64]) -> bool:
    """Whether sorted hashes hold some, of which there are few."""
    places = np.searchsorted(known, wanted)
    return bool((places < len(known)).all() and (known[places] == wanted).all())


def hashes_of(symbols: Iterable[str]) -> NDArray[np.int64]:
    """Return sorted hashes of symbols in any writing; they hold for this process."""
    return np.unique(np.fromiter((hash(loose(symbol)) for symbol in symbols), np.int64))


def hash_pair(pair: tuple[str, str]) -> int:
    """Hash a symbol in any writing and an id."""
    return hash((loose(pair[0]), pair[1]))
