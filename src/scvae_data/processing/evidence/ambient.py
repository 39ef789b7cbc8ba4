"""Counts of genes in cells and in empty droplets in; the largest share of the cells' counts that may be ambient out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["ambient_share"]

LEAST_UMIS = 1000
"""Fewer counts in empty droplets are no profile."""
LEVEL = 0.1
STEPS = 30


def ambient_share(in_cells: NDArray[np.int64], in_empty: NDArray[np.int64]) -> float | None:
    """Return the largest share of the counts of cells that empty droplets explain.

    As ``DropletUtils::ambientContribMaximum`` does, the profile of empty
    droplets is scaled up until, by Simes' test over all genes, cells have too
    few counts of some gene. Droplets are counted as well, so a gene's counts
    are compared by the exact conditional test of two Poisson rates
    (Przyborowski and Wilenski 1940). It is an upper bound: where cells are
    like their average, it says little.

    Parameters
    ----------
    in_cells, in_empty
        Counts of each gene, the same genes.
    """
    genes = in_empty > 0
    cells, empty = in_cells[genes], in_empty[genes]
    n_cells, n_empty = int(in_cells.sum()), int(in_empty.sum())
    if n_empty < LEAST_UMIS or not n_cells:
        return None
    from scipy.special import betainc  # here: few runs have empty droplets, and all would wait for it

    ranks = np.arange(1, len(cells) + 1) / len(cells)
    low, high = 0.0, n_cells / n_empty
    for _ in range(STEPS):
        scale = (low + high) / 2
        # That of the binomial distribution, which scipy.stats takes as long to import as a small run takes.
        too_few = np.sort(betainc(empty, cells + 1, 1 / (1 + scale)))
        if (too_few <= LEVEL * ranks).any():
            high = scale
        else:
            low = scale
    return min(low * n_empty / n_cells, 1.0)
