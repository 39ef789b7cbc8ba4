"""Genes of two directories in, which gene of one is which of the other out; and one order of the genes of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.store.gene_list import GeneList

__all__ = ["find_names", "join_genes", "some"]

SHOWN = 5  # names listed in a message
NAME, ID, SYMBOL = range(3)
PASSES = (
    (NAME, NAME),
    (ID, ID),
    (NAME, ID),
    (ID, NAME),
    (NAME, SYMBOL),
    (SYMBOL, NAME),
    (SYMBOL, SYMBOL),
)
"""What is compared of the genes of two lists, the surest first."""


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

    Two genes are one if their names are the same, else their ids, else what
    one is called by the symbol of the other and no ids say that they differ.
    Genes of the second list that the first lacks come behind the one they
    follow in theirs, so that lists of one order keep it.

    Returns
    -------
    All genes, and the column in them of each gene of the first and of the second list.
    """
    here = same_genes(genes, others)
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


def same_genes(genes: GeneList, others: GeneList) -> NDArray[np.int64]:
    """The column in ``genes`` of each gene of another list, -1 where it has none; see :func:`join_genes`."""
    mine, its = ([_unique_positions(labels) for labels in (one.names, one.ids, one.symbols)] for one in (genes, others))
    here = np.full(others.n_vars, -1, np.int64)
    taken: set[int] = set()
    for first, second in PASSES:
        for label, position in its[second].items():
            column = mine[first].get(label, -1)
            if column < 0 or position < 0 or column in taken or here[position] >= 0:
                continue
            ids = genes.ids[column], others.ids[position]
            if (first, second) == PASSES[0] or None in ids or ids[0] == ids[1]:
                here[position] = column
                taken.add(column)
    return here


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
