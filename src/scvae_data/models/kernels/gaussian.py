"""The normal density of some rows of a batch: means and sparse values in, log-densities or gradients out.

Values of a row are laid out in memory that each row uses again, and so are zeros where it has none.

Common arguments: ``indptr``, ``indices`` and ``data`` are the values, CSR; ``mean`` (n, n_vars); ``log_scale``, the
logs of standard deviations, (1 or n, n_vars); ``measured`` (n, n_vars), or without rows where all genes are; the rows
``first`` to ``last`` are computed.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from scvae_data.models.kernels.elementary import VECTORS, exp, like
from scvae_data.models.kernels.rows import BLOCK, SUMMING, add_at, add_scaled, of_row
from scvae_data.system.jit import compiled

__all__ = ["gaussian_gradients", "gaussian_log_prob"]

HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


@numba.njit(**VECTORS)  # type: ignore[untyped-decorator]
def precisions(log_scale: NDArray[Any], measured: NDArray[np.bool_], inverse: NDArray[Any], has: NDArray[Any]) -> None:
    """Make ``inverse`` the inverses of standard deviations, and ``has`` 1 for measured genes and 0 for others."""
    for j in range(log_scale.size):
        inverse[j] = exp(-log_scale[j])
        has[j] = 1
    for j in range(measured.size):
        has[j] = measured[j]


@numba.njit(**SUMMING)  # type: ignore[untyped-decorator]
def density(
    x: NDArray[Any], mean: NDArray[Any], log_scale: NDArray[Any], inverse: NDArray[Any], has: NDArray[Any]
) -> Any:
    """Log-density of a row."""
    half, constant = like(x[0], 0.5), like(x[0], HALF_LOG_2_PI)
    whole = 0.0
    for start in range(0, x.size, BLOCK):
        stop = start + BLOCK
        value, centre, counted = x[start:stop], mean[start:stop], has[start:stop]
        log_sd, scale = log_scale[start:stop], inverse[start:stop]
        part = like(x[0], 0)
        for j in range(value.size):
            z = (value[j] - centre[j]) * scale[j]
            part -= counted[j] * (half * z * z + log_sd[j] + constant)
        whole += part
    return whole


@numba.njit(**VECTORS)  # type: ignore[untyped-decorator]
def slopes(
    x: NDArray[Any], mean: NDArray[Any], inverse: NDArray[Any], has: NDArray[Any], by_mean: NDArray[Any],
    by_scale: NDArray[Any],
) -> None:  # fmt: skip
    """Derivatives of the log-density of a row by its means and by the logs of its standard deviations."""
    for j in range(x.size):
        z = (x[j] - mean[j]) * inverse[j]
        by_mean[j] = has[j] * z * inverse[j]
        by_scale[j] = has[j] * (z * z - like(z, 1))


@compiled
def gaussian_log_prob(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], data: NDArray[Any], mean: NDArray[Any],
    log_scale: NDArray[Any], measured: NDArray[np.bool_], first: int, last: int, log_prob: NDArray[Any],
) -> None:  # fmt: skip
    """Write the log-densities of cells into ``log_prob``, (n,)."""
    x, inverse, has = np.zeros_like(mean[0]), np.empty_like(mean[0]), np.empty_like(mean[0])
    for i in range(first, last):
        columns = indices[indptr[i] : indptr[i + 1]]
        if i == first or len(log_scale) > 1 or len(measured):
            precisions(of_row(log_scale, i), of_row(measured, i), inverse, has)
        add_at(columns, data[indptr[i] : indptr[i + 1]], x)
        log_prob[i] = density(x, mean[i], of_row(log_scale, i), inverse, has)
        x[columns] = 0


@compiled
def gaussian_gradients(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], data: NDArray[Any], mean: NDArray[Any],
    log_scale: NDArray[Any], measured: NDArray[np.bool_], first: int, last: int, upstream: NDArray[Any],
    of_mean: NDArray[Any], of_log_scale: NDArray[Any],
) -> None:  # fmt: skip
    """Write derivatives times ``upstream``, (n,), into ``of_mean`` and ``of_log_scale``.

    ``of_log_scale`` has a row for each of these cells, or one for their sum.
    """
    x, inverse, has = np.zeros_like(mean[0]), np.empty_like(mean[0]), np.empty_like(mean[0])
    by_scale = np.empty_like(mean[0])
    of_log_scale[:] = 0
    for i in range(first, last):
        columns = indices[indptr[i] : indptr[i + 1]]
        if i == first or len(log_scale) > 1 or len(measured):
            precisions(of_row(log_scale, i), of_row(measured, i), inverse, has)
        add_at(columns, data[indptr[i] : indptr[i + 1]], x)
        slopes(x, mean[i], inverse, has, of_mean[i], by_scale)
        of_mean[i] *= upstream[i]
        add_scaled(by_scale, upstream[i], of_log_scale[(i - first) % len(of_log_scale)])
        x[columns] = 0
