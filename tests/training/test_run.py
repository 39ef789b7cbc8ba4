"""Whole training runs on a small dataset: what they leave in the run directory and in the W&B record."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Callable
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
from tests.support.pages import code_of, rows_of
from tests.support.wandb_records import WandbRun, read_run
from tests.support.warm import run_python
from tests.training.conftest import EVERY, GAUSSIAN, N_STEPS, STEPWISE, ZINB, Compose, Run, bare_environment

from scvae_data import VAE, open_index
from scvae_data.errors import ConfigError, ScvaeDataError, SelectionError
from scvae_data.training.embed import embed
from scvae_data.training.pages import next_lines
from scvae_data.training.plots import latent_picture
from scvae_data.training.resume import continued
from scvae_data.training.run import train


@pytest.fixture(scope="module")
def record(finished: Run) -> WandbRun:
    """What W&B recorded of the run."""
    return read_run(finished.path / "wandb")


def test_run_directory_is_complete(finished: Run) -> None:
    files = {str(path.relative_to(finished.path)) for path in finished.path.rglob("*") if "wandb" not in path.parts}
    assert files >= {
        "config.yaml", "run.json", "result.json", "metrics.csv", "steps.csv", "report.html", "latents.h5ad",
        "latents.png", "training_curves.png", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
    }  # fmt: skip
    assert json.loads((finished.path / "result.json").read_text()) == finished.metrics
    assert not list(finished.path.rglob("*.tmp"))


def test_metrics_hold_loss_and_speed(finished: Run) -> None:
    metrics = finished.metrics
    assert metrics["val/loss"] == pytest.approx(-metrics["val/elbo"], rel=1e-5)
    assert metrics["cells_per_s"] > 0
    assert 0 <= metrics["wait_share"] <= 1


def test_metrics_count_what_the_cache_held(finished: Run) -> None:
    metrics = finished.metrics
    # 10 chunks twice with room for 4: the second epoch starts with what the first ended with.
    assert (metrics["hits"], metrics["misses"]) == (4, 16)
    assert metrics["hit_rate"] == metrics["predicted_hit_rate"] == 0.2
    assert metrics["holds_all_chunks"] is False


def test_metrics_score_the_latents_by_what_is_known(finished: Run) -> None:
    assert 0 < finished.metrics["cell_type_separation"] < 1
    assert "batch_mixing" not in finished.metrics  # each cell type is of one experiment


def test_latents_tell_the_side_of_each_cell(finished: Run, dataset: Path) -> None:
    split = anndata.read_h5ad(finished.path / "latents.h5ad").obs["split"]
    facts = json.loads((finished.path / "run.json").read_text())["facts"]
    assert split.value_counts().to_dict() == {"train": facts["n_train"], "val": facts["n_val"]}
    low = open_index(dataset).obs(["split_hash"])["split_hash"] < 0.1 * 2**32
    assert (split == "val").tolist() == low.tolist()


def test_the_report_says_what_held_out_cells_share_with_training(finished: Run) -> None:
    report = (finished.path / "report.html").read_text()
    assert ["SRX_accession", "validation", "3", "3", "100.0 %", ""] in rows_of(report)
    assert "Copies of one cell in several parts: not known" in report


def test_wandb_run_has_ended_well_under_the_name_of_the_directory(finished: Run, record: WandbRun) -> None:
    assert record.exit_code == 0
    assert record.run_id == json.loads((finished.path / "run.json").read_text())["wandb_id"]
    assert (record.tags, record.job_type) == (["simulated demo"], "train")


def test_wandb_draws_epochs_over_epochs_and_knows_the_best(record: WandbRun) -> None:
    of_epochs = ("val/elbo", "val/*", "train/elbo_epoch")
    assert [record.metrics[name].step_metric for name in of_epochs] == ["epoch"] * 3
    assert record.metrics["val/elbo"].summary.max and record.metrics["val/elbo"].summary.last
    assert all(record.metrics[name].options.hidden for name in ("cache/*", "best/*", "latents/*"))
    speeds = record.series("throughput/cells_per_s")
    assert record.summary["throughput/cells_per_s"] == {"mean": pytest.approx(np.mean(speeds), rel=1e-4)}
    assert {"best/val/elbo", "latents/cell_type_separation"} <= record.summary.keys()
    assert not record.metrics["cache/train/hit_rate"].options.hidden


def test_wandb_record_holds_configuration_and_dataset(record: WandbRun, dataset: Path) -> None:
    assert record.config["data"]["batch_size"] == 64
    assert record.config["model"]["batch_key"] == "SRX_accession"
    assert record.config["dataset"]["content_hash"] == open_index(dataset).content_hash
    assert record.config["dataset"]["n_vars"] == 40


def test_wandb_record_has_a_row_every_few_steps(record: WandbRun) -> None:
    steps = [row["trainer/global_step"] for row in record.history if "train/loss" in row]
    assert steps == [4, 9, 14]  # 9 batches an epoch, every fifth
    for name in ("train/elbo", "train/recon", "train/kl", "throughput/cells_per_s", "throughput/wait_share"):
        assert len(record.series(name)) >= 3, name


def test_wandb_record_counts_what_the_cache_held(finished: Run, record: WandbRun) -> None:
    assert record.series("cache/train/hits")[-1] == finished.metrics["hits"]
    assert record.series("cache/train/misses")[-1] == finished.metrics["misses"]
    assert "cache/train/evictions" in record.history[-3] or record.series("cache/train/evictions")


def test_wandb_record_holds_validation_of_each_epoch_and_the_best(finished: Run, record: WandbRun) -> None:
    assert len(record.series("val/elbo")) == 2
    assert len(record.series("val/active_units")) == 2
    assert record.series("best/val/elbo") == pytest.approx([finished.metrics["val/elbo"]])


def test_wandb_record_holds_pictures_and_scores(finished: Run, record: WandbRun) -> None:
    assert sum(name.endswith(".png") for name in record.files) >= 2 or record.series("latent_picture")
    assert record.series("latents/cell_type_separation") == pytest.approx([finished.metrics["cell_type_separation"]])


def test_wandb_run_used_the_dataset(record: WandbRun, dataset: Path) -> None:
    (used,) = record.datasets()
    assert used.is_input
    assert used.metadata["content_hash"] == open_index(dataset).content_hash
    assert used.references == {"chunk_index.json": (dataset / "chunk_index.json").as_uri()}


def test_an_epoch_has_a_row_however_few_its_batches(tmp_path: Path, train_config: Compose) -> None:
    options = ("logger=csv", "outputs=none", "trainer.max_epochs=3", "trainer.log_every_n_steps=1000")
    train(train_config(tmp_path, *options, "data.batch_size=256"))
    epochs, steps = (pd.read_csv(tmp_path / name) for name in ("metrics.csv", "steps.csv"))
    assert epochs["step"].tolist() == steps["step"].tolist() == [2, 5, 8]  # 540 cells are 3 batches
    assert epochs["epoch"].tolist() == steps["epoch"].tolist() == [0, 1, 2]
    assert {"val/elbo", "train/elbo_epoch", "lr-Adam", "throughput/cells_per_s"} <= {*epochs}
    assert {"train/elbo", "train/kl_weight"} <= {*steps}
    assert not {*epochs} & {"train/elbo", "best/val/elbo"} and not {*steps} & {"val/elbo", "train/elbo_epoch"}
    assert not epochs.isna().any(axis=None) and not steps.isna().any(axis=None)


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
    assert f"Left out: {metrics['skipped_cells']} cells of 1 damaged chunk, " in (run_dir / "report.html").read_text()


def test_an_accelerator_that_is_not_there_is_refused_before_anything_is_made(
    tmp_path: Path, train_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("cuda", "mps"):
        monkeypatch.setattr(AcceleratorRegistry[kind]["accelerator"], "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"trainer\.accelerator=gpu: this machine has none; trainer.acc"):
        train(train_config(tmp_path / "run", "trainer.accelerator=gpu"))
    assert not (tmp_path / "run").exists()


def test_config_is_saved_resolved(finished: Run, dataset: Path) -> None:
    run_dir = finished.path
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert config["data"]["data_path"] == str(dataset)
    assert config["data"]["normalized"] is False
    assert "${" not in (run_dir / "config.yaml").read_text()


def test_checkpoint_is_plain_and_loads_without_data(finished: Run, dataset: Path) -> None:
    run_dir = finished.path
    checkpoint = torch.load(run_dir / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["scvae_data"]["config"]["model"]["n_latent"] == 3
    assert checkpoint["scvae_data"]["facts"]["content_hash"] == open_index(dataset).content_hash
    assert VAE.load_from_checkpoint(run_dir / "checkpoints" / "best.ckpt").hparams["n_latent"] == 3


def test_latents_are_those_of_all_cells_in_order(finished: Run, dataset: Path) -> None:
    run_dir = finished.path
    adata = anndata.read_h5ad(run_dir / "latents.h5ad")
    obs = pd.read_parquet(dataset / "obs.parquet")
    assert adata.obs_names.tolist() == obs["obs_name"].tolist()
    assert adata.obsm["X_scvae"].shape == (600, 3)
    assert np.isfinite(adata.obsm["X_scvae"]).all()
    assert adata.obs["source_row"].tolist() == obs["source_row"].tolist()
    assert adata.obs["cell_type"].isna().sum() == obs["cell_type"].isna().sum() > 0


def test_what_the_report_says_to_go_on_with_runs_as_it_stands(finished: Run) -> None:
    run_dir = finished.path
    (lines,) = [block for block in code_of((run_dir / "report.html").read_text()) if block.startswith("import")]
    assert lines.splitlines() == next_lines(run_dir / "latents.h5ad")
    names: dict[str, Any] = {}
    n_threads = torch.get_num_threads()
    exec(compile(lines, "report", "exec"), names)
    torch.set_num_threads(n_threads)  # numba sets them for the whole process
    assert 1 < names["adata"].obs["leiden"].nunique() < 60
    assert names["adata"].obsm["X_umap"].shape == (600, 2)


def test_the_lines_of_the_report_run_on_more_cells_than_are_compared_in_one_block(tmp_path: Path) -> None:
    latents = np.random.default_rng(0).normal(size=(8_500, 2)).astype(np.float32)  # scanpy changes its way at 8,192
    anndata.AnnData(obsm={"X_scvae": latents}).write_h5ad(tmp_path / "latents.h5ad")
    read, neighbours, _ = next_lines(tmp_path / "latents.h5ad")
    names: dict[str, Any] = {}
    exec(compile(f"{read}\n{neighbours}", "report", "exec"), names)
    assert (names["adata"].obsp["distances"].getnnz(axis=1) == 14).all()  # of 15 neighbours one is the cell itself


def test_the_same_latents_and_seed_give_the_same_umap(finished: Run, tmp_path: Path) -> None:
    pictures = [tmp_path / f"{name}.png" for name in ("first", "second", "other seed")]
    for picture, seed in zip(pictures, (3, 3, 4), strict=True):
        latents = finished.path / "latents.h5ad"
        drawn = latent_picture(latents, picture, colours=["cell_type", "none"], method="umap", max_cells=600, seed=seed)
        assert drawn == ["cell_type"]
    first, second, other = (picture.read_bytes() for picture in pictures)
    assert first == second != other
    assert torch.get_num_threads() == 1  # as before


def test_a_disabled_wandb_leaves_no_record(
    tmp_path: Path, train_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    train(train_config(tmp_path, "logger=wandb", "trainer.max_epochs=1", "outputs=none"))
    assert not list(tmp_path.rglob("*.wandb"))
    assert (tmp_path / "metrics.csv").is_file()


def test_a_report_that_cannot_be_made_is_a_line_and_no_more(
    tmp_path: Path, train_config: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> str:
        raise ValueError("no\nink")

    monkeypatch.setattr("scvae_data.training.run.report", fails)
    metrics = train(train_config(tmp_path, "logger=none", "trainer.max_epochs=1", "outputs=none"))
    assert json.loads((tmp_path / "result.json").read_text()) == metrics
    assert [one.getMessage() for one in caplog.records if one.levelname == "WARNING"] == [
        f"no report.html: no ink; all else is in {tmp_path}"
    ]


def test_an_error_is_recorded_and_the_next_run_is_another(
    tmp_path: Path, train_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(ScvaeDataError, match=r"step 0: \d+ of \d+ cells, global rows .* of SRX1, SRX2, SRX3;"):
        train(train_config(tmp_path / "a", "logger=wandb", "model.likelihood=tests.support.poisson.Diverged"))
    train(train_config(tmp_path / "b", "logger=wandb", "trainer.max_epochs=1", "outputs=none"))
    failed, good = read_run(tmp_path / "a"), read_run(tmp_path / "b")
    assert (failed.exit_code, good.exit_code) == (1, 0)
    assert failed.run_id != good.run_id


@pytest.mark.parametrize(("options", "has_metrics"), [(GAUSSIAN, False), (ZINB, True)], ids=["no logger", "csv"])
def test_other_models_train_and_loggers_are_optional(
    trained: Callable[..., Run], options: tuple[str, ...], has_metrics: bool
) -> None:
    run = trained(*options)
    assert np.isfinite(run.metrics["val/loss"])
    assert (run.path / "metrics.csv").exists() == has_metrics


def test_a_likelihood_of_ones_own_trains_resumes_and_embeds_where_it_is_named(
    tmp_path: Path, train_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_likelihoods.py").write_text("from tests.support.poisson import Poisson\n")
    monkeypatch.syspath_prepend(tmp_path)
    named = "model.likelihood=my_likelihoods.Poisson"
    run_dir = tmp_path / "run"
    train(train_config(run_dir, named, "logger=none", "trainer.max_epochs=1", "outputs.picture=none"))
    embedding = ("mode=embed", f"ckpt={run_dir}/checkpoints/best.ckpt", "outputs.picture=none", "logger=none")
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


@pytest.mark.parametrize(
    ("max_steps", "every"), [pytest.param(12, EVERY, id="mid-epoch"), pytest.param(18, 9, id="between epochs")]
)
def test_resumed_run_ends_with_the_weights_of_the_uninterrupted_one(
    tmp_path: Path, train_config: Compose, trained: Callable[..., Run], max_steps: int, every: int
) -> None:
    options = (*STEPWISE, f"callbacks.checkpoint.every_n_train_steps={every}")
    whole, parts = trained(*STEPWISE).path, tmp_path / "parts"
    train(train_config(parts, *options, f"++trainer.max_steps={max_steps}"))
    stopped = OmegaConf.load(parts / "config.yaml")
    stopped.trainer.max_steps = -1
    OmegaConf.save(stopped, parts / "config.yaml")
    cfg = train_config(tmp_path / "unused", *options)
    cfg.resume_from = str(parts)
    train(cfg)
    ours, theirs = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (parts, whole))
    assert ours["global_step"] == theirs["global_step"] == N_STEPS
    for name, weights in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], weights), name
    steps, epochs = (pd.read_csv(parts / name) for name in ("steps.csv", "metrics.csv"))
    assert steps["step"].is_monotonic_increasing and steps["step"].is_unique
    assert epochs["epoch"].tolist() == [0, 1, 2, 3]


def test_resume_refuses_another_dataset(tmp_path: Path, train_config: Compose, finished: Run) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished.path, run_dir)
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
    with pytest.raises(ConfigError, match="nothing does not exist; give the directory of a training run"):
        train(cfg)


def test_sigterm_ends_the_wandb_run(tmp_path: Path, train_config: Compose) -> None:
    cfg = train_config(tmp_path / "run", "logger=wandb", "trainer.max_epochs=10000", "callbacks.early_stopping=null")
    OmegaConf.save(cfg, tmp_path / "cfg.yaml", resolve=True)
    program = """
        import os, signal, sys
        from omegaconf import OmegaConf
        from scvae_data import VAE
        from scvae_data.training.run import train

        step = VAE.training_step
        def asked(self, batch, batch_idx):
            if self.global_step == 13:  # of the second epoch
                os.kill(os.getpid(), signal.SIGTERM)
            return step(self, batch, batch_idx)
        VAE.training_step = asked
        train(OmegaConf.load(sys.argv[1]))
    """
    code = textwrap.dedent(program)
    done = run_python("-c", code, tmp_path / "cfg.yaml", cwd=tmp_path, env=bare_environment(tmp_path))
    assert done.returncode == 143, done.stderr
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


def test_what_follows_a_setting_follows_it_when_a_run_is_resumed(tmp_path: Path, train_config: Compose) -> None:
    OmegaConf.save(train_config(tmp_path), tmp_path / "config.yaml", resolve=True)
    now = train_config(tmp_path, "model=vae_gaussian", "model.batch_key=donor", "seed=7", "data.seed=8")
    now.paths.processed_dir, now.resume_from = "moved", str(tmp_path)
    merged = continued(now, ["paths.processed_dir", "model", "model.batch_key", "seed", "data.seed"])
    assert (merged.data.data_path, merged.data.batch_key, merged.data.normalized) == ("moved", "donor", True)
    assert (merged.seed, merged.data.seed) == (7, 8)
