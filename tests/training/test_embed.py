"""Embedding another directory: the model's genes and categories, whatever the directory has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from tests.support.datasets import make_dataset
from tests.support.pages import rows_of, table_of
from tests.support.wandb_records import read_run
from tests.training.conftest import GAUSSIAN, Compose, Run

from scvae_data import VAE, ConfigError, SelectionError
from scvae_data.commands.train import embed as print_embedded
from scvae_data.training.embed import embed
from scvae_data.training.experiment_scores import read_scores
from scvae_data.training.run import train

NAMES = [f"ENSG{j:011d}" for j in range(40)]


@pytest.fixture
def run_dir(finished: Run) -> Path:
    return finished.path


def config(make: Compose, run_dir: Path, out: Path, data: Path, *more: str) -> DictConfig:
    cfg = make(out, "mode=embed", "logger=none", "outputs.picture=none", f"paths.processed_dir={data}", *more)
    cfg.ckpt = str(run_dir / "checkpoints" / "best.ckpt")
    return cfg


def latents(path: Path) -> anndata.AnnData:
    return anndata.read_h5ad(path / "latents.h5ad")


def by_hand(run_dir: Path, x: Any, codes: list[int]) -> np.ndarray:
    """Latents of counts (n, 40) in the model's order."""
    model = VAE.load_from_checkpoint(run_dir / "checkpoints" / "best.ckpt").eval()
    batch = {"x": torch.tensor(x, dtype=torch.float32), "obs": {"SRX_accession": torch.tensor(codes)}}
    with torch.inference_mode():
        found: np.ndarray = model(batch).numpy()
    return found


def test_the_directory_of_the_run_gives_the_latents_of_the_run(
    tmp_path: Path, run_dir: Path, train_config: Compose, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    report = embed(config(train_config, run_dir, tmp_path, dataset, "logger=wandb"))
    record = read_run(tmp_path / "wandb")
    assert (record.job_type, record.exit_code, record.summary["n_cells"]) == ("embed", 0, 600)
    assert record.datasets()[0].is_input
    assert (report["n_missing_genes"], report["n_unseen_categories"], report["n_cells"]) == (0, 0, 600)
    ours, theirs = latents(tmp_path), latents(run_dir)
    assert ours.obs_names.equals(theirs.obs_names)
    np.testing.assert_allclose(ours.obsm["X_scvae"], theirs.obsm["X_scvae"], atol=1e-5)


def test_normalised_values_are_those_of_training(
    tmp_path: Path, trained: Callable[..., Run], train_config: Compose, dataset: Path
) -> None:
    run = trained(*GAUSSIAN).path
    embed(config(train_config, run, tmp_path, dataset))
    ours, theirs = latents(tmp_path).obsm["X_scvae"], latents(run).obsm["X_scvae"]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_genes_are_aligned_and_missing_ones_reported(
    tmp_path: Path, run_dir: Path, train_config: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    """The directory has the model's genes backwards, lacks the last two, and has one of its own."""
    names = ["OTHER", *NAMES[37::-1]]
    data, x, obs = make_dataset(tmp_path / "data", 60, 39, 25, ("SRX2", "SRX9"), gene_names=names)
    report = embed(config(train_config, run_dir, tmp_path / "out", data))
    whole = json.loads((tmp_path / "out" / "embed.json").read_text())
    assert whole["missing_genes"] == NAMES[38:]
    assert whole["unseen_categories"] == {"SRX_accession": ["SRX9"]}
    assert report["missing_genes_share"] == 0.05
    assert (report["n_missing_genes"], report["n_genes_not_used"], report["n_unseen_categories"]) == (2, 1, 1)
    assert "2 of the model's 40 genes (5.0 %) are not in" in caplog.text
    page = (tmp_path / "out" / "report.html").read_text()
    assert ["missing genes", f"5.0 %, which count as zero: {', '.join(NAMES[38:])}"] in rows_of(page)
    assert ["not trained on: SRX_accession", "SRX9"] in rows_of(page)
    assert set(table_of(page, "experiments")["experiment"]) == {"SRX2", "SRX9"}
    dense = np.hstack([x.toarray()[:, :0:-1], np.zeros((60, 2))])
    codes = [1 if name == "SRX2" else 3 for name in obs["SRX_accession"]]
    np.testing.assert_allclose(latents(tmp_path / "out").obsm["X_scvae"], by_hand(run_dir, dense, codes), atol=1e-5)
    assert latents(tmp_path / "out").uns["scvae_data"]["n_missing_genes"] == 2


def test_a_directory_without_the_batch_column_is_unknown(tmp_path: Path, run_dir: Path, train_config: Compose) -> None:
    checkpoint = torch.load(run_dir / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["batch_key"] = "donor"
    (tmp_path / "checkpoints").mkdir()
    torch.save(checkpoint, tmp_path / "checkpoints" / "best.ckpt")
    data, x, _ = make_dataset(tmp_path / "data", 30, 40, 25)
    cfg = config(train_config, tmp_path, tmp_path / "out", data)
    cfg.ckpt = str(tmp_path)  # a run directory stands for its best checkpoint
    assert embed(cfg)["checkpoint"] == str(tmp_path / "checkpoints" / "best.ckpt")
    expected = by_hand(run_dir, x.toarray(), [3] * 30)
    np.testing.assert_allclose(latents(tmp_path / "out").obsm["X_scvae"], expected, atol=1e-5)


def test_what_was_not_trained_on_is_unknown_though_the_model_knows_its_name(
    tmp_path: Path, train_config: Compose, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model of a directory without one of its experiments, shown the whole directory."""
    only = ("logger=none", "outputs=none", "trainer.max_epochs=1", "data.exclude_srx_accessions=SRX3")
    train(train_config(tmp_path / "run", *only))
    cfg = config(train_config, tmp_path / "run", tmp_path / "out", dataset, "outputs.latents=false")
    report = embed(cfg)
    assert (report["n_unseen_categories"], report["n_unknown_cells"]) == (1, 200)
    assert json.loads((tmp_path / "out" / "embed.json").read_text())["unseen_categories"] == {"SRX_accession": ["SRX3"]}
    # That run has scored no cells to compare with.
    assert report["elbo"] < 0 and "elbo_of_training" not in report
    shown = config(train_config, tmp_path / "run", tmp_path / "none", dataset, "data.exclude_srx_accessions=SRX3")
    print_embedded(shown)
    assert "unknown    none: the model was trained on all categories" in capsys.readouterr().out


def test_the_likelihood_of_new_cells_is_told_beside_that_of_training(
    tmp_path: Path, finished: Run, train_config: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    """The directory lacks two genes, which count neither way: a likelihood of fewer genes is the higher."""
    data, _, _ = make_dataset(tmp_path / "data", 60, 38, 25, ("SRX2", "SRX9"), gene_names=NAMES[:38])
    print_embedded(config(train_config, finished.path, tmp_path / "out", data))
    report = json.loads((tmp_path / "out" / "embed.json").read_text())
    assert report["elbo_of_training"] == pytest.approx(finished.metrics["val/elbo"], rel=1e-6)
    scored = read_scores(tmp_path / "out" / "experiment_scores.parquet")
    assert (scored.part, scored.n_cells, scored.mean("elbo")) == ("predict", 60, pytest.approx(report["elbo"]))
    unseen = scored.table.set_index("srx_accession")["elbo"]["SRX9"]
    assert report["elbo_of_unseen"] == pytest.approx(unseen, rel=1e-6)
    told = capsys.readouterr().out
    assert "unknown    30 cells; categories that the model was not trained on: 1" in told
    assert (
        f"elbo       {report['elbo']:,.1f} nats per cell, {unseen:,.1f} of experiments that training has not seen, "
        f"{finished.metrics['val/elbo']:,.1f} of the cells held"
    ) in told


def test_no_gene_in_common(tmp_path: Path, run_dir: Path, train_config: Compose) -> None:
    data, _, _ = make_dataset(tmp_path / "data", 30, 3, 25, gene_names=["a", "b", "c"])
    with pytest.raises(SelectionError, match=r"none of the model's 40 genes .* is in the dataset \(a, b, c\)"):
        embed(config(train_config, run_dir, tmp_path / "out", data))


def test_no_checkpoint(tmp_path: Path, train_config: Compose) -> None:
    with pytest.raises(ConfigError, match=r"mode=embed needs a trained model: ckpt="):
        embed(train_config(tmp_path, "mode=embed"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"^ckpt=.*empty is a folder without checkpoints/best\.ckpt; give"):
        embed(train_config(tmp_path, "mode=embed", f"ckpt={tmp_path / 'empty'}"))
