"""A row of negative binomials of which some zeros are extra: what genes have before their counts are known, in nats.

With ``l`` the logit of the share of extra zeros and ``a = theta * log1p(odds)``, the negative log-density of a zero
without them, a zero has ``log((exp(l) + exp(-a)) / (1 + exp(l))) = softplus(l + a) - softplus(l) - a``, and a gene
with counts ``-softplus(l) - a`` beside what its counts add. ``absent`` is 1 for genes without counts, 0 for others.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from scvae_data.models.kernels.elementary import VECTORS, exp, like, log1p, log1p_excess, softplus
from scvae_data.models.kernels.rows import BLOCK, SUMMING

__all__ = ["mark_counts", "slopes_with_extra_zeros", "with_extra_zeros"]


@numba.njit(**VECTORS)  # type: ignore[untyped-decorator]
def mark_counts(columns: NDArray[np.int32], counts: NDArray[Any], absent: NDArray[Any]) -> None:
    """Make ``absent`` zero where there are counts."""
    for k in range(columns.size):
        absent[np.uint64(columns[k])] = 0 if counts[k] > 0 else 1


@numba.njit(**SUMMING)  # type: ignore[untyped-decorator]
def with_extra_zeros(
    e: NDArray[Any], rate: Any, theta: NDArray[Any], inverse: NDArray[Any], zero_logit: NDArray[Any],
    absent: NDArray[Any],
) -> Any:  # fmt: skip
    """Log-density of a row, less what its counts add."""
    whole = 0.0
    for start in range(0, e.size, BLOCK):
        stop = start + BLOCK
        mean, shape, scale = e[start:stop], theta[start:stop], inverse[start:stop]
        logit, zero = zero_logit[start:stop], absent[start:stop]
        part = like(e[0], 0)
        for j in range(mean.size):
            rarity = shape[j] * log1p(mean[j] * rate * scale[j])
            part += zero[j] * softplus(logit[j] + rarity) - softplus(logit[j]) - rarity
        whole += part
    return whole


@numba.njit(**SUMMING)  # type: ignore[untyped-decorator]
def slopes_with_extra_zeros(
    e: NDArray[Any], rate: Any, theta: NDArray[Any], inverse: NDArray[Any], zero_logit: NDArray[Any],
    absent: NDArray[Any], by_mean: NDArray[Any], by_theta: NDArray[Any], by_zero_logit: NDArray[Any],
) -> Any:  # fmt: skip
    """Its derivatives by the logs of means and dispersions and by ``zero_logit``; returns the sum of the first."""
    one = like(e[0], 1)
    whole = 0.0
    for start in range(0, e.size, BLOCK):
        stop = start + BLOCK
        mean, shape, scale = e[start:stop], theta[start:stop], inverse[start:stop]
        logit, zero = zero_logit[start:stop], absent[start:stop]
        slope, other, extra = by_mean[start:stop], by_theta[start:stop], by_zero_logit[start:stop]
        part = like(e[0], 0)
        for j in range(mean.size):
            odds = mean[j] * rate * scale[j]
            success, excess = odds / (one + odds), log1p_excess(odds)
            # Of a zero that is seen: odds that it is not extra.
            ordinary = exp(-logit[j] - shape[j] * (success + excess))
            seen = zero[j] / (one + ordinary)
            weight = shape[j] * (one - zero[j] + seen * ordinary)
            slope[j] = -weight * success
            other[j] = -weight * excess
            extra[j] = seen - one / (one + exp(-logit[j]))
            part += slope[j]
        whole += part
    return whole
