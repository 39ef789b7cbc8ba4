"""Names or numbers of genes in, the column of every gene of the directory out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError, SelectionError
from scvae_data.store import CellIndex, GeneList
from scvae_data.wording import did_you_mean, named, similar

__all__ = ["GeneColumns", "as_genes", "find_genes", "gene_columns"]


class GeneColumns(NamedTuple):
    """A choice of genes."""

    chosen: NDArray[np.int64]
    """Columns of the directory, in the order of the batch's columns, (n_columns,)."""
    place: NDArray[np.int32]
    """Column of the batch for every gene of the directory, ``n_columns`` for none, (n_vars,)."""


def as_genes(genes: Sequence[str] | Sequence[int] | None) -> tuple[str | int, ...] | None:
    """Check what can be checked without a directory: all names or all numbers, each once."""
    if genes is None:
        return None
    if isinstance(genes, str):
        raise ConfigError(f"genes={genes!r} must be a list of names or column numbers; write [{genes}]")
    given: tuple[str | int, ...] = tuple(gene.item() if isinstance(gene, np.generic) else gene for gene in genes)
    kinds = {type(gene) for gene in given}
    if kinds not in ({str}, {int}):
        raise ConfigError(f"genes must be all names or all column numbers, and at least one; got {named(given)}")
    if len(set(given)) < len(given):
        twice = next(gene for gene in given if given.count(gene) > 1)
        raise ConfigError(f"genes names {twice!r} twice; give each gene once")
    return given


def find_genes(index: CellIndex, genes: Sequence[str | int]) -> GeneColumns:
    """Find genes of a directory by name, id, or column number.

    Raises
    ------
    SelectionError
        If a gene is not there, or two of those given are the same one.
    """
    chosen = gene_columns(index.genes, genes, index.where)
    place = np.full(index.n_vars, chosen.size, np.int32)
    place[chosen] = np.arange(chosen.size)
    return GeneColumns(chosen, place)


def gene_columns(lists: GeneList, genes: Sequence[str | int], where: str) -> NDArray[np.int64]:
    """Columns of genes given by name, id, symbol, or column number; ``where`` the list is, for errors.

    Raises
    ------
    SelectionError
        If a gene is not there, or two of those given are the same one.
    """
    n_vars = lists.n_vars
    columns: dict[object, int] = {}
    if isinstance(genes[0], str):
        for known in (lists.symbols, lists.ids, lists.names):
            # A symbol may stand for several genes; the first is meant. Names, which are unique, come last and win.
            columns.update({str(name): column for column, name in reversed(list(enumerate(known))) if name})
    else:
        columns = {column: column for column in range(n_vars)}
    if unknown := [gene for gene in genes if gene not in columns]:
        hint = did_you_mean(similar(str(unknown[0]), map(str, columns)), f"it has {n_vars} genes")
        raise SelectionError(f"genes {named(unknown)} not in {where}; {hint}")
    chosen = np.array([columns[gene] for gene in genes], np.int64)
    if np.unique(chosen).size < chosen.size:
        raise SelectionError(f"genes names one gene of {where} in two ways; give each gene once")
    return chosen
