"""Log-densities: observed values and distribution parameters in, nats per cell and gene out.

Parameters come in logs (``log_mean``, ``log_theta``), because that is how the
decoder produces them: nothing is exponentiated and logged again, so no
epsilon is needed and float32 suffices. Half-precision parameters are widened
first, since a count above 2,048 has no exact half-precision form.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

__all__ = ["gaussian_log_prob", "log_rising_factorial", "nb_log_prob", "widened", "zinb_log_prob"]

# Stirling's series starts here: with z ≥ SHIFT its next term, 1 / (1680 z⁷), is below float32 resolution.
SHIFT = 4


def nb_log_prob(x: Tensor, log_mean: Tensor, log_theta: Tensor) -> Tensor:
    """Negative binomial with variance ``mean + mean² / theta``.

    Parameters
    ----------
    x
        Counts, (n, n_vars), float.
    log_mean
        Log of the mean, (n, n_vars).
    log_theta
        Log of the inverse dispersion, (n_vars,) or (n, n_vars).

    Returns
    -------
    Log-probabilities, (n, n_vars), at least float32.
    """
    x, log_mean, log_theta = widened(x), widened(log_mean), widened(log_theta)
    logit = log_mean - log_theta
    log_1p_odds = softplus(logit)
    log_success = logit - log_1p_odds  # log(mean / (mean + theta))
    return x * log_success - log_theta.exp() * log_1p_odds + _count_terms(x, log_theta)


def zinb_log_prob(x: Tensor, log_mean: Tensor, log_theta: Tensor, zero_logit: Tensor) -> Tensor:
    """Negative binomial mixed with extra zeros of probability ``sigmoid(zero_logit)``.

    Parameters
    ----------
    x, log_mean, log_theta
        As for :func:`nb_log_prob`.
    zero_logit
        Logit of the share of extra zeros, (n, n_vars).

    Returns
    -------
    Log-probabilities, (n, n_vars), at least float32.
    """
    zero_logit = widened(zero_logit)
    log_not_extra = logsigmoid(-zero_logit)
    count = log_not_extra + nb_log_prob(x, log_mean, log_theta)
    return torch.where(x > 0, count, torch.logaddexp(logsigmoid(zero_logit), count))


def gaussian_log_prob(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Normal density.

    Parameters
    ----------
    x, mean
        (n, n_vars).
    log_scale
        Log of the standard deviation, (n_vars,) or (n, n_vars).

    Returns
    -------
    Log-densities, (n, n_vars), at least float32.
    """
    x, mean, log_scale = widened(x), widened(mean), widened(log_scale)
    z = (x - mean) * torch.exp(-log_scale)
    return -0.5 * z.square() - log_scale - 0.5 * math.log(2 * math.pi)


def log_rising_factorial(theta: Tensor, x: Tensor) -> Tensor:
    """``lgamma(theta + x) - lgamma(theta)`` without the cancellation that ruins it for large ``theta``.

    The recurrence ``Γ(z + 1) = z Γ(z)`` moves both arguments up by ``SHIFT``,
    where the difference of two Stirling series has a closed form in
    ``log1p(x / z)``. At theta = 10⁶ and x = 1 the plain difference is off by
    up to 1 in float32, this one by 10⁻⁶.

    Parameters
    ----------
    theta
        Positive, any shape that broadcasts with ``x``.
    x
        Non-negative.
    """
    z = theta + SHIFT
    w = z + x
    shifted = 1 + x / theta
    for k in range(1, SHIFT):
        shifted = shifted * (1 + x / (theta + k))
    stirling = x * z.log() + (w - 0.5) * torch.log1p(x / z) - x
    return stirling + _stirling_tail(w) - _stirling_tail(z) - shifted.log()


def _stirling_tail(z: Tensor) -> Tensor:
    """``lgamma(z)`` minus the leading terms of Stirling's series, for z ≥ SHIFT."""
    inverse = z.reciprocal()
    square = inverse.square()
    return inverse * (1 / 12 - square * (1 / 360 - square / 1260))


def _count_terms(x: Tensor, log_theta: Tensor) -> Tensor:
    """``log Γ(x + theta) / (Γ(theta) x!)``, which is zero where x is.

    Most entries of a count matrix are zero and gamma functions are the dearest
    part of the density, so a CPU computes the others only. On a device the
    search for them would wait for the queue; there the dense form is faster.
    """
    if x.device.type != "cpu":
        return log_rising_factorial(log_theta.exp(), x) - torch.lgamma(x + 1)
    where = x.nonzero(as_tuple=True)
    counts = x[where]
    theta = (log_theta.index_select(0, where[-1]) if log_theta.dim() == 1 else log_theta.expand_as(x)[where]).exp()
    terms = log_rising_factorial(theta, counts) - torch.lgamma(counts + 1)
    return torch.zeros_like(x).index_put(where, terms)


def widened(values: Tensor) -> Tensor:
    """``values`` in float32, or float64 if they are already."""
    return values if values.dtype == torch.float64 else values.float()
