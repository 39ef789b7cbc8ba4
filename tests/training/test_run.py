"""Whole training runs on a small dataset: what they leave in the run directory and in the W&B record."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from lightning.pytorch.accelerators import AcceleratorRegistry
from omegaconf import OmegaConf
from tests.support.datasets import make_dataset
from tests.support.wandb_records import read_run
from tests.training.conftest import Compose

from scvae_data import VAE, open_index
from scvae_data.errors import ConfigError, ScvaeDataError, SelectionError
from scvae_data.training.embed import embed
from scvae_data.training.plots import latent_picture
from scvae_data.training.report import next_lines
from scvae_data.training.resume import continued
from scvae_data.training.run import train

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")

STEP_CHECKPOINTS = (
    "callbacks.checkpoint.monitor=null", "+callbacks.checkpoint.every_n_train_steps=4", "callbacks.early_stopping=null",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, train_config: Compose) -> tuple[Path, dict[str, Any]]:
    """A run of two epochs with W&B offline; its directory and what it returned."""
    run_dir = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        return run_dir, train(train_config(run_dir, "logger=wandb"))


def test_run_directory_is_complete(finished: tuple[Path, dict[str, Any]]) -> None:
    run_dir, metrics = finished
    files = {str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if "wandb" not in path.parts}
    assert files >= {
        "config.yaml", "run.json", "result.json", "metrics.csv", "report.md", "latents.h5ad", "latents.png",
        "training_curves.png", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
    }  # fmt: skip
    assert json.loads((run_dir / "result.json").read_text()) == metrics
    assert not list(run_dir.rglob("*.tmp"))


def test_metrics_hold_loss_speed_and_cache(finished: tuple[Path, dict[str, Any]]) -> None:
    _, metrics = finished
    assert metrics["val/loss"] == pytest.approx(-metrics["val/elbo"], rel=1e-5)
    assert metrics["cells_per_s"] > 0
    assert 0 <= metrics["wait_share"] <= 1
    # 10 chunks twice with room for 4: the second epoch starts with what the first ended with.
    assert (metrics["hits"], metrics["misses"]) == (4, 16)
    assert metrics["hit_rate"] == metrics["predicted_hit_rate"] == 0.2
    assert metrics["holds_all_chunks"] is False
    assert 0 < metrics["cell_type_separation"] < 1
    assert "batch_mixing" not in metrics  # each cell type is of one experiment


def test_wandb_record_holds_everything(finished: tuple[Path, dict[str, Any]], dataset: Path) -> None:
    run_dir, metrics = finished
    run = read_run(run_dir / "wandb")
    assert run.exit_code == 0
    assert run.run_id == json.loads((run_dir / "run.json").read_text())["wandb_id"]
    assert run.tags == ["simulated demo"]
    assert run.config["data"]["batch_size"] == 64
    assert run.config["model"]["batch_key"] == "SRX_accession"
    assert run.config["dataset"]["content_hash"] == open_index(dataset).content_hash
    assert run.config["dataset"]["n_vars"] == 40
    steps = [row["trainer/global_step"] for row in run.history if "train/loss" in row]
    assert steps == [4, 9, 14]  # 9 batches an epoch, every fifth
    for name in ("train/elbo", "train/recon", "train/kl", "throughput/cells_per_s", "throughput/wait_share"):
        assert len(run.series(name)) >= 3, name
    assert run.series("cache/train/hits")[-1] == metrics["hits"]
    assert run.series("cache/train/misses")[-1] == metrics["misses"]
    assert "cache/train/evictions" in run.history[-3] or run.series("cache/train/evictions")
    assert len(run.series("val/elbo")) == 2
    assert len(run.series("val/active_units")) == 2
    assert run.series("best/val/elbo") == pytest.approx([metrics["val/elbo"]])
    assert sum(name.endswith(".png") for name in run.files) >= 2 or run.series("latent_picture")
    assert run.series("latents/cell_type_separation") == pytest.approx([metrics["cell_type_separation"]])
    (used,) = run.datasets()
    assert used.is_input
    assert used.metadata["content_hash"] == open_index(dataset).content_hash
    assert used.references == {"chunk_index.json": (dataset / "chunk_index.json").as_uri()}


def test_an_epoch_has_a_row_however_few_its_batches(tmp_path: Path, train_config: Compose) -> None:
    options = ("logger=csv", "outputs=none", "trainer.max_epochs=3", "trainer.log_every_n_steps=1000")
    train(train_config(tmp_path, *options, "data.batch_size=256"))
    rows = pd.read_csv(tmp_path / "metrics.csv").dropna(subset="train/elbo")
    assert rows["step"].tolist() == [2, 5, 8]  # 540 cells are 3 batches


def test_without_validation_cells_the_last_checkpoint_is_the_best(tmp_path: Path, train_config: Compose) -> None:
    metrics = train(train_config(tmp_path, "logger=csv", "outputs=none", "data.split=null"))
    assert "val/elbo" not in metrics
    best, last = (torch.load(tmp_path / "checkpoints" / f"{n}.ckpt", weights_only=True) for n in ("best", "last"))
    assert best["global_step"] == last["global_step"] > 0


@pytest.mark.parametrize("override", ["outputs.cell_type_key=kind", "outputs.colours=[kind]"])
def test_unknown_columns_are_refused_before_training(tmp_path: Path, train_config: Compose, override: str) -> None:
    with pytest.raises(ConfigError, match=r"outputs\.\w+: no obs column kind; there are SRX_accession, "):
        train(train_config(tmp_path, "logger=none", override))


def test_cells_of_damaged_chunks_are_told_at_the_end(tmp_path: Path, train_config: Compose, dataset: Path) -> None:
    damaged, run_dir = tmp_path / "chunks", tmp_path / "run"
    shutil.copytree(dataset, damaged)
    (damaged / "chunk_0003.h5").unlink()  # 60 cells, of which 54 are for training and 6 for validation, or about so
    options = ("logger=none", "outputs=none", "data.on_bad_chunk=skip", f"paths.processed_dir={damaged}")
    metrics = train(train_config(run_dir, *options))
    assert metrics["bad_chunks"] == 1
    assert 2 * 40 < metrics["skipped_cells"] < 2 * 60 + 20  # in two epochs of training and three validations
    assert f"| skipped | {metrics['skipped_cells']} cells of 1 damaged chunk, " in (run_dir / "report.md").read_text()


def test_an_accelerator_that_is_not_there_is_refused_before_anything_is_made(
    tmp_path: Path, train_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("cuda", "mps"):
        monkeypatch.setattr(AcceleratorRegistry[kind]["accelerator"], "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"trainer\.accelerator=gpu: this machine has none; trainer.acc"):
        train(train_config(tmp_path / "run", "trainer.accelerator=gpu"))
    assert not (tmp_path / "run").exists()


def test_config_is_saved_resolved(finished: tuple[Path, dict[str, Any]], dataset: Path) -> None:
    run_dir, _ = finished
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert config["data"]["data_path"] == str(dataset)
    assert config["data"]["normalized"] is False
    assert "${" not in (run_dir / "config.yaml").read_text()


def test_checkpoint_is_plain_and_loads_without_data(finished: tuple[Path, dict[str, Any]], dataset: Path) -> None:
    run_dir, _ = finished
    checkpoint = torch.load(run_dir / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["scvae_data"]["config"]["model"]["n_latent"] == 3
    assert checkpoint["scvae_data"]["facts"]["content_hash"] == open_index(dataset).content_hash
    assert VAE.load_from_checkpoint(run_dir / "checkpoints" / "best.ckpt").hparams["n_latent"] == 3


def test_latents_are_those_of_all_cells_in_order(finished: tuple[Path, dict[str, Any]], dataset: Path) -> None:
    run_dir, _ = finished
    adata = anndata.read_h5ad(run_dir / "latents.h5ad")
    obs = pd.read_parquet(dataset / "obs.parquet")
    assert adata.obs_names.tolist() == obs["obs_name"].tolist()
    assert adata.obsm["X_scvae"].shape == (600, 3)
    assert np.isfinite(adata.obsm["X_scvae"]).all()
    assert adata.obs["source_row"].tolist() == obs["source_row"].tolist()
    assert adata.obs["cell_type"].isna().sum() == obs["cell_type"].isna().sum() > 0


def test_what_the_report_says_to_go_on_with_runs_as_it_stands(finished: tuple[Path, dict[str, Any]]) -> None:
    run_dir, _ = finished
    (lines,) = re.findall(r"^```python\n(.*?)^```", (run_dir / "report.md").read_text(), re.MULTILINE | re.DOTALL)
    assert lines.splitlines() == next_lines(run_dir / "latents.h5ad")
    names: dict[str, Any] = {}
    exec(compile(lines, "report.md", "exec"), names)
    assert 1 < names["adata"].obs["leiden"].nunique() < 60
    assert names["adata"].obsm["X_umap"].shape == (600, 2)


def test_the_same_latents_and_seed_give_the_same_umap(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    pictures = [tmp_path / f"{name}.png" for name in ("first", "second", "other seed")]
    for picture, seed in zip(pictures, (3, 3, 4), strict=True):
        latents = finished[0] / "latents.h5ad"
        drawn = latent_picture(latents, picture, colours=["cell_type", "none"], method="umap", max_cells=600, seed=seed)
        assert drawn == ["cell_type"]
    first, second, other = (picture.read_bytes() for picture in pictures)
    assert first == second != other


def test_a_disabled_wandb_leaves_no_record(
    tmp_path: Path, train_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    train(train_config(tmp_path, "logger=wandb", "trainer.max_epochs=1", "outputs=none"))
    assert not list(tmp_path.rglob("*.wandb"))
    assert (tmp_path / "metrics.csv").is_file()


def test_an_error_is_recorded_and_the_next_run_is_another(
    tmp_path: Path, train_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(VAE, "elbo_terms", _diverged)
    with pytest.raises(ScvaeDataError, match=r"step 0: \d+ of \d+ cells, global rows .* of SRX1, SRX2, SRX3;"):
        train(train_config(tmp_path / "a", "logger=wandb"))
    monkeypatch.undo()
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(train_config(tmp_path / "b", "logger=wandb", "trainer.max_epochs=1", "outputs=none"))
    failed, good = read_run(tmp_path / "a"), read_run(tmp_path / "b")
    assert (failed.exit_code, good.exit_code) == (1, 0)
    assert failed.run_id != good.run_id


def _diverged(self: VAE, batch: dict[str, Any], noise_seed: int | None = None) -> dict[str, torch.Tensor]:
    n = len(batch["index"])
    return {"recon": torch.full((n,), float("nan")), "kl": torch.zeros(n), "latent": torch.zeros(n, 3)}


@pytest.mark.parametrize("logger", ["none", "csv"])
def test_loggers_are_optional(tmp_path: Path, train_config: Compose, logger: str) -> None:
    train(train_config(tmp_path, f"logger={logger}", "trainer.max_epochs=1", "outputs=none"))
    assert (tmp_path / "metrics.csv").exists() == (logger == "csv")


@pytest.mark.parametrize("model", ["vae_zinb", "vae_gaussian"])
def test_other_models_train(tmp_path: Path, train_config: Compose, model: str) -> None:
    metrics = train(train_config(tmp_path, f"model={model}", "logger=csv", "trainer.max_epochs=1", "outputs=none"))
    assert np.isfinite(metrics["val/loss"])


def test_a_likelihood_of_ones_own_trains_resumes_and_embeds_where_it_is_named(
    tmp_path: Path, train_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_likelihoods.py").write_text("from tests.support.poisson import Poisson\n")
    monkeypatch.syspath_prepend(tmp_path)
    named = "model.likelihood=my_likelihoods.Poisson"
    run_dir = tmp_path / "run"
    train(train_config(run_dir, named, "logger=none", "trainer.max_epochs=1", "outputs.picture=none"))
    embedding = ("mode=embed", f"ckpt={run_dir}/checkpoints/best.ckpt", "outputs.picture=none")
    embed(train_config(tmp_path / "embedded", named, *embedding))
    assert (tmp_path / "embedded" / "latents.h5ad").is_file()
    resumed = train_config(tmp_path / "unused", named)
    resumed.resume_from = str(run_dir)
    assert continued(resumed, ["model.likelihood"]).model.likelihood == "my_likelihoods.Poisson"
    with pytest.raises(ConfigError, match=r"model\.likelihood=my_likelihoods\.Poisson is not run"):
        continued(resumed, [])
    monkeypatch.delitem(sys.modules, "my_likelihoods")
    with pytest.raises(ConfigError, match=r"my_likelihoods\.Poisson is not imported"):
        embed(train_config(tmp_path / "refused", *embedding))


@pytest.mark.parametrize("max_steps", [pytest.param(12, id="mid-epoch"), pytest.param(18, id="between epochs")])
def test_resumed_run_ends_with_the_weights_of_the_uninterrupted_one(
    tmp_path: Path, train_config: Compose, max_steps: int
) -> None:
    options = ("logger=csv", "outputs=none", "trainer.max_epochs=4", *STEP_CHECKPOINTS)
    if max_steps == 18:
        options = (*options, "callbacks.checkpoint.every_n_train_steps=9")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(train_config(whole, *options))
    train(train_config(parts, *options, f"++trainer.max_steps={max_steps}"))
    stopped = OmegaConf.load(parts / "config.yaml")
    stopped.trainer.max_steps = -1
    OmegaConf.save(stopped, parts / "config.yaml")
    cfg = train_config(tmp_path / "unused", *options)
    cfg.resume_from = str(parts)
    train(cfg)
    ours, theirs = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (parts, whole))
    assert ours["global_step"] == theirs["global_step"] == 36
    for name, weights in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], weights), name
    steps = pd.read_csv(parts / "metrics.csv").dropna(subset="train/loss")["step"]
    assert steps.is_monotonic_increasing


def test_resume_refuses_another_dataset(tmp_path: Path, train_config: Compose) -> None:
    run_dir = tmp_path / "run"
    train(train_config(run_dir, "logger=none", "outputs=none", "trainer.max_epochs=1"))
    other, _, _ = make_dataset(tmp_path / "other", n_obs=300, n_vars=40, chunk_size=60, seed=1)
    saved = OmegaConf.load(run_dir / "config.yaml")
    saved.data.data_path = str(other)
    OmegaConf.save(saved, run_dir / "config.yaml")
    cfg = train_config(tmp_path / "unused", "trainer.max_epochs=2")
    cfg.resume_from = str(run_dir)
    with pytest.raises(SelectionError, match="was trained on the dataset"):
        train(cfg)


def test_resume_from_what_is_no_run(tmp_path: Path, train_config: Compose) -> None:
    cfg = train_config(tmp_path / "unused")
    cfg.resume_from = str(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"has no config\.yaml; give the directory of a training run"):
        train(cfg)


def test_sigterm_ends_the_wandb_run(tmp_path: Path, train_config: Compose) -> None:
    cfg = train_config(tmp_path / "run", "logger=wandb", "trainer.max_epochs=10000", "callbacks.early_stopping=null")
    OmegaConf.save(cfg, tmp_path / "cfg.yaml", resolve=True)
    program = """
        import sys
        from omegaconf import OmegaConf
        from scvae_data.training.run import train
        train(OmegaConf.load(sys.argv[1]))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "cfg.yaml")],
        env={"WANDB_MODE": "offline", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.terminate()
    assert process.wait(timeout=30) == 143
    run = read_run(tmp_path / "run" / "wandb")
    assert run.exit_code == 143
    assert run.series("train/loss")
    assert not (tmp_path / "run" / "latents.h5ad").exists()


def test_resume_takes_the_saved_configuration_and_what_the_command_line_sets(
    tmp_path: Path, train_config: Compose
) -> None:
    saved = train_config(tmp_path, "model.n_latent=7")
    OmegaConf.save(saved, tmp_path / "config.yaml", resolve=True)
    now = train_config(tmp_path / "new", "model.n_latent=2", "trainer.max_epochs=9", "trainer=default")
    now.resume_from = str(tmp_path)
    merged = continued(now, ["resume_from", "trainer.max_epochs", "hydra.run.dir", "data.batch_size"])
    assert (merged.model.n_latent, merged.trainer.max_epochs, merged.data.batch_size) == (7, 9, 64)
    assert merged.paths.output_dir == merged.resume_from == str(tmp_path)
    assert "hydra" not in merged
