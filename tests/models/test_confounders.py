"""A simulated confounder is gone from the latents of a model that is given it, and stays in those of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from sklearn.linear_model import LinearRegression
from sklearn.metrics import silhouette_score
from tests.support.fake_data import FakeData

from scvae_data import VAE

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*")

N_OBS, N_VARS = 512, 40


def confounded() -> tuple[FakeData, np.ndarray]:
    """Counts that depend on a cell's type, its chemistry and a number; and the types."""
    rng = np.random.default_rng(0)
    kind, chemistry = rng.integers(0, 2, N_OBS), rng.integers(0, 2, N_OBS)
    stress = rng.normal(5.0, 3.0, N_OBS)
    effects = rng.normal(0.0, 0.7, (3, N_VARS))
    causes = np.column_stack([kind - 0.5, chemistry - 0.5, (stress - 5) / 6])
    data = FakeData(
        N_OBS, N_VARS, batch_size=64,
        categorical={"chemistry": [f"v{2 + code}" for code in chemistry]}, continuous={"stress": stress.tolist()},
    )  # fmt: skip
    data.x = torch.from_numpy(rng.poisson(np.exp(1.5 + causes @ effects)).astype(np.float32))
    return data, kind


def traces(data: FakeData, kind: np.ndarray, tmp_path: Path, **columns: Any) -> tuple[float, float, float]:
    """Silhouettes of types and of chemistries in the latents, and the R² of a linear map to the number."""
    seed_everything(0, verbose=False)
    model = VAE(n_latent=4, n_hidden=32, lr=0.01, kl_warmup_epochs=5, **columns)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    Trainer(
        max_epochs=20, accelerator="cpu", default_root_dir=tmp_path, limit_val_batches=0, log_every_n_steps=1, **quiet
    ).fit(model, datamodule=data)
    with torch.inference_mode():
        z = model.eval()(data.batch(torch.arange(N_OBS))).numpy()
    apart = [float(silhouette_score(z, codes)) for codes in (kind, data.obs["chemistry"].numpy())]
    stress = data.obs["stress"].numpy()
    return *apart, LinearRegression().fit(z, stress).score(z, stress)


def test_a_confounder_is_removed_with_its_column_and_not_without(tmp_path: Path) -> None:
    data, kind = confounded()
    _, chemistries, stress = traces(data, kind, tmp_path)
    assert chemistries > 0.25
    assert stress > 0.8
    columns = {"categorical_covariates": ["chemistry"], "continuous_covariates": ["stress"]}
    types, chemistries, stress = traces(data, kind, tmp_path, **columns)
    assert types > 0.7
    assert chemistries < 0.1
    assert stress < 0.3
