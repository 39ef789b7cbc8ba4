"""Two processes train as one: on the same cells, to the same gradients, with one log and every latent."""

from __future__ import annotations

import functools
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import psutil
import pytest
import torch
from omegaconf import OmegaConf
from tests.support.warm import run_python
from tests.training.conftest import Compose, bare_environment

from scvae_data import VAE, ChunkedDataModule
from scvae_data.errors import ConfigError
from scvae_data.loading.loader import BatchLoader
from scvae_data.training.experiment_scores import read_scores
from scvae_data.training.ranks import Ranks, device_count, found_ranks, together

ROOT = Path(__file__).parents[2]
TWO = ("trainer=ddp", "trainer.devices=2")
SMALL = (
    "trainer.accelerator=cpu", "trainer.max_epochs=2", "data.batch_size=64", "model.n_latent=3", "model.n_hidden=16",
    "outputs.picture=pca", "logger=csv",
)  # fmt: skip

NOISY = (
    "logger=csv", "outputs=none", "trainer.max_epochs=4", "model.dropout=0.3", "model.unknown_dropout=0.3",
    "model.kl_warmup_epochs=3", "callbacks.early_stopping=null", "callbacks.progress_bar=null",
)  # fmt: skip

PROGRAM = """
import os, signal, sys
from omegaconf import OmegaConf
from scvae_data import VAE
from scvae_data.training.run import train

where, at = sys.argv[2], int(sys.argv[3])
step, calls = getattr(VAE, where), 0
def asked(self, *batch):
    global calls
    calls += 1
    if calls == at:
        os.kill(os.getpid(), signal.SIGUSR1)
    return step(self, *batch)
setattr(VAE, where, asked)
if __name__ == "__main__":
    train(OmegaConf.load(sys.argv[1]))
"""

GRADIENTS = """
import sys, torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from scvae_data.models.networks import Encoder, MlpShape

rank, size, port = (int(text) for text in sys.argv[1:4])
torch.manual_seed(0)
encoder = Encoder(7, 3, MlpShape(n_hidden=5, n_layers=2), dropout=0.0)
x, towards = torch.randn(12, 7), torch.randn(12, 3)
if size > 1:
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    model = DistributedDataParallel(encoder, broadcast_buffers=False)
else:
    model = encoder
for step in range(3):
    encoder.zero_grad()
    mean, log_var = model(x[rank::size], None)
    ((mean - towards[rank::size]).square().sum(1) + log_var.exp().sum(1)).mean().backward()
torch.save([dict(encoder.named_buffers()), {name: p.grad for name, p in encoder.named_parameters()}], sys.argv[4])
"""


def last(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    return found


def run_train(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run_python(ROOT / "train.py", *options, cwd=folder, env=bare_environment(folder))


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run of two ranks, by the command line."""
    folder = tmp_path_factory.mktemp("two")
    done = run_train(folder, *TWO, *SMALL, f"paths.processed_dir={dataset}", f"hydra.run.dir={folder / 'run'}")
    assert done.returncode == 0, done.stderr
    return folder / "run", done


@pytest.mark.services
def test_every_cell_has_its_latent_in_order_and_it_is_that_of_one_rank(of_two: tuple[Path, Any], dataset: Path) -> None:
    run_dir, _ = of_two
    latents = ad.read_h5ad(run_dir / "latents.h5ad")
    data = ChunkedDataModule(dataset, batch_size=64, normalized=False)
    data.setup()
    model = VAE.load_from_checkpoint(run_dir / "checkpoints" / "best.ckpt").eval()
    with torch.inference_mode():
        alone = torch.cat([model(batch) for batch in data.predict_dataloader()])
    assert latents.n_obs == data.n_obs == 600
    np.testing.assert_array_equal(latents.obs_names, data.index.obs([]).index)
    np.testing.assert_allclose(latents.obsm["X_scvae"], alone.numpy(), rtol=1e-5, atol=1e-6)
    assert not list(run_dir.glob(".latents*"))


@pytest.mark.services
def test_scores_of_experiments_are_of_the_cells_of_both_ranks(of_two: tuple[Path, Any]) -> None:
    run_dir, _ = of_two
    scored = read_scores(run_dir / "experiment_scores.parquet")
    assert scored.n_cells == json.loads((run_dir / "run.json").read_text())["facts"]["n_val"]
    assert scored.mean("elbo") == pytest.approx(json.loads((run_dir / "result.json").read_text())["val/elbo"], rel=1e-6)


@pytest.mark.services
def test_one_log_one_summary_and_no_warning(of_two: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = of_two
    lines = done.stderr.splitlines()
    assert len([line for line in lines if re.search(r"epoch \d: ", line)]) == 2
    assert len([line for line in lines if "2 ranks: 64 cells a batch and rank, 128 a step" in line]) == 1
    assert not [line for line in lines if "sync_dist" in line or "WARNING" in line], done.stderr
    assert done.stdout.count("best model") == 1


@pytest.mark.services
def test_metrics_are_those_of_one_process_on_the_same_batches(of_two: tuple[Path, Any], dataset: Path) -> None:
    run_dir, _ = of_two
    data = ChunkedDataModule(dataset, batch_size=64, normalized=False, x_format="csr")
    data.setup()
    model = VAE.load_from_checkpoint(run_dir / "checkpoints" / "best.ckpt").eval()
    elbo, latent = [], []
    for rank in range(2):
        spec = data._spec("val")
        loader = BatchLoader(replace(spec, sampler=replace(spec.sampler, world_size=2, rank=rank)))
        with torch.inference_mode():
            for number, batch in enumerate(loader):
                terms = model.elbo_terms(batch, noise_seed=number)
                elbo.append(terms["recon"] - terms["kl"])
                latent.append(terms["latent"])
    cells = torch.cat(latent)
    assert len(cells) == data.n_cells("val")
    result = json.loads((run_dir / "result.json").read_text())
    assert result["val/elbo"] == pytest.approx(float(torch.cat(elbo).mean()), rel=1e-5)
    assert result["val/active_units"] == int((cells.var(dim=0, correction=0) > 0.01).sum())


def test_gradients_and_batch_statistics_are_those_of_one_process(tmp_path: Path) -> None:
    (tmp_path / "gradients.py").write_text(GRADIENTS)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    def program(rank: int, size: int) -> list[str]:
        out = tmp_path / f"{size}-{rank}.pt"
        return [str(tmp_path / "gradients.py"), str(rank), str(size), str(port), str(out)]

    environment = bare_environment(tmp_path)
    ranks = [subprocess.Popen([sys.executable, *program(rank, 2)], env=environment) for rank in range(2)]
    run_python(*program(0, 1), cwd=tmp_path, env=environment).check_returncode()
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    whole, *halves = (torch.load(tmp_path / name) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    for half in halves:
        for found, expected in zip(half, whole, strict=True):
            assert found.keys() == expected.keys()
            for name, values in expected.items():
                torch.testing.assert_close(found[name], values, rtol=1e-4, atol=1e-6)


RunProgram = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run_program(tmp_path_factory: pytest.TempPathFactory, train_config: Compose) -> RunProgram:
    """Train with noise in ``run_dir``; the first rank is sent a signal at a call of a method, 0 for none."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "program.py").write_text(PROGRAM)

    def run(
        run_dir: Path, n_ranks: int, where: str = "training_step", call: int = 0, *more: str
    ) -> subprocess.CompletedProcess[str]:
        OmegaConf.save(
            train_config(run_dir, *NOISY, *(TWO if n_ranks == 2 else ()), *more), folder / "cfg.yaml", resolve=True
        )
        program = [folder / "program.py", folder / "cfg.yaml", where, str(call)]
        return run_python(*program, cwd=folder, env=bare_environment(folder))

    return run


@pytest.fixture(scope="module")
def whole(run_program: RunProgram, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A run that nobody stops."""

    @functools.cache
    def run(n_ranks: int) -> Path:
        run_dir = tmp_path_factory.mktemp("whole")
        assert run_program(run_dir, n_ranks).returncode == 0
        return run_dir

    return run


@pytest.mark.parametrize(
    ("n_ranks", "where", "call"),
    [
        (1, "training_step", 14),
        (1, "validation_step", 3),
        pytest.param(2, "training_step", 7, marks=pytest.mark.services),
        pytest.param(2, "validation_step", 3, marks=pytest.mark.services),
    ],
)
def test_stopped_anywhere_it_goes_on_bit_equal(
    tmp_path: Path, run_program: RunProgram, whole: Callable[[int], Path], n_ranks: int, where: str, call: int
) -> None:
    stopped = run_program(tmp_path / "run", n_ranks, where, call)
    assert stopped.returncode == 128 + signal.SIGUSR1, stopped.stderr
    wanted = last(whole(n_ranks))
    assert 0 < last(tmp_path / "run")["global_step"] < wanted["global_step"]
    resumed = run_train(tmp_path, f"resume_from={tmp_path / 'run'}")
    assert resumed.returncode == 0, resumed.stderr
    found = last(tmp_path / "run")
    assert found["global_step"] == wanted["global_step"]
    for name, weights in wanted["state_dict"].items():
        assert torch.equal(found["state_dict"][name], weights), name
    results = [json.loads((path / "result.json").read_text()) for path in (whole(n_ranks), tmp_path / "run")]
    assert results[0]["val/elbo"] == results[1]["val/elbo"]


@pytest.mark.services
def test_a_run_of_one_rank_goes_on_with_two(
    tmp_path: Path, run_program: RunProgram, whole: Callable[[int], Path]
) -> None:
    assert run_program(tmp_path / "run", 1, "training_step", 14).returncode == 128 + signal.SIGUSR1
    resumed = run_train(tmp_path, f"resume_from={tmp_path / 'run'}", "trainer.devices=2")
    assert resumed.returncode == 0, resumed.stderr
    # 9 steps an epoch for one rank and 5 for two; the 4 that one had left of the second are 2.
    assert last(tmp_path / "run")["global_step"] == 14 + 2 + 2 * 5


def test_a_signal_while_the_rest_is_made_ends_at_once(tmp_path: Path, run_program: RunProgram) -> None:
    done = run_program(tmp_path / "run", 1, "predict_step", 1, "outputs=default")
    assert done.returncode == 128 + signal.SIGUSR1, done.stderr
    assert last(tmp_path / "run")["global_step"] > 0
    assert not (tmp_path / "run" / "latents.h5ad").exists()


@pytest.mark.services
def test_a_rank_that_dies_ends_all(tmp_path: Path, train_config: Compose) -> None:
    OmegaConf.save(train_config(tmp_path / "run", *NOISY, *TWO, "trainer.max_epochs=500"), tmp_path / "cfg.yaml", True)
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "cfg.yaml"), "training_step", "0"]
    with (tmp_path / "stderr").open("w") as stderr:
        first = subprocess.Popen(command, env=bare_environment(tmp_path), stderr=stderr)
        until = time.monotonic() + 120
        while not (tmp_path / "run" / "checkpoints").exists() and time.monotonic() < until:
            time.sleep(0.1)
        (other,) = psutil.Process(first.pid).children()
        other.kill()
        assert first.wait(60) == 1
    assert "rank 1 has ended (killed by signal 9)" in (tmp_path / "stderr").read_text()
    assert not psutil.pid_exists(other.pid) or psutil.Process(other.pid).status() == psutil.STATUS_ZOMBIE


def test_ranks_that_something_else_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found_ranks() is None
    ranks = Ranks(size=4, rank=3, local_size=2, local_rank=1, address="10.0.0.1", port=1234)
    with monkeypatch.context() as patch:
        for name, value in ranks.environment().items():
            patch.setenv(name, value)
        assert found_ranks() == ranks
        patch.setenv("RANK", "0")
        config = {"trainer": {"devices": 1}}
        with pytest.raises(ConfigError, match=r"devices=2 trainer\.num_nodes=2") as caught, together(config):
            pass
        assert "4 processes were started together" in str(caught.value)
    slurm = {
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_PROCID": "1", "SLURM_LOCALID": "0",
        "SLURM_STEP_NODELIST": "node[7-8]", "SLURM_JOB_ID": "41", "SLURM_STEP_ID": "0",
    }  # fmt: skip
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    assert found_ranks() == Ranks(2, 1, 1, 0, "node7", 15_287)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert found_ranks() is None


def test_nodes_need_somebody_who_starts_them() -> None:
    config = {"trainer": {"devices": 2, "num_nodes": 3}}
    with pytest.raises(ConfigError, match=r"srun --nodes=3 --ntasks-per-node=2"), together(config):
        pass


def test_devices() -> None:
    counts = {1: 1, 2: 2, "3": 3, "0,1": 2, "auto": 1, -1: 1}
    on_cpu = {devices: device_count({"devices": devices, "accelerator": "cpu"}) for devices in counts}
    assert on_cpu == counts
    assert device_count({"devices": [0, 1]}) == 2
    with pytest.raises(ConfigError, match=r"trainer\.devices=many"):
        device_count({"devices": "many"})
