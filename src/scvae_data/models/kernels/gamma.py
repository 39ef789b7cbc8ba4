"""Counts and dispersions in, differences of gamma functions out, without the cancellation of large dispersions.

Both arguments are moved up by ``SHIFT``, where the difference of two Stirling
series has a closed form, as in :func:`scvae_data.models.densities.log_rising_factorial`.
"""

from __future__ import annotations

from typing import Any

import numba

from scvae_data.models.densities import SHIFT
from scvae_data.models.kernels.elementary import INLINED, like, log, log1p

__all__ = ["digamma_rise", "log_rise"]


@numba.njit(**INLINED)  # type: ignore[untyped-decorator]
def log_rise(theta: Any, x: Any) -> Any:
    """``lgamma(theta + x) - lgamma(theta)`` for theta > 0 and x ≥ 0."""
    one, two, three = like(x, 1), like(x, 2), like(x, 3)
    low = (theta + x) * (theta + one + x) / (theta * (theta + one))
    high = (theta + two + x) * (theta + three + x) / ((theta + two) * (theta + three))
    z = theta + like(x, SHIFT)
    w = z + x
    stirling = x * log(z) + (w - like(x, 0.5)) * log1p(x / z) - x
    return stirling + (_tail(one / w) - _tail(one / z)) - log(low * high)


@numba.njit(**INLINED)  # type: ignore[untyped-decorator]
def digamma_rise(theta: Any, x: Any) -> Any:
    """``digamma(theta + x) - digamma(theta)``, the derivative of :func:`log_rise` by theta."""
    one, two, three = like(x, 1), like(x, 2), like(x, 3)
    below = x / (theta * (theta + x)) + x / ((theta + one) * (theta + one + x))
    below += x / ((theta + two) * (theta + two + x)) + x / ((theta + three) * (theta + three + x))
    z = theta + like(x, SHIFT)
    w = z + x
    return below + log1p(x / z) + (_slope(one / w) - _slope(one / z))


@numba.njit(**INLINED)  # type: ignore[untyped-decorator]
def _tail(inverse: Any) -> Any:
    """``lgamma(z)`` minus the leading terms of Stirling's series, of 1 / z."""
    square = inverse * inverse
    return inverse * (like(inverse, 1 / 12) - square * (like(inverse, 1 / 360) - square * like(inverse, 1 / 1260)))


@numba.njit(**INLINED)  # type: ignore[untyped-decorator]
def _slope(inverse: Any) -> Any:
    """``digamma(z) - log(z)``, of 1 / z."""
    square = inverse * inverse
    inner = like(inverse, 1 / 12) - square * (like(inverse, 1 / 120) - square * like(inverse, 1 / 252))
    return -inverse * like(inverse, 0.5) - square * inner
