"""A linear map of sparse rows: rows and weights in, the mapped rows or the gradient of the weights out.

``weight`` is (n_vars, n_hidden): what one element of a row is multiplied with
lies side by side. All rows go through the weights of ``TILE`` bytes before
those of the next, which stay in the cache meanwhile. Columns of a row that do not
ascend are met with a later tile, none twice.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from scvae_data.models.kernels.elementary import VECTORS
from scvae_data.system.jit import ahead_of, compiled

__all__ = ["sparse_linear", "sparse_linear_weight"]

TILE = 1 << 19


@numba.njit(**VECTORS)  # type: ignore[untyped-decorator]
def _add(x: Any, source: NDArray[Any], target: NDArray[Any]) -> None:
    for h in range(target.size):
        target[h] += x * source[h]


@numba.njit(**VECTORS)  # type: ignore[untyped-decorator]
def _add_four(columns: NDArray[np.int32], data: NDArray[Any], weight: NDArray[Any], line: NDArray[Any]) -> None:
    """Four at a time load and store ``line`` once."""
    a, b, c, d = data[0], data[1], data[2], data[3]
    of_a, of_b = weight[np.uint64(columns[0])], weight[np.uint64(columns[1])]
    of_c, of_d = weight[np.uint64(columns[2])], weight[np.uint64(columns[3])]
    for h in range(line.size):
        line[h] += (a * of_a[h] + b * of_b[h]) + (c * of_c[h] + d * of_d[h])


@ahead_of("train", "i8[::1], i4[::1], f4[::1], f4[:, ::1], f4[::1], i8, i8, f4[:, ::1]")
@compiled
def sparse_linear(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], data: NDArray[Any], weight: NDArray[Any],
    bias: NDArray[Any], first: int, last: int, out: NDArray[Any],
) -> None:  # fmt: skip
    """Write rows ``first`` to ``last`` times ``weight`` plus ``bias`` into ``out``, (n, n_hidden)."""
    step = max(1, TILE // (weight.itemsize * weight.shape[1]))
    at = indptr[first:last].copy()
    out[first:last] = bias
    for stop in range(step, len(weight) + step, step):
        for i in range(first, last):
            line, k, end = out[i], at[i - first], indptr[i + 1]
            while k + 4 <= end and indices[k + 3] < stop:
                _add_four(indices[k : k + 4], data[k : k + 4], weight, line)
                k += 4
            while k < end and indices[k] < stop:
                _add(data[k], weight[np.uint64(indices[k])], line)
                k += 1
            at[i - first] = k


@ahead_of("train", "i8[::1], i4[::1], f4[::1], f4[:, ::1], i8, i8, f4[:, ::1]")
@compiled
def sparse_linear_weight(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], data: NDArray[Any], upstream: NDArray[Any],
    first: int, last: int, gradient: NDArray[Any],
) -> None:  # fmt: skip
    """Write the gradient of the weights of the genes ``first`` to ``last``; ``upstream`` is (n, n_hidden)."""
    width = np.uint64(gradient.shape[1])
    step = max(1, TILE // (gradient.itemsize * gradient.shape[1]))
    flat, at = gradient.reshape(-1), indptr[:-1].copy()
    gradient[first:last] = 0
    for stop in range(first + step, last + step, step):
        for i in range(len(at)):
            line, k, end = upstream[i], at[i], indptr[i + 1]
            while k < end and (indices[k] < stop or stop >= last):
                if first <= indices[k] < last:
                    start, x = np.uint64(indices[k]) * width, data[k]
                    # Spelt out, because a slice for each element costs as much as its sums.
                    for h in range(width):
                        flat[start + h] += x * line[h]
                k += 1
            at[i] = k
