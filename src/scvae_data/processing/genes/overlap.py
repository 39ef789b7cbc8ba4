"""The distinct gene tables of a corpus in, the genes that each two of them share out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from scvae_data.processing.facts import InputFacts
from scvae_data.processing.genes.universe import Universe
from scvae_data.wording import counted

__all__ = ["Overlap", "compared_tables", "kind_of_names", "least_shared", "overlaps"]

MAX_TABLES = 300
MOST_NAMED = 5
NOTHING_SHARED = 0.01


@dataclass(frozen=True)
class Overlap:
    """Genes that two distinct gene tables share.

    Parameters
    ----------
    first, second
        A file with each.
    shared
        Genes in both.
    share
        Of the genes of the smaller table.
    why
        What explains that hardly any is shared, if it can be told.
    """

    first: str
    second: str
    shared: int
    share: float
    why: str = ""

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{100 * self.share:5.1f} %  {self.first}, {self.second} ({counted(self.shared, 'gene')})"


def kind_of_names(columns: Collection[str]) -> str:
    """Return whether a table, by its columns, has ids alone, symbols alone, or both."""
    if "ids" not in columns:
        return "symbols"
    return "both" if "symbols" in columns else "ids"


def why_apart(species: tuple[Sequence[str], Sequence[str]], kinds: tuple[str, str]) -> str:
    """Say why two gene tables can hardly share a gene; empty if their names do not tell."""
    if all(species) and not set(species[0]) & set(species[1]):
        return " against ".join(sorted(" and ".join(names) for names in species))
    return "ids against symbols" if set(kinds) == {"ids", "symbols"} else ""


def compared_tables(files: Sequence[InputFacts]) -> list[str]:
    """Return the gene tables of which each two are compared: those that most files have."""
    example: dict[str, str] = {}
    for file in files:
        example.setdefault(file.slot.table, file.source_file)
    used = Counter(file.slot.table for file in files)
    return sorted(used, key=lambda table: (-used[table], example[table]))[:MAX_TABLES]


def overlaps(files: Sequence[InputFacts], universe: Universe, kinds: Mapping[str, str]) -> list[Overlap]:
    """Return the genes that each pair of `compared_tables` shares, least first.

    Parameters
    ----------
    kinds
        Of each of these tables, see `kind_of_names`.
    """
    example: dict[str, str] = {}
    species: dict[str, Sequence[str]] = {}
    for file in files:
        example.setdefault(file.slot.table, file.source_file)
        species[file.slot.table] = file.slot.species
    names = compared_tables(files)
    held = np.zeros((len(names), len(universe.keys)), np.float32)
    for row, name in enumerate(names):
        genes = universe.maps[name]
        held[row, genes[genes >= 0]] = 1
    shared = (held @ held.T).astype(np.int64)
    sizes = shared.diagonal()
    found = [
        Overlap(
            example[one],
            example[other],
            int(shared[i, j]),
            float(shared[i, j] / min(sizes[i], sizes[j])),
            why_apart((species[one], species[other]), (kinds[one], kinds[other])),
        )
        for (i, one), (j, other) in combinations(enumerate(names), 2)
    ]
    return sorted(found, key=lambda overlap: (overlap.share, overlap.first, overlap.second))


def least_shared(overlaps: Sequence[Overlap]) -> list[str]:
    """Return a line for each cause of pairs that share next to nothing, then the least shared of the others."""
    causes: dict[str, list[Overlap]] = {}
    others: list[Overlap] = []
    for overlap in overlaps:
        known = overlap.why and overlap.share < NOTHING_SHARED
        (causes.setdefault(overlap.why, []) if known else others).append(overlap)
    lines = []
    for why, pairs in causes.items():
        example = f"e.g. {pairs[0].first}, {pairs[0].second}"
        lines.append(f"{100 * pairs[-1].share:5.1f} %  {counted(len(pairs), 'pair')} of lists: {why}, {example}")
    return lines + [str(overlap) for overlap in others[:MOST_NAMED]]
