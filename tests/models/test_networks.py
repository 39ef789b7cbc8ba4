from __future__ import annotations

import pytest
import torch

from scvae_data.models.networks import MOMENTUM, Covariate, Covariates, Decoder, Encoder, MlpShape, TrackingNorm


def given(*codes: list[int], numbers: list[list[float]] | None = None) -> Covariates:
    return Covariates(torch.tensor(codes).T, torch.tensor(numbers or [[]] * len(codes[0])))


def test_looked_up_covariates_equal_concatenated_ones() -> None:
    """Two covariates of 2 and 3 codes and a number, beside an input of 5."""
    covariate = Covariate(MlpShape(n_hidden=3, n_codes=5, n_categorical=2, n_continuous=1), n_in=5, n_out=3)
    covariates = given([0, 1, 1], [4, 2, 3], numbers=[[0.5], [-1.0], [2.0]])
    one_hot = torch.nn.functional.one_hot(covariates.codes, 5).sum(dim=1).float()
    weight = torch.cat([covariate.table.weight, covariate.numbers.weight.T])
    torch.testing.assert_close(covariate(covariates), torch.hstack([one_hot, covariates.numbers]) @ weight)


def test_vectors_of_covariates_are_concatenated() -> None:
    covariate = Covariate(MlpShape(n_hidden=3, n_codes=5, n_categorical=2, batch_dim=4), n_in=5, n_out=3)
    covariates = given([0, 1, 1], [4, 2, 3])
    vectors = torch.hstack([covariate.table.weight[covariates.codes[:, column]] for column in range(2)])
    torch.testing.assert_close(covariate(covariates), vectors @ covariate.weight.weight.T)


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("batch_dim", [0, 2])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_shapes(norm: str, batch_dim: int, n_layers: int) -> None:
    sizes = {"n_hidden": 8, "n_layers": n_layers, "batch_dim": batch_dim, "n_codes": 3, "n_continuous": 2}
    shape = MlpShape(**sizes, norm=norm)  # type: ignore[arg-type]
    covariates = given([0, 1, 2, 2], numbers=[[0.0, 1.0]] * 4)
    mean, log_var = Encoder(6, 2, shape, dropout=0.1)(torch.rand(4, 6), covariates)
    assert mean.shape == log_var.shape == (4, 2)
    heads = Decoder(6, 2, shape, ("scale", "zero_logit"))(mean, covariates)
    assert {name: tuple(values.shape) for name, values in heads.items()} == {"scale": (4, 6), "zero_logit": (4, 6)}


def test_the_first_layer_alone_sees_numbers() -> None:
    mlp = Decoder(2, 6, MlpShape(n_hidden=8, n_layers=2, n_codes=3, n_continuous=1), ("scale",)).mlp
    assert [layer.covariate.numbers is None for layer in mlp.layers] == [False, True]
    alone = Decoder(2, 6, MlpShape(n_hidden=8, n_layers=2, n_continuous=1), ("scale",)).mlp
    assert [layer.covariate is None for layer in alone.layers] == [False, True]


def test_without_covariate_codes_are_not_needed() -> None:
    mean, _ = Encoder(6, 2, MlpShape(n_hidden=8), dropout=0.0)(torch.rand(4, 6), None)
    assert mean.shape == (4, 2)


def test_log_variance_is_bounded() -> None:
    encoder = Encoder(2, 1, MlpShape(n_hidden=4, norm="none"), dropout=0.0)
    _, log_var = encoder(torch.full((1, 2), 1e9), None)
    assert float(log_var.detach().abs()) <= 15


def test_running_statistics_follow_the_last_tenth_of_training() -> None:
    norm = TrackingNorm(1)
    n_batches = 200
    for step in range(n_batches):  # the mean of batch s is s
        norm(torch.tensor([[step - 1.0], [step + 1.0]]))
    lag = n_batches - 1 - float(norm.running_mean)
    assert lag == pytest.approx(n_batches / 11, rel=0.1)  # an average over the last tenth is half a tenth behind, …
    plain = torch.nn.BatchNorm1d(1, momentum=MOMENTUM)
    for step in range(n_batches):
        plain(torch.tensor([[step - 1.0], [step + 1.0]]))
    assert (
        n_batches - 1 - float(plain.running_mean) > 4 * lag
    )  # … SCVI's constant weight still holds what it began with


def test_running_statistics_end_with_the_weight_of_scvi_and_resume_with_theirs() -> None:
    norm = TrackingNorm(2)
    norm.num_batches_tracked.fill_(10_000)
    norm(torch.rand(4, 2))
    assert norm.momentum == MOMENTUM
    young = TrackingNorm(2)
    young(torch.rand(4, 2))
    assert float(young.running_var.sub(1).abs().max()) > 0.5  # the first batch replaces the initial values
    resumed = TrackingNorm(2)
    resumed.load_state_dict(young.state_dict())
    x = torch.rand(4, 2)
    young(x), resumed(x)
    torch.testing.assert_close(young.running_mean, resumed.running_mean, rtol=0, atol=0)
