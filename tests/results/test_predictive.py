"""Posterior predictive checks: sums over cells, and counts that come from the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.results.conftest import N_OBS, untrained
from tests.support.datasets import make_dataset

from scvae_data import VAE, ChunkedDataset, ConfigError
from scvae_data.models.likelihoods import NB, ZINB


def test_observed_columns_are_those_of_the_counts(model: VAE, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scvae_data.results.cells.BATCH_SIZE", 7)
    found = model.predictive_check(directory)
    x = ChunkedDataset(directory).to_anndata().X.toarray().astype(float)
    assert found.index.tolist() == [f"ENSG{j:011d}" for j in range(x.shape[1])]
    assert found["gene_symbol"].tolist()[:2] == ["GENE0", "GENE1"]
    assert (found["n_cells"] == N_OBS).all()
    for name, expected in {"mean": x.mean(0), "variance": x.var(0), "zeros": (x == 0).mean(0)}.items():
        np.testing.assert_allclose(found[f"observed_{name}"], expected, rtol=1e-9)


def test_totals_are_kept_on_average(model: VAE, directory: Path) -> None:
    found = model.predictive_check(directory, n_samples=50)
    assert found["simulated_mean"].sum() == pytest.approx(found["observed_mean"].sum(), rel=0.05)


def test_genes_that_no_cell_was_measured_for_have_no_figures(model: VAE, tmp_path: Path) -> None:
    fewer, _, _ = make_dataset(tmp_path / "fewer", n_obs=20, n_vars=15, chunk_size=20)
    found = model.predictive_check(fewer)
    assert found["n_cells"].tolist() == [20] * 15 + [0] * 5
    assert found["simulated_mean"].isna().tolist() == [False] * 15 + [True] * 5


@pytest.mark.parametrize(("likelihood", "extra"), [(NB(), 0.0), (ZINB(), 0.25)])
def test_draws_have_the_moments_of_the_likelihood(likelihood: Any, extra: float) -> None:
    torch.manual_seed(0)
    n, theta = 20_000, 2.0
    parameters = {
        "scale": torch.tensor([0.0, 1.0, 2.0]).expand(n, 3),
        "log_dispersion": torch.tensor(theta).log().expand(3),
        "zero_logit": torch.logit(torch.tensor(0.25)).expand(n, 3),
    }
    x = torch.tensor([20.0, 0.0, 0.0]).expand(n, 3)
    measured = torch.tensor([True, True, False]).expand(n, 3)
    drawn = likelihood.sample(x, parameters, measured)
    mean = 20 * torch.softmax(torch.tensor([0.0, 1.0]), dim=0)
    torch.testing.assert_close(drawn[:, :2].mean(0), (1 - extra) * mean, rtol=0.03, atol=0)
    variance = (1 - extra) * (mean + mean**2 / theta) + extra * (1 - extra) * mean**2
    torch.testing.assert_close(drawn[:, :2].var(0), variance, rtol=0.08, atol=0)
    assert drawn[:, 2].max() == 0


def test_a_model_of_normalised_values_draws_no_counts(directory: Path) -> None:
    with pytest.raises(ConfigError, match="likelihood Gaussian has no counts to draw"):
        untrained(directory, likelihood="gaussian").predictive_check(directory)
