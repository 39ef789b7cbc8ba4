"""Latents and ELBO of cells, streamed from a directory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.results.conftest import KEY, N_OBS, untrained, whole
from tests.support.datasets import make_dataset

from scvae_data import VAE, ChunkedDataModule, ConfigError, SelectionError
from scvae_data.results import cells


def batch_of(directory: Path) -> dict[str, torch.Tensor]:
    """All cells of the directory."""
    data = ChunkedDataModule(directory, batch_size=N_OBS, split=None, normalized=False)
    data.setup()
    return dict(next(iter(data.predict_dataloader())))


def test_latents_are_those_of_the_encoder(model: VAE, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "BATCH_SIZE", 7)
    rows, values = whole(model.latents(directory))
    assert rows.tolist() == list(range(N_OBS))
    with torch.inference_mode():
        np.testing.assert_allclose(values, model(batch_of(directory)), atol=1e-6)


def test_a_filter_chooses_cells(model: VAE, directory: Path) -> None:
    rows, values = whole(model.latents(directory, f"{KEY} == 'SRX2'"))
    expected = np.flatnonzero(batch_of(directory)["obs"][KEY] == 1)
    assert rows.tolist() == expected.tolist()
    np.testing.assert_allclose(values, whole(model.latents(directory))[1][expected], atol=1e-6)


def test_elbo_is_the_mean_over_draws(model: VAE, directory: Path) -> None:
    values = whole(model.elbo(directory, n_samples=200))[1]
    assert values.shape == (N_OBS, 3)
    np.testing.assert_allclose(values[:, 0], values[:, 1] - values[:, 2], rtol=1e-5)
    with torch.inference_mode():
        terms = model.elbo_terms(batch_of(directory), noise_seed=5)
    np.testing.assert_allclose(values[:, 2], terms["kl"], rtol=1e-4)
    np.testing.assert_array_equal(values, whole(model.elbo(directory, n_samples=200))[1])
    assert not np.array_equal(values, whole(model.elbo(directory, n_samples=200, seed=1))[1])


def test_the_stream_of_random_numbers_goes_on_as_before(model: VAE, directory: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    next(iter(model.elbo(directory)))
    torch.testing.assert_close(torch.rand(2), expected)


def test_genes_that_a_directory_lacks_are_not_measured(
    model: VAE, directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the decoder says of them costs nothing."""
    fewer, _, _ = make_dataset(tmp_path / "fewer", n_obs=20, n_vars=15, chunk_size=20)
    before = whole(model.elbo(fewer))[1]
    assert "5 of the model's 20 genes (25.0 %) are not in" in caplog.text
    other = untrained(directory)
    assert other.decoder is not None
    with torch.no_grad():
        other.decoder.heads["scale"].bias[15:] += 3.0
    np.testing.assert_allclose(whole(other.elbo(fewer))[1], before, rtol=1e-5)
    other.decoder.heads["scale"].bias.data[:3] += 3.0
    assert not np.allclose(whole(other.elbo(fewer))[1], before, rtol=1e-3)


def test_a_data_module_says_which_cells(model: VAE, directory: Path) -> None:
    chosen = ChunkedDataModule(directory, include_srx_accessions="SRX1", filter="donor_age < 30")
    rows, _ = whole(model.latents(chosen))
    assert rows.tolist() == whole(model.latents(directory, f"{KEY} == 'SRX1' and donor_age < 30"))[0].tolist()
    with pytest.raises(ConfigError, match="is given beside filter='donor_age < 30'; put both into one"):
        model.latents(chosen, "total_counts > 0")


def test_errors_are_one_line(model: VAE, directory: Path) -> None:
    with pytest.raises(ConfigError, match="the model was not built yet; train it, or load one"):
        VAE().latents(directory)
    with pytest.raises(SelectionError, match="SRX_accession has no value 'SRX8'; did you mean SRX"):
        model.latents(directory, f"{KEY} == 'SRX8'")
    with pytest.raises(ConfigError, match="n_samples=0 must be a whole number of draws"):
        next(iter(model.elbo(directory, n_samples=0)))
