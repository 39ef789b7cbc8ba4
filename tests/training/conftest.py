from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, open_dict
from tests.support.datasets import make_dataset

from scvae_data.config import conf_dir

Compose = Callable[..., DictConfig]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Matrices this small gain nothing from threads, and lose much where other tests use the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 cells × 40 genes in 10 chunks, three experiments."""
    path, _, _ = make_dataset(tmp_path_factory.mktemp("data") / "chunks", n_obs=600, n_vars=40, chunk_size=60)
    return path


@contextmanager
def composing() -> Iterator[None]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield


@pytest.fixture(scope="session")
def train_config(dataset: Path) -> Compose:
    """Compose train.yaml for the small dataset: ``train_config(run_dir, "trainer.max_epochs=1", …)``."""

    def make(run_dir: Path, *overrides: str) -> DictConfig:
        settings = [
            f"paths.processed_dir={dataset}", f"paths.output_dir={run_dir}", "trainer.max_epochs=2",
            "trainer.accelerator=cpu", "trainer.log_every_n_steps=5", "data.batch_size=64", "model.n_latent=3",
            "model.n_hidden=16", "model.lr=0.01", "outputs.picture=pca", *overrides,
        ]  # fmt: skip
        with composing():
            cfg = compose("train", overrides=settings)
        with open_dict(cfg):
            cfg.pop("hydra", None)
        return cfg

    return make
