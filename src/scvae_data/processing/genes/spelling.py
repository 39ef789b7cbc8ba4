"""Genes that no reference knows, as each table calls them, in; those that are one but for their spelling out.

Programs turn dashes into dots, underscores into dashes, and change case: a
transgene, or a gene of another annotation, is spelled in as many ways as it
has been through programs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scvae_data.processing.genes.reference import loose

__all__ = ["one_spelling"]


def one_spelling(
    names: Sequence[str],
    maps: Mapping[str, NDArray[np.int32]],
    n_files: Mapping[str, int],
    species: Mapping[str, Sequence[str]],
    is_id: NDArray[np.bool_],
) -> dict[int, int]:
    """Return which genes are another one, spelled otherwise: both by their place among all names.

    Two genes that one table has beside each other, and genes of tables of
    different species, stay two. The spelling that is an id goes before the
    others, then the one that most files have.

    Parameters
    ----------
    names
        What each gene is called, empty for those whose name is known or may stand for several.
    maps, n_files, species
        Per table the gene of each row, how many files have it, and of which species it is.
    is_id
        Which genes are called by an id.

    Examples
    --------
    >>> maps, n_files = {"a": np.array([0, 1]), "b": np.array([2])}, {"a": 2, "b": 1}
    >>> one_spelling(["my-gene", "", "MY_GENE"], maps, n_files, {}, is_id=np.zeros(3, bool))
    {2: 0}
    """
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for gene, name in enumerate(names):
        if name:
            groups[loose(name)].append(gene)
    several = {number: genes for number, genes in enumerate(groups.values()) if len(genes) > 1}
    if not several:
        return {}
    group = np.full(len(names), -1, np.int32)
    for number, genes in several.items():
        group[genes] = number
    times = np.zeros(len(names), np.int64)
    of_species: defaultdict[int, set[tuple[str, ...]]] = defaultdict(set)
    for table, rows in maps.items():
        there = np.unique(rows[group[rows] >= 0])
        times[there] += n_files[table]
        numbers, beside = np.unique(group[there], return_counts=True)
        for number in numbers[beside > 1].tolist():
            several.pop(number, None)
        for number in numbers.tolist() if species.get(table) else ():
            of_species[number].add(tuple(species[table]))
    found: dict[int, int] = {}
    for number, genes in several.items():
        if len(of_species[number]) < 2:
            first = min(genes, key=lambda gene: (not is_id[gene], -times[gene], names[gene]))
            found |= {gene: first for gene in genes if gene != first}
    return found
