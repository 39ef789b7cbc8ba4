"""Genes of two directories in, which gene of one is which of the other out; and one order of the genes of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.store.gene_list import GeneList

__all__ = ["find_names", "join_genes", "some"]

SHOWN = 5  # names listed in a message


def find_names(wanted: Sequence[str], genes: GeneList) -> NDArray[np.int64]:
    """Find genes among those of a directory: by its names, else its ids, else its symbols.

    An id or a symbol that several columns have finds none of them: which one
    is meant is not known.

    Parameters
    ----------
    wanted
        Names of genes.
    genes
        Of the directory.

    Returns
    -------
    Column of each wanted gene, -1 where there is none, no column twice; (n_wanted,).
    """
    columns = np.full(len(wanted), -1, dtype=np.int64)
    taken: set[int] = set()
    for labels in (genes.names, genes.ids, genes.symbols):
        found = _unique_positions(labels)
        for position in np.flatnonzero(columns < 0).tolist():
            column = found.get(wanted[position], -1)
            if column >= 0 and column not in taken:
                columns[position] = column
                taken.add(column)
    return columns


def join_genes(genes: GeneList, others: GeneList) -> tuple[GeneList, NDArray[np.int64], NDArray[np.int64]]:
    """Put the genes of two directories into one order.

    A gene is found by its name, else its id, else its symbol, whichever of the
    two lists has them. Those of the second list that the first lacks come
    behind the gene they follow in theirs, so that lists of one order keep it.

    Returns
    -------
    All genes, and the column in them of each gene of the first and of the second list.
    """
    here = find_names(others.names.tolist(), genes)
    back = find_names(genes.names.tolist(), others)
    known = set(here.tolist())
    for column, other in enumerate(back.tolist()):
        if other >= 0 and here[other] < 0 and column not in known:
            here[other] = column
    added = np.flatnonzero(here < 0)
    behind = _last_known(here)[added]
    order = np.lexsort((np.arange(genes.n_vars + added.size), np.concatenate([np.arange(genes.n_vars), behind])))
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size)
    columns = [
        np.concatenate([mine, theirs[added]])[order]
        for mine, theirs in (
            (genes.names, others.names),
            (genes.ids, others.ids),
            (genes.symbols, others.symbols),
        )
    ]
    of_others = here.copy()
    of_others[added] = genes.n_vars + np.arange(added.size)
    return GeneList.of(*(column.tolist() for column in columns)), place[: genes.n_vars], place[of_others]


def some(names: Sequence[Any] | NDArray[Any]) -> str:
    """The first few names, and whether there are more."""
    return ", ".join(map(str, names[:SHOWN])) + (", …" if len(names) > SHOWN else "")


def _last_known(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each entry the last one up to it that is not -1; -1 before the first."""
    last = np.where(places >= 0, np.arange(places.size), -1)
    last = np.maximum.accumulate(last)
    return np.where(last >= 0, places[last], -1)


def _unique_positions(labels: NDArray[np.object_]) -> dict[str, int]:
    """Position of each label that occurs once."""
    positions: dict[str, int] = {}
    for position, label in enumerate(labels):
        if label is not None:
            positions[str(label)] = -1 if str(label) in positions else position
    return positions
