"""Decoded expression: shares of the counts, for chosen genes, as if in another batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.results.conftest import N_OBS, N_VARS, untrained, whole
from tests.support.datasets import make_dataset

from scvae_data import VAE, ChunkedDataset, ConfigError, SelectionError


def test_shares_sum_to_the_library_size(model: VAE, directory: Path) -> None:
    shares = whole(model.expression(directory))[1]
    assert shares.shape == (N_OBS, N_VARS)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(whole(model.expression(directory, library_size=1e4))[1], 1e4 * shares, rtol=1e-5)
    totals = ChunkedDataset(directory).obs(["total_counts"])["total_counts"]
    np.testing.assert_allclose(
        whole(model.expression(directory, library_size="latent"))[1].sum(axis=1), totals, rtol=1e-4
    )


def test_the_latent_library_is_that_over_measured_genes(model: VAE, tmp_path: Path) -> None:
    fewer, x, _ = make_dataset(tmp_path / "fewer", n_obs=20, n_vars=15, chunk_size=20)
    found = whole(model.expression(fewer, library_size="latent"))[1]
    np.testing.assert_allclose(found[:, :15].sum(axis=1), np.asarray(x.sum(axis=1)).ravel(), rtol=1e-4)
    assert (found[:, 15:] > 0).all()


def test_genes_are_found_by_name_symbol_and_number_in_the_order_given(model: VAE, directory: Path) -> None:
    every = whole(model.expression(directory))[1]
    for genes in (["GENE7", "ENSG00000000002"], [7, 2]):
        np.testing.assert_array_equal(whole(model.expression(directory, genes))[1], every[:, [7, 2]])


def test_batches_are_averaged(model: VAE, directory: Path) -> None:
    def decoded(batch: Any) -> np.ndarray:
        return whole(model.expression(directory, transform_batch=batch))[1]

    one, two = decoded("SRX1"), decoded(["SRX2"])
    assert not np.allclose(one, two, rtol=1e-2)
    np.testing.assert_allclose(decoded(["SRX1", "SRX2"]), (one + two) / 2, rtol=1e-5)
    own = decoded(None)
    in_srx1 = ChunkedDataset(directory).obs(["SRX_accession"])["SRX_accession"] == "SRX1"
    np.testing.assert_array_equal(own[in_srx1], one[in_srx1])
    assert not np.allclose(own[~in_srx1], one[~in_srx1], rtol=1e-2)


def test_more_draws_vary_less(model: VAE, directory: Path) -> None:
    def spread(n_samples: int) -> float:
        runs = [whole(model.expression(directory, n_samples=n_samples, seed=seed))[1] for seed in range(4)]
        return float(np.std(runs, axis=0).mean())

    assert spread(30) < spread(1) / 3


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"genes": ["GEN7"]}, SelectionError, "genes GEN7 not in the model; did you mean GENE7"),
        ({"genes": ["gene7"]}, SelectionError, r"genes gene7 not in the model; did you mean GENE7\?"),
        (
            {"genes": list("abcdefgh")},
            SelectionError,
            "genes a, b, c, d, e and 3 more not in the model; it has 20 genes",
        ),
        ({"transform_batch": "SRX8"}, SelectionError, "transform_batch=SRX8: SRX_accession of the model has no such"),
        ({"transform_batch": []}, ConfigError, "names no batch"),
        ({"library_size": 0}, ConfigError, r"library_size=0 must be a positive number or \"latent\""),
        ({"n_samples": 0}, ConfigError, "n_samples=0 must be a whole number of draws, at least 1"),
    ],
)
def test_mistakes_are_named(model: VAE, directory: Path, options: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        next(iter(model.expression(directory, **options)))


def test_batches_that_were_not_trained_on_are_refused(directory: Path) -> None:
    model = untrained(directory)
    model.seen[1] = False
    with pytest.raises(SelectionError, match="transform_batch=SRX2: no cell of it was trained on"):
        next(iter(model.expression(directory, transform_batch="SRX2")))
    with pytest.raises(ConfigError, match="corrects for no batch"):
        next(iter(untrained(directory, batch_key=None).expression(directory, transform_batch="SRX2")))


def test_a_model_of_normalised_values_has_no_shares(directory: Path) -> None:
    with pytest.raises(ConfigError, match="likelihood Gaussian has no expected shares of counts; use a model of"):
        next(iter(untrained(directory, likelihood="gaussian").expression(directory)))
