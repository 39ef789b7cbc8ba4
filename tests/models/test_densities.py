"""Log-densities against scipy and torch.distributions, in the ranges that training visits."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from scvae_data.models.densities import gaussian_log_prob, log_rising_factorial, nb_log_prob, zinb_log_prob

COUNTS = torch.tensor([0.0, 1.0, 2.0, 7.0, 40.0, 900.0, 20_000.0])


def grid(*axes: list[float] | torch.Tensor) -> list[torch.Tensor]:
    tensors = [torch.as_tensor(axis, dtype=torch.float32) for axis in axes]
    return [axis.reshape(-1, 1).contiguous() for axis in torch.meshgrid(*tensors, indexing="ij")]


@pytest.mark.parametrize("theta", [1e-3, 0.1, 1.0, 10.0, 1e3, 1e6], ids=lambda theta: f"theta={theta:g}")
def test_nb_equals_scipy_in_float32(theta: float) -> None:
    x, mean = grid(COUNTS, [1e-4, 0.3, 5.0, 1000.0])
    ours = nb_log_prob(x, mean.log(), torch.tensor([theta]).log())
    theta64 = float(torch.tensor(theta))
    mean64 = mean.double().numpy()
    expected = scipy.stats.nbinom.logpmf(x.numpy(), theta64, theta64 / (theta64 + mean64))
    # The largest terms of the sum are log x! and its like; their rounding is all that is left.
    rounding = 2e-7 * (10 + scipy.special.gammaln(x.numpy() + 1))
    assert (np.abs(ours.numpy() - expected) <= rounding + 2e-6 * np.abs(expected)).all()


def test_nb_tends_to_poisson() -> None:
    x, mean = grid([0.0, 1.0, 5.0, 30.0], [0.01, 1.0, 20.0])
    ours = nb_log_prob(x, mean.log(), torch.tensor([30.0]))
    expected = torch.distributions.Poisson(mean.double()).log_prob(x.double())
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)


def test_nb_gradients_equal_those_in_float64() -> None:
    x, mean, theta = grid([0.0, 1.0, 9.0, 800.0], [1e-3, 1.0, 300.0], [0.01, 1.0, 50.0, 1e4])

    def gradients(dtype: torch.dtype) -> list[torch.Tensor]:
        log_mean, log_theta = mean.log().to(dtype).requires_grad_(), theta.log().to(dtype).requires_grad_()
        nb_log_prob(x.to(dtype), log_mean, log_theta).sum().backward()
        return [log_mean.grad.double(), log_theta.grad.double()]

    def reference() -> list[torch.Tensor]:
        log_mean, log_theta = mean.log().double().requires_grad_(), theta.log().double().requires_grad_()
        logits = log_mean - log_theta
        torch.distributions.NegativeBinomial(log_theta.exp(), logits=logits).log_prob(x.double()).sum().backward()
        return [log_mean.grad, log_theta.grad]

    for ours, wide, expected in zip(gradients(torch.float32), gradients(torch.float64), reference(), strict=True):
        torch.testing.assert_close(wide, expected, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(ours, expected, rtol=2e-3, atol=2e-3)


def test_sparse_and_dense_count_terms_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.poisson(torch.rand(6, 9, generator=generator) * 3, generator=generator)
    log_theta = torch.randn(9, generator=generator).requires_grad_()
    log_mean = torch.randn(6, 9, generator=generator)
    sparse = nb_log_prob(x, log_mean, log_theta)
    (sparse_gradient,) = torch.autograd.grad(sparse.sum(), log_theta)

    def dense(x: torch.Tensor, log_theta: torch.Tensor) -> torch.Tensor:
        return log_rising_factorial(log_theta.exp(), x) - torch.lgamma(x + 1)

    monkeypatch.setattr("scvae_data.models.densities._count_terms", dense)
    full = nb_log_prob(x, log_mean, log_theta)
    (full_gradient,) = torch.autograd.grad(full.sum(), log_theta)
    torch.testing.assert_close(sparse, full)
    torch.testing.assert_close(sparse_gradient, full_gradient)


def test_rising_factorial_where_the_difference_of_gammas_fails() -> None:
    theta, x = torch.tensor(1e6), torch.tensor(1.0)
    plain = float(torch.lgamma(theta + x) - torch.lgamma(theta))
    expected = np.log(1e6)
    assert abs(plain - expected) > 0.1
    assert float(log_rising_factorial(theta, x)) == pytest.approx(expected, abs=1e-5)


def test_zinb_is_the_mixture() -> None:
    x, mean, logit = grid([0.0, 1.0, 12.0], [0.01, 3.0, 50.0], [-20.0, -1.0, 2.0, 20.0])
    theta = 1.7
    ours = zinb_log_prob(x, mean.log(), torch.tensor([theta]).log(), logit)
    share = scipy.special.expit(logit.double().numpy())
    nb = scipy.stats.nbinom.pmf(x.numpy(), theta, theta / (theta + mean.double().numpy()))
    not_extra = scipy.special.expit(-logit.double().numpy())
    with np.errstate(divide="ignore"):
        expected = np.log(share * (x.numpy() == 0) + not_extra * nb)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_zinb_probabilities_sum_to_one() -> None:
    x = torch.arange(0, 400.0).reshape(-1, 1)
    log_p = zinb_log_prob(x, torch.full_like(x, 2.0), torch.tensor([0.3]), torch.full_like(x, -0.5))
    assert float(log_p.exp().sum()) == pytest.approx(1.0, abs=1e-5)


def test_gaussian_equals_torch() -> None:
    x, mean, log_scale = grid([-3.0, 0.0, 2.5], [-1.0, 0.4], [-2.0, 0.0, 1.5])
    expected = torch.distributions.Normal(mean, log_scale.exp()).log_prob(x)
    torch.testing.assert_close(gaussian_log_prob(x, mean, log_scale), expected)


@pytest.mark.parametrize("log_mean", [-80.0, 0.0, 12.0])
@pytest.mark.parametrize("log_theta", [-12.0, 0.0, 40.0])
@pytest.mark.parametrize("zero_logit", [-100.0, 100.0])
def test_extremes_stay_finite(log_mean: float, log_theta: float, zero_logit: float) -> None:
    parameters = [
        torch.full((len(COUNTS), 1), value, requires_grad=True) for value in (log_mean, log_theta, zero_logit)
    ]
    log_p = zinb_log_prob(COUNTS.reshape(-1, 1), *parameters)
    log_p.sum().backward()
    assert torch.isfinite(log_p).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in parameters if parameter.grad is not None)


def test_half_precision_parameters_are_widened() -> None:
    log_mean = torch.tensor([[1.0, -2.0]], dtype=torch.bfloat16)
    x = torch.tensor([[3001.0, 1.0]])
    ours = nb_log_prob(x, log_mean, torch.zeros(2, dtype=torch.bfloat16))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, nb_log_prob(x, log_mean.float(), torch.zeros(2)))
