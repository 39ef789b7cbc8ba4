"""The negative binomial of some rows of a batch: logits and sparse counts in, log-densities or gradients out.

With ``e`` the exponentials of a row's logits, ``mean = rate * e`` and
``odds = mean / theta``, a gene without counts has the log-density
``-theta * log1p(odds)``: one exponential and one logarithm a gene. Those with
counts x add ``x * log(mean / (mean + theta)) + lgamma(x + theta) - lgamma(theta) - lgamma(x + 1)``. Extra zeros change
what genes have before that (:mod:`scvae_data.models.kernels.extra_zeros`).

Common arguments: ``indptr``, ``indices`` and ``data`` are the counts, CSR; ``logits`` (n, n_vars);
``log_theta`` (1 or n, n_vars); ``measured`` (n, n_vars), or without rows where all genes are; ``zero_logit``,
logits of the shares of extra zeros, (n, n_vars), or without rows where there are none; the rows ``first`` to ``last``
are computed. ``softmax`` (n, 2) has the largest logit of each row and the sum of the exponentials of the others less
that.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from scvae_data.models.kernels.elementary import VECTORS, like, log1p, log1p_excess, row_max, softplus
from scvae_data.models.kernels.extra_zeros import mark_counts, slopes_with_extra_zeros, with_extra_zeros
from scvae_data.models.kernels.gamma import digamma_rise, log_rise
from scvae_data.models.kernels.rows import (
    BLOCK,
    SUMMING,
    add_at,
    add_scaled,
    dispersions,
    exponentials,
    longest,
    measured_logits,
    of_row,
    taken,
    total,
)
from scvae_data.system.jit import ahead_of, compiled

__all__ = ["nb_gradients", "nb_log_prob"]


@numba.njit(**SUMMING)  # type: ignore[untyped-decorator]
def without_counts(e: NDArray[Any], rate: Any, theta: NDArray[Any], inverse: NDArray[Any]) -> Any:
    """Log-density of a row that has no counts."""
    whole = 0.0
    for start in range(0, e.size, BLOCK):
        mean, shape, scale = e[start : start + BLOCK], theta[start : start + BLOCK], inverse[start : start + BLOCK]
        part = like(e[0], 0)
        for j in range(mean.size):
            part -= shape[j] * log1p(mean[j] * rate * scale[j])
        whole += part
    return whole


@numba.njit(**VECTORS)  # type: ignore[untyped-decorator]
def of_counts(
    data: NDArray[Any], logits: NDArray[Any], offset: float, log_theta: NDArray[Any], theta: NDArray[Any]
) -> None:
    """Make ``logits``, in the order of ``data``, what each count adds; the logs of means are ``logits + offset``."""
    # An offset rounded once would shift all of a row alike: what is rounded is what remains after a whole number.
    whole = np.rint(offset)
    for k in range(data.size):
        x = data[k]
        logit = (logits[k] + like(x, offset - whole)) + (like(x, whole) - log_theta[k])
        logits[k] = x * (logit - softplus(logit)) + (log_rise(theta[k], x) - log_rise(like(x, 1), x))


@numba.njit(**SUMMING)  # type: ignore[untyped-decorator]
def slopes_without_counts(
    e: NDArray[Any], rate: Any, theta: NDArray[Any], inverse: NDArray[Any], by_mean: NDArray[Any],
    by_theta: NDArray[Any],
) -> Any:  # fmt: skip
    """Derivatives of a row that has no counts, by the logs of means and dispersions; returns the sum of the former."""
    whole = 0.0
    for start in range(0, e.size, BLOCK):
        stop = start + BLOCK
        mean, shape, scale = e[start:stop], theta[start:stop], inverse[start:stop]
        slope, other = by_mean[start:stop], by_theta[start:stop]
        part = like(e[0], 0)
        for j in range(mean.size):
            odds = mean[j] * rate * scale[j]
            slope[j] = -shape[j] * (odds / (like(odds, 1) + odds))
            other[j] = -shape[j] * log1p_excess(odds)
            part += slope[j]
        whole += part
    return whole


@numba.njit(**VECTORS)  # type: ignore[untyped-decorator]
def slopes_of_counts(data: NDArray[Any], mean: NDArray[Any], rate: Any, theta: NDArray[Any]) -> None:
    """Make ``mean`` and ``theta``, in the order of ``data``, what counts add to the derivatives by their logs.

    The means are ``rate * mean``.
    """
    for k in range(data.size):
        x, shape = data[k], theta[k]
        slope = x * shape / (shape + mean[k] * rate)
        mean[k] = slope
        theta[k] = shape * digamma_rise(shape, x) - slope


@numba.njit(**VECTORS)  # type: ignore[untyped-decorator]
def by_logits(by_mean: NDArray[Any], e: NDArray[Any], shared: Any, upstream: Any, gradient: NDArray[Any]) -> None:
    """Derivatives by the logits from those by the logs of means; ``shared`` is their sum over that of ``e``."""
    for j in range(e.size):
        gradient[j] = upstream * (by_mean[j] - e[j] * shared)


COMMON = "i8[::1], i4[::1], f4[::1], f4[:, ::1], f4[:, ::1], b1[:, ::1], f4[:, ::1], i8, i8"


@ahead_of("train", f"{COMMON}, f4[::1], f4[:, ::1]")
@compiled
def nb_log_prob(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], data: NDArray[Any], logits: NDArray[Any],
    log_theta: NDArray[Any], measured: NDArray[np.bool_], zero_logit: NDArray[Any], first: int, last: int,
    log_prob: NDArray[Any], softmax: NDArray[Any],
) -> None:  # fmt: skip
    """Write the log-densities of cells into ``log_prob``, (n,), and ``softmax``."""
    e, theta, inverse = np.empty_like(logits[0]), np.empty_like(logits[0]), np.empty_like(logits[0])
    absent = np.ones_like(logits[0])
    more = np.empty((3, longest(indptr, first, last)), logits.dtype)
    for i in range(first, last):
        columns, counts = indices[indptr[i] : indptr[i + 1]], data[indptr[i] : indptr[i + 1]]
        shapes = of_row(log_theta, i)
        if i == first or len(log_theta) > 1:
            dispersions(shapes, theta, inverse)
        row = measured_logits(logits[i], of_row(measured, i), e)
        largest = row_max(row)
        whole = exponentials(row, largest, e)
        rate = max(1.0, total(counts)) / whole
        softmax[i, 0], softmax[i, 1] = largest, whole
        added = taken(logits[i], columns, more[0])
        of_counts(
            counts, added, math.log(rate) - largest, taken(shapes, columns, more[1]), taken(theta, columns, more[2])
        )
        if len(zero_logit):
            mark_counts(columns, counts, absent)
            base = with_extra_zeros(e, like(largest, rate), theta, inverse, zero_logit[i], absent)
            absent[:] = 1
        else:
            base = without_counts(e, like(largest, rate), theta, inverse)
        log_prob[i] = base + total(added)


@ahead_of("train", f"{COMMON}, f4[::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1]")
@compiled
def nb_gradients(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], data: NDArray[Any], logits: NDArray[Any],
    log_theta: NDArray[Any], measured: NDArray[np.bool_], zero_logit: NDArray[Any], first: int, last: int,
    upstream: NDArray[Any], softmax: NDArray[Any], of_logits: NDArray[Any], of_zero_logit: NDArray[Any],
    of_log_theta: NDArray[Any],
) -> None:  # fmt: skip
    """Write derivatives times ``upstream``, (n,), into ``of_logits``, ``of_zero_logit`` and ``of_log_theta``.

    ``of_log_theta`` has a row for each of these cells, or one for the sum of all.
    """
    e, theta, inverse = np.empty_like(logits[0]), np.empty_like(logits[0]), np.empty_like(logits[0])
    by_mean, by_theta = np.empty_like(logits[0]), np.empty_like(logits[0])
    absent = np.ones_like(logits[0])
    more = np.empty((2, longest(indptr, first, last)), logits.dtype)
    of_log_theta[:] = 0
    for i in range(first, last):
        columns, counts = indices[indptr[i] : indptr[i + 1]], data[indptr[i] : indptr[i + 1]]
        if i == first or len(log_theta) > 1:
            dispersions(of_row(log_theta, i), theta, inverse)
        largest, whole = softmax[i]
        row = measured_logits(logits[i], of_row(measured, i), e)
        exponentials(row, largest, e)
        rate = like(largest, max(1.0, total(counts)) / whole)
        if len(zero_logit):
            mark_counts(columns, counts, absent)
            flow = slopes_with_extra_zeros(
                e, rate, theta, inverse, zero_logit[i], absent, by_mean, by_theta, of_zero_logit[i]
            )
            of_zero_logit[i] *= upstream[i]
            absent[:] = 1
        else:
            flow = slopes_without_counts(e, rate, theta, inverse, by_mean, by_theta)
        in_mean, in_theta = taken(e, columns, more[0]), taken(theta, columns, more[1])
        slopes_of_counts(counts, in_mean, rate, in_theta)
        flow += total(in_mean)
        add_at(columns, in_mean, by_mean)
        add_at(columns, in_theta, by_theta)
        by_logits(by_mean, e, like(largest, flow / whole), upstream[i], of_logits[i])
        add_scaled(by_theta, upstream[i], of_log_theta[(i - first) % len(of_log_theta)])
