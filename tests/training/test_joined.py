"""A model of several directories: what its run records of them, its latents, how it goes on and embeds."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from tests.support.datasets import make_dataset
from tests.support.pages import rows_of
from tests.training.conftest import Compose

from scvae_data import SelectionError, open_index
from scvae_data.store import open_dataset
from scvae_data.training.embed import embed
from scvae_data.training.run import train


def test_a_run_over_two_directories(tmp_path: Path, train_config: Compose, dataset: Path) -> None:
    other, _, _ = make_dataset(
        tmp_path / "other", 150, 39, 50, ["SRX9"], gene_names=[f"ENSG{j:011d}" for j in range(2, 41)],
        more_obs=lambda obs: obs.rename(index=lambda name: f"{name}-9"),
    )  # fmt: skip
    paths = [str(dataset), str(other)]
    run_dir = tmp_path / "run"
    options = f"paths.processed_dir=[{dataset},{other}]", "logger=csv", "outputs.picture=none"
    train(train_config(run_dir, *options, "trainer.max_epochs=1"))

    index = open_dataset(paths)
    facts = json.loads((run_dir / "run.json").read_text())["facts"]
    assert facts["data_path"] == paths and facts["missing_genes"] == [1, 2] and facts["n_vars"] == 41
    assert facts["content_hashes"] == [open_index(path).content_hash for path in paths]
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert index.content_hash in (facts["content_hash"], json.dumps(checkpoint["hyper_parameters"]))
    assert ["directory", f"{dataset}, {other}"] in rows_of((run_dir / "report.html").read_text())

    latents = anndata.read_h5ad(run_dir / "latents.h5ad")
    assert latents.obs["processed_dir"].tolist() == [paths[0]] * 600 + [paths[1]] * 150
    assert latents.obs["SRX_accession"].tolist() == index.obs()["SRX_accession"].tolist()
    embed_config = train_config(tmp_path / "embedded", "mode=embed", *options)
    embed_config.ckpt = str(run_dir / "checkpoints" / "best.ckpt")
    report = embed(embed_config)
    assert (report["n_cells"], report["n_missing_genes"], report["n_unseen_categories"]) == (750, 0, 0)
    again = anndata.read_h5ad(tmp_path / "embedded" / "latents.h5ad")
    np.testing.assert_allclose(again.obsm["X_scvae"], latents.obsm["X_scvae"], atol=1e-4)

    cfg = train_config(run_dir, "trainer.max_epochs=2")
    cfg.resume_from = str(run_dir)
    cfg.trainer.max_epochs = 2
    (run_dir / "config.yaml").write_text(
        (run_dir / "config.yaml").read_text().replace("max_epochs: 1", "max_epochs: 2")
    )
    train(cfg)
    assert torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 1
    text = (run_dir / "config.yaml").read_text()
    (run_dir / "config.yaml").write_text(text.replace(f"  - {other}\n", ""))
    with pytest.raises(SelectionError, match=r"was trained on the dataset .*, but the dataset given is"):
        train(cfg)
