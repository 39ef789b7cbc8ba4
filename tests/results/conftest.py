"""A small directory, and a model of its cells with weights that no training has made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.datasets import make_dataset

from scvae_data import VAE, ChunkedDataModule
from scvae_data.models.dataset_facts import facts_of

N_OBS, N_VARS = 60, 20
KEY = "SRX_accession"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Matrices this small gain nothing from threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 cells × 20 genes in 3 chunks, three experiments."""
    path, _, _ = make_dataset(tmp_path_factory.mktemp("results") / "chunks", n_obs=N_OBS, n_vars=N_VARS, chunk_size=20)
    return path


def untrained(directory: Path, **options: Any) -> VAE:
    """A model whose every parameter differs from its starting value, and which has seen all batches."""
    data = ChunkedDataModule(directory, batch_size=1, split=None, normalized=False)
    data.setup("predict")
    settings = {"n_latent": 3, "n_hidden": 8, "batch_key": KEY, "encode_batch": True, "norm": "layer"} | options
    model = VAE(**settings, facts=facts_of(data, settings["batch_key"]))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        model.configure_model()
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    if settings["batch_key"]:
        model.seen[:-1] = True
    return model.eval()


@pytest.fixture(scope="session")
def model(directory: Path) -> VAE:
    return untrained(directory)


def whole(blocks: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rows and values of all blocks, one below the other."""
    rows, values = zip(*blocks, strict=True)
    return np.concatenate(rows), np.concatenate(values)
