"""A small dataset, and runs on it that tests share."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, open_dict
from tests.support.datasets import make_dataset
from tests.support.warm import run_python

from scvae_data.config import conf_dir

Compose = Callable[..., DictConfig]
# Options of runs that several tests look at.
GAUSSIAN = ("model=vae_gaussian", "logger=none", "trainer.max_epochs=1", "outputs.picture=none")
ZINB = ("model=vae_zinb", "logger=csv", "trainer.max_epochs=1", "outputs=none")
N_STEPS, EVERY = 36, 4  # 4 epochs of 9 steps; steps between checkpoints
# Everything that draws random numbers or depends on the epoch.
STEPWISE = (
    "logger=csv", "outputs=none", "trainer.max_epochs=4", "model.dropout=0.3", "model.unknown_dropout=0.3",
    "model.kl_warmup_epochs=3", "callbacks.checkpoint.monitor=null", "callbacks.early_stopping=null",
    f"+callbacks.checkpoint.every_n_train_steps={EVERY}", "callbacks.progress_bar=null",
)  # fmt: skip


class Run(NamedTuple):
    """A finished run: its directory, and what it returned."""

    path: Path
    metrics: dict[str, Any]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Matrices this small gain nothing from threads; before each test, as numba sets them for the whole process."""
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


@pytest.fixture(scope="session")
def trained(train_config: Compose, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Train, once with the same options; tests that change the directory copy it."""
    from scvae_data.training.run import train  # here: tests of plots or reports start without Lightning

    @functools.cache
    def run(*options: str) -> Run:
        run_dir = tmp_path_factory.mktemp("run")
        torch.set_num_threads(1)  # runs with one number of threads have the same bits
        return Run(run_dir, train(train_config(run_dir, *options)))

    return run


@pytest.fixture(scope="session")
def finished(trained: Callable[..., Run]) -> Run:
    """A run of two epochs with W&B offline."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        return trained("logger=wandb", "model.encode_batch=true")


def bare_environment(home: Path) -> dict[str, str]:
    """What a program of its own is started with: nothing that is the user's, no threads that take the cores."""
    passed_on = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "NUMBA_CACHE_DIR") if name in os.environ}
    return {"HOME": str(home), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", **passed_on}


CUT = """
import os, sys
from scvae_data import VAE
from scvae_data.commands.train import main

at, signum, step, calls = int(sys.argv.pop(1)), int(sys.argv.pop(1)), VAE.training_step, 0
def asked(self, *batch):
    global calls
    calls += 1
    if calls == at:
        os.kill(os.getpid(), signum)
    return step(self, *batch)
VAE.training_step = asked
main()
"""


def run_train(folder: Path, *arguments: str, at: int = 0, signum: int = 0) -> subprocess.CompletedProcess[str]:
    """Run ``train.py``; in its step ``at``, counted over the jobs of a sweep, it gets a signal."""
    return run_python("-c", CUT, str(at), str(int(signum)), *arguments, cwd=folder, env=bare_environment(folder))
