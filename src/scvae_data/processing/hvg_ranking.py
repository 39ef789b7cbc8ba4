"""The numbers of all batches in, one after the other; the highly variable genes out.

Genes are in alphabetical order, which settles ties as in scanpy (1.11).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.processing.hvg import HvgRules

__all__ = ["DispersionRanking", "RunningMean", "VarianceRanking"]


class DispersionRanking:
    """Combine the batches of `dispersions`, one at a time, in memory for one.

    Parameters
    ----------
    n_genes
        Number of genes that are ranked.
    """

    def __init__(self, rules: HvgRules, n_genes: int) -> None:
        self.rules = rules
        self._means = {name: RunningMean(n_genes) for name in ("means", "dispersions", "dispersions_norm")}
        self._n_batches = np.zeros(n_genes, np.int64)
        self._chosen = np.zeros(n_genes, bool)

    def add(self, batch: dict[str, NDArray[np.float64]]) -> None:
        """Add a batch."""
        for name, mean in self._means.items():
            mean.add(batch[name])
        self._chosen = batch["highly_variable"] > 0
        self._n_batches += self._chosen

    def result(self) -> pd.DataFrame:
        """Return means over the batches, and ``highly_variable``, per gene."""
        table = pd.DataFrame({name: mean.value() for name, mean in self._means.items()})
        if self.rules.batch_key is None:
            table["highly_variable"] = self._chosen
            return table
        table["highly_variable_nbatches"] = self._n_batches
        return top(table, ["highly_variable_nbatches", "dispersions_norm"], [False, False], self.rules.n_top_genes)


class RunningMean:
    """Mean per gene over values that come one array at a time; NaN is left out.

    Summed with compensation, as pandas sums groups: the order of genes with
    almost equal means hangs on the last bits.
    """

    def __init__(self, n_genes: int) -> None:
        self._sum, self._lost, self._n = np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes, np.int64)

    def add(self, values: NDArray[np.float64]) -> None:
        """Add one value per gene."""
        valid = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            added = values - self._lost
            total = self._sum + added
            lost = total - self._sum - added
        self._lost = np.where(valid, np.where(np.isnan(lost), 0.0, lost), self._lost)
        self._sum = np.where(valid, total, self._sum)
        self._n += valid

    def value(self) -> NDArray[np.float64]:
        """Return the means; NaN for a gene without a value."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self._sum / self._n)


class VarianceRanking:
    """Combine the batches of ``seurat_v3``, one at a time; memory for ``n_top_genes`` ranks of each."""

    def __init__(self, rules: HvgRules, n_genes: int) -> None:
        self.rules = rules
        self._genes: list[NDArray[np.int64]] = []
        self._ranks: list[NDArray[np.int64]] = []
        self._sum = np.zeros(n_genes)

    def add(self, variances: NDArray[np.float64]) -> None:
        """Add a batch's normalised variances."""
        # NumPy's default sort, as in scanpy: it settles which of several equal genes comes first.
        rank = np.argsort(np.argsort(-variances))
        genes = np.flatnonzero(rank < self.rules.n_top_genes)
        self._genes.append(genes)
        self._ranks.append(rank[genes])
        self._sum += variances

    def result(self) -> pd.DataFrame:
        """Return the median rank, number of batches and mean normalised variance, and ``highly_variable``, per gene."""
        genes, ranks = np.concatenate(self._genes), np.concatenate(self._ranks)
        ranks = ranks[np.lexsort((ranks, genes))]
        n_batches = np.bincount(genes, minlength=len(self._sum))
        first = np.cumsum(n_batches) - n_batches
        median = np.full(len(self._sum), np.nan)
        ranked = n_batches > 0
        low, high = first + (n_batches - 1) // 2, first + n_batches // 2
        median[ranked] = (ranks[low[ranked]] + ranks[high[ranked]]) / 2
        table = pd.DataFrame(
            {
                "variances_norm": self._sum / len(self._genes),
                "highly_variable_rank": median,
                "highly_variable_nbatches": n_batches,
            }
        )
        table = top(table, ["highly_variable_rank", "highly_variable_nbatches"], [True, False], self.rules.n_top_genes)
        return table if self.rules.batch_key is not None else table.drop(columns="highly_variable_nbatches")


def top(table: pd.DataFrame, columns: list[str], ascending: list[bool], n: int) -> pd.DataFrame:
    """Mark the first ``n`` genes in the order of some columns; ties keep the table's order, NaN is last."""
    best = table[columns].sort_values(columns, ascending=ascending, na_position="last").index[:n]
    return table.assign(highly_variable=table.index.isin(best))
