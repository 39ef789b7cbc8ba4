"""Operators of a step: values and gradients of the plain expressions, whatever the threads and the order of columns."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tests.support.fake_data import sparse_rows
from torch import Tensor
from torch.autograd import gradcheck
from torch.library import opcheck

from scvae_data import VAE
from scvae_data.loading.batch.sparse import SparseRows
from scvae_data.models import fused
from scvae_data.models.likelihoods import NB, ZINB, Gaussian, Likelihood
from scvae_data.models.networks import RowsLinear

N, N_VARS, N_HIDDEN = 37, 11, 5  # cells of more than one part


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def cells(kind: torch.dtype, measured: Tensor | None = None) -> tuple[Tensor, SparseRows]:
    """Counts, dense and sparse; the second cell has none."""
    x = torch.poisson(torch.full((N, N_VARS), 1.5), generator=torch.Generator().manual_seed(0)).to(kind)
    x[1] = 0
    x = x if measured is None else x * measured
    return x, sparse_rows(x)


def random(*shape: int, kind: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(kind).requires_grad_()


MASK = torch.rand(N, N_VARS, generator=torch.Generator().manual_seed(2)) < 0.8
CASES = [
    pytest.param(None, (N_VARS,), id="one dispersion a gene"),
    pytest.param(MASK, (N_VARS,), id="genes that are not measured"),
    pytest.param(MASK, (N, N_VARS), id="dispersions of each cell"),
]


LIKELIHOODS = [NB(), ZINB(), Gaussian()]


def parameters_of(likelihood: Likelihood, shape: tuple[int, ...], kind: torch.dtype) -> dict[str, Tensor]:
    heads = {name: random(N, N_VARS, kind=kind, seed=seed) for seed, name in enumerate(likelihood.heads)}
    return {**heads, "log_dispersion": random(*shape, kind=kind, seed=3)}


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=["NB", "ZINB", "Gaussian"])
@pytest.mark.parametrize(("measured", "shape"), CASES)
def test_gradients_of_densities_are_those_of_differences(
    likelihood: Likelihood, measured: Tensor | None, shape: tuple[int, ...]
) -> None:
    _, rows = cells(torch.float64, measured)
    names, given = zip(*parameters_of(likelihood, shape, torch.float64).items(), strict=True)

    def log_prob(*values: Tensor) -> Tensor:
        return likelihood.log_prob_of_rows(rows, dict(zip(names, values, strict=True)), measured)

    assert gradcheck(log_prob, given, fast_mode=True)


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=["NB", "ZINB", "Gaussian"])
@pytest.mark.parametrize(("measured", "shape"), CASES)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_densities_and_gradients_are_those_of_the_plain_expression(
    likelihood: Likelihood, measured: Tensor | None, shape: tuple[int, ...], kind: torch.dtype
) -> None:
    x, rows = cells(kind, measured)
    parameters = parameters_of(likelihood, shape, kind)
    upstream = random(N, seed=4).detach()  # another one for each cell
    found = likelihood.log_prob_of_rows(rows, parameters, measured)
    gradients = torch.autograd.grad((found * upstream).sum(), list(parameters.values()))
    wide = {name: values.detach().double().requires_grad_() for name, values in parameters.items()}
    wanted = likelihood.log_prob(x.double(), wide, measured)
    # The plain expression ends its series of the gamma function where float32 does.
    tolerance = {"rtol": 1e-6, "atol": 2e-6} if kind == torch.float32 else {"rtol": 1e-9, "atol": 3e-7}
    torch.testing.assert_close(found.double(), wanted, **tolerance)
    of_wide = torch.autograd.grad((wanted * upstream).sum(), list(wide.values()))
    for ours, theirs in zip(gradients, of_wide, strict=True):
        most = {**tolerance, "atol": max(tolerance["atol"], tolerance["rtol"] * float(theirs.abs().max()))}
        torch.testing.assert_close(ours.double(), theirs, **most)


def test_a_count_of_zero_that_is_stored_is_a_zero() -> None:
    rows = SparseRows(torch.tensor([0, 2]), torch.tensor([0, 2], dtype=torch.int32), torch.tensor([0.0, 3.0]), 3)
    parameters = {name: torch.tensor([[0.3, -1.0, 0.5]]) for name in ("scale", "zero_logit")}
    parameters["log_dispersion"] = torch.zeros(3)
    torch.testing.assert_close(
        ZINB().log_prob_of_rows(rows, parameters, None), ZINB().log_prob(torch.tensor([[0.0, 0, 3]]), parameters, None)
    )


def test_extra_zeros_beyond_doubt_stay_finite() -> None:
    x, rows = cells(torch.float32)
    for logit in (-200.0, 200.0):
        parameters = {"scale": random(N, N_VARS, kind=torch.float32), "log_dispersion": torch.full((N_VARS,), 3.0)}
        parameters["zero_logit"] = torch.full((N, N_VARS), logit, requires_grad=True)
        found, wanted = ZINB().log_prob_of_rows(rows, parameters, None), ZINB().log_prob(x, parameters, None)
        torch.testing.assert_close(found, wanted)
        ours, theirs = (torch.autograd.grad(each.sum(), parameters["zero_logit"])[0] for each in (found, wanted))
        torch.testing.assert_close(ours, theirs)


def test_a_linear_map_of_sparse_rows_is_that_of_dense_ones() -> None:
    x, rows = cells(torch.float64)
    weight, bias = random(N_HIDDEN, N_VARS), random(N_HIDDEN, seed=3)
    torch.testing.assert_close(fused.sparse_linear(rows, weight, bias), torch.nn.functional.linear(x, weight, bias))
    assert gradcheck(lambda *given: fused.sparse_linear(rows, *given), (weight, bias))


def test_columns_may_come_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    n_vars = 3 * 64 * torch.get_num_threads()  # several parts of genes
    x = torch.zeros(2, n_vars, dtype=torch.float32)
    columns = torch.randperm(n_vars, generator=torch.Generator().manual_seed(0))[:200]
    x[1, columns] = torch.arange(1.0, 201.0)
    rows = SparseRows(torch.tensor([0, 0, 200]), columns.int(), x[1, columns].clone(), n_vars)
    weight, bias = random(N_HIDDEN, n_vars, kind=torch.float32), random(N_HIDDEN, kind=torch.float32)
    for found, wanted in (
        (fused.sparse_linear(rows, weight, bias), torch.nn.functional.linear(x, weight, bias)),
        (fused.nb(rows, x, x[0], None), NB().log_prob(x, {"scale": x, "log_dispersion": x[0]}, None)),
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-3)
    (found,) = torch.autograd.grad(fused.sparse_linear(rows, weight, bias).square().sum(), weight)
    (wanted,) = torch.autograd.grad(torch.nn.functional.linear(x, weight, bias).square().sum(), weight)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-1)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    _, rows = cells(torch.float32)
    logits, log_theta = random(N, N_VARS, kind=torch.float32), random(N_VARS, kind=torch.float32)
    weight, bias = random(N_HIDDEN, N_VARS, kind=torch.float32), random(N_HIDDEN, kind=torch.float32)
    made = []
    for n_threads in (1, 2, 3):
        torch.set_num_threads(n_threads)
        value = fused.nb(rows, logits, log_theta, None, logits) + fused.gaussian(rows, logits, log_theta, None)
        hidden = fused.sparse_linear(rows, weight, bias)
        gradients = torch.autograd.grad(value.sum() + hidden.square().sum(), (logits, log_theta, weight, bias))
        made.append((value, hidden, *gradients))
    for others in made[1:]:
        assert all(torch.equal(one, other) for one, other in zip(made[0], others, strict=True))


def test_operators_keep_the_rules_of_torch() -> None:
    _, rows = cells(torch.float32)
    logits, log_theta = random(N, N_VARS, kind=torch.float32), random(1, N_VARS, kind=torch.float32)
    weight, bias = random(N_HIDDEN, N_VARS, kind=torch.float32), random(N_HIDDEN, kind=torch.float32)
    opcheck(fused._nb, (*rows[:3], logits, log_theta, MASK, None))
    opcheck(fused._nb, (*rows[:3], logits, log_theta, MASK, random(N, N_VARS, kind=torch.float32, seed=5)))
    opcheck(fused._gaussian, (*rows[:3], logits, log_theta, MASK))
    opcheck(fused._sparse_linear, (*rows[:3], weight, bias))


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "gaussian"])
def test_gradients_of_a_model_are_rounded_no_worse_than_plain_ones(likelihood: str) -> None:
    torch.manual_seed(0)
    model = VAE(likelihood, dropout=0.0, facts={"n_vars": 300})
    model.configure_model()
    means = torch.randn(300, generator=torch.Generator().manual_seed(0)).mul(2).exp().expand(64, -1)
    x = torch.poisson(means, generator=torch.Generator().manual_seed(1))
    x = x.log1p() if likelihood == "gaussian" else x
    values = {"wide": x.double(), "plain": x, "fused": sparse_rows(x)}
    loss, gradients = {}, {}
    for way, served in values.items():
        if way == "wide":
            model.double()
        else:
            model.float()
        model.zero_grad()
        terms = model.elbo_terms({"x": served, "gene_set": torch.zeros(64, dtype=torch.int64)}, noise_seed=0)
        total = (terms["kl"] - terms["recon"]).mean()
        total.backward()  # type: ignore[no-untyped-call]
        loss[way] = float(total.detach())
        # What normalisation takes away again has no gradient but rounding.
        named = {name: p.grad for name, p in model.named_parameters() if not name.endswith("linear.bias")}
        gradients[way] = {name: gradient.double() for name, gradient in named.items() if gradient is not None}
    assert loss["fused"] == pytest.approx(loss["wide"], rel=1e-6)
    for name, wanted in gradients["wide"].items():
        plain, ours = ((gradients[way][name] - wanted).norm() / wanted.norm() for way in ("plain", "fused"))
        assert ours <= max(1e-6, 3 * plain), name  # small sums of large terms are rounded as their order happens to be
    assert set(gradients["fused"]) == set(gradients["wide"])


def test_fused_training_stays_with_float64() -> None:
    weights = {}
    types = torch.randn(4, 60, generator=torch.Generator().manual_seed(0)).exp()
    batches = [torch.poisson(types.repeat(16, 1), generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    for way in ("wide", "fused"):
        torch.manual_seed(0)
        model = VAE(facts={"n_vars": 60})
        model.configure_model()
        model.double() if way == "wide" else model.float()
        optimizer = model.configure_optimizers()
        for number in range(40):
            x = batches[number % 4]
            served = x.double() if way == "wide" else sparse_rows(x)
            terms = model.elbo_terms({"x": served, "gene_set": torch.zeros(64, dtype=torch.int64)})
            optimizer.zero_grad()
            (terms["kl"] - terms["recon"]).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        weights[way] = torch.cat([values.detach().double().flatten() for values in model.parameters()])
    assert (weights["fused"] - weights["wide"]).norm() < 1e-5 * weights["wide"].norm()


def test_not_a_number_comes_out() -> None:
    _, rows = cells(torch.float32)
    logits = random(N, N_VARS, kind=torch.float32).detach()
    logits[3, 2] = torch.nan
    theta = torch.zeros(N_VARS)
    for found in (
        fused.nb(rows, logits, theta, None),
        fused.nb(rows, logits.nan_to_num(), theta, None, zero_logit=logits),
        fused.gaussian(rows, logits, theta, None),
    ):
        assert (~found.isfinite()).nonzero().flatten().tolist() == [3]


def test_weights_of_an_input_lie_side_by_side() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Linear(N_VARS, N_HIDDEN)
    torch.manual_seed(0)
    ours = RowsLinear(N_VARS, N_HIDDEN)
    assert ours.weight.t().is_contiguous()
    assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), plain.parameters(), strict=True))
    x, rows = cells(torch.float32)
    torch.testing.assert_close(ours(rows), plain(x))
    ours(rows).sum().backward()
    assert ours.weight.grad is not None
    assert ours.weight.grad.stride() == ours.weight.stride()


def test_who_computes_another_density_inherits_no_sparse_form() -> None:
    class Twice(NB):
        def log_prob(self, x: Tensor, parameters: dict[str, Tensor], measured: Tensor | None) -> Tensor:  # type: ignore[override]
            return 2 * super().log_prob(x, parameters, measured)

    x, rows = cells(torch.float32)
    parameters = {"scale": random(N, N_VARS, kind=torch.float32), "log_dispersion": torch.zeros(N_VARS)}
    twice: Likelihood = Twice()
    torch.testing.assert_close(twice.log_prob_of_rows(rows, parameters, None), twice.log_prob(x, parameters, None))
