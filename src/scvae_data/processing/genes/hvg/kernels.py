"""Sums over the rows of a run per gene and batch, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.system.jit import compiled

__all__ = ["sum_clipped", "sum_values"]


@compiled
def sum_values(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    values: NDArray[Any],
    batch: NDArray[np.int64],
    gene_map: NDArray[np.int32],
    sums: NDArray[Any],
    squares: NDArray[np.float64],
) -> None:
    """Add each row's counts, or normalised values, and their squares to its batch; batch -1 leaves a row out.

    The square of a normalised value is rounded to float32, as scanpy's are.
    Those of counts are whole numbers in float64: exact up to 2**53, where
    int64 would wrap for the largest counts.
    """
    for row in range(indptr.size - 1):
        group = batch[row]
        if group < 0:
            continue
        for k in range(indptr[row], indptr[row + 1]):
            gene = gene_map[indices[k]]
            if gene >= 0:
                sums[group, gene] += values[k]
                squares[group, gene] += np.float64(values[k] * values[k])


@compiled
def sum_clipped(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[Any],
    batch: NDArray[np.int64],
    gene_map: NDArray[np.int32],
    limits: NDArray[np.float64],
    numbers: NDArray[np.int64],
    sums: NDArray[np.int64],
    squares: NDArray[np.float64],
) -> None:
    """Add the counts above their batch's limit for the gene: how many, their sum, their sum of squares."""
    for row in range(indptr.size - 1):
        group = batch[row]
        if group < 0:
            continue
        for k in range(indptr[row], indptr[row + 1]):
            gene = gene_map[indices[k]]
            if gene >= 0:
                value = np.float64(data[k])
                if value > limits[group, gene]:
                    numbers[group, gene] += 1
                    sums[group, gene] += np.int64(data[k])
                    squares[group, gene] += value * value
