"""Elementary functions of compiled loops: within a few roundings of those of numpy, in both precisions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import digamma, gammaln

from scvae_data.models.kernels.elementary import exp, log, log1p, log1p_excess, row_max
from scvae_data.models.kernels.gamma import digamma_rise, log_rise

POSITIVE = np.concatenate([[1e-30, 1e-8, 0.5, 1.0], np.geomspace(1e-6, 1e6, 300)])


def over(function: Any) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """``function`` of each number, compiled."""

    @numba.njit
    def loop(values: NDArray[Any], out: NDArray[Any]) -> None:
        for j in range(values.size):
            out[j] = function(values[j])

    def call(values: NDArray[Any]) -> NDArray[Any]:
        out = np.empty_like(values)
        loop(values, out)
        return out

    return call


@pytest.mark.parametrize(
    ("ours", "reference", "values"),
    [
        pytest.param(exp, np.exp, np.linspace(-86, 86, 400), id="exp"),
        pytest.param(log, np.log, POSITIVE, id="log"),
        pytest.param(log1p, np.log1p, np.append(POSITIVE, 0.0), id="log1p"),
    ],
)
def test_functions_are_those_of_numpy(ours: Any, reference: Any, values: NDArray[np.float64]) -> None:
    narrow = values.astype(np.float32)
    wanted = reference(narrow.astype(np.float64))
    np.testing.assert_allclose(over(ours)(narrow), wanted, rtol=3e-7, atol=1e-12)
    assert np.isnan(over(ours)(np.float32([np.nan]))).all()
    np.testing.assert_allclose(over(ours)(values), reference(values), rtol=1e-15)


def test_the_excess_of_a_logarithm_does_not_cancel() -> None:
    ends = np.sqrt(2) * 2.0 ** np.arange(4) - 1  # of the ranges that have a series each
    beside = (ends[:, None] + 2.0**-24 * np.arange(-20, 21)).ravel()
    x = np.concatenate([[0], np.geomspace(1e-9, 1e9, 400), beside]).astype(np.float32)
    wide = x.astype(np.float64)
    series = sum((-1) ** k * wide**k * (k - 1) / k for k in range(2, 9))
    wanted = np.where(wide < 1e-2, series, np.log1p(wide) - wide / (1 + wide))
    np.testing.assert_allclose(over(log1p_excess)(x), wanted, rtol=2e-6, atol=0)
    np.testing.assert_allclose(over(log1p_excess)(wide), wanted, atol=1e-15)


def test_small_exponentials_are_zero_and_large_ones_finite() -> None:
    assert over(exp)(np.float32([-np.inf, -1e30, -88.0])).tolist() == [0.0, 0.0, 0.0]
    assert np.isfinite(over(exp)(np.float32([1e30]))).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_largest_of_a_row(kind: Any) -> None:
    largest = numba.njit(lambda row: row_max(row))
    for row in ([-3.0, -0.5, -7.0], [2.0, -9.0, 5.5], [0.0, -0.0]):
        assert largest(np.array(row, kind)) == max(row)
    assert np.isnan(largest(np.float32([1.0, np.nan, 2.0])))


def test_gamma_functions_lose_nothing_to_cancellation() -> None:
    rises = numba.njit(lambda theta, x: (log_rise(theta, x), digamma_rise(theta, x)))
    for theta in (1e-3, 0.7, 3.0, 1e3):
        for x in (0.0, 1.0, 7.0, 40_000.0):
            wanted = gammaln(theta + x) - gammaln(theta), digamma(theta + x) - digamma(theta)
            np.testing.assert_allclose(rises(np.float32(theta), np.float32(x)), wanted, rtol=2e-6, atol=2e-6)
            np.testing.assert_allclose(rises(theta, x), wanted, rtol=1e-9, atol=2e-7)
    np.testing.assert_allclose(rises(np.float32(1e6), np.float32(1)), (np.log(1e6), 1e-6), rtol=1e-6)
