"""The columns of a directory: which gene of the inputs each one is, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.processing.genes.names import gene_class_flags
from scvae_data.processing.genes.universe import Universe
from scvae_data.processing.settings.gene_classes import GENE_CLASSES

__all__ = ["Columns", "var_table"]


@dataclass(frozen=True)
class Columns:
    """Genes in column order.

    Parameters
    ----------
    positions
        Place of each column's gene in the universe, -1 where no file has it; int64, (n_vars,).
    names, symbols, ids
        As in `GeneList`, unknown ones empty; (n_vars,).
    """

    positions: NDArray[np.int64]
    names: NDArray[np.object_]
    symbols: NDArray[np.object_]
    ids: NDArray[np.object_]

    @classmethod
    def of(cls, universe: Universe, kept: NDArray[np.bool_]) -> Columns:
        """Return the kept genes in the order of the universe."""
        positions = np.flatnonzero(kept).astype(np.int64)
        return cls(positions, universe.keys[kept], universe.symbols[kept], universe.ids[kept])

    @property
    def n_vars(self) -> int:
        """Number of columns."""
        return len(self.positions)

    @property
    def missing(self) -> NDArray[np.object_]:
        """Names of the columns that no file has."""
        return self.names[self.positions < 0]

    def kept(self, n_genes: int) -> NDArray[np.bool_]:
        """Return which of the universe's genes have a column."""
        return self.gene_map(n_genes) >= 0

    def gene_map(self, n_genes: int) -> NDArray[np.int32]:
        """Return the column of each of the universe's genes, -1 for those without."""
        found = self.positions >= 0
        column = np.full(n_genes, -1, np.int32)
        column[self.positions[found]] = np.flatnonzero(found)
        return column

    def measured(self, genes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Return which columns a file measures that has these genes of the universe."""
        n_genes = int(max(genes.max(initial=-1), self.positions.max(initial=-1))) + 1
        has = np.zeros(n_genes + 1, bool)  # position -1 reads the last one, which stays False
        has[genes[genes >= 0]] = True
        return has[self.positions]


def var_table(columns: Columns, universe: Universe) -> pd.DataFrame:
    """Return the var of every chunk: id, symbol and gene classes by column."""
    flags, found = np.empty(columns.n_vars, np.uint32), columns.positions >= 0
    flags[found] = universe.flags[columns.positions[found]]
    flags[~found] = gene_class_flags(columns.symbols[~found], columns.names[~found])
    var: dict[str, Any] = {"gene_id": columns.ids, "gene_symbol": columns.symbols}
    for bit, gene_class in enumerate(GENE_CLASSES):
        var[gene_class.name] = (flags & (1 << bit)) > 0
    return pd.DataFrame(var, index=pd.Index(columns.names, dtype=object))
