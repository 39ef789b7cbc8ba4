"""A model of simulated cells finds the genes that the simulator raises in a cell type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import pandas as pd
import pytest
from lightning.pytorch import Trainer, seed_everything
from tests.support.datasets import make_dataset

from scvae_data import VAE, ChangeTest, ChunkedDataModule
from scvae_data.simulate import simulate_files
from scvae_data.simulate.genes import CELL_TYPES

QUIET: dict[str, Any] = dict.fromkeys(
    ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_markers_of_cell_types_come_first(tmp_path: Path) -> None:
    (file,) = simulate_files(tmp_path / "raw", n_files=1, cells_per_file=600, n_genes=300, seed=1)
    raw = anndata.read_h5ad(file)
    types = raw.obs["cell_type"].astype(str).to_numpy()

    def labelled(obs: pd.DataFrame) -> pd.DataFrame:
        cells = [int(name.removeprefix("cell")) for name in obs.index]
        return obs.assign(cell_type=pd.Categorical(types[cells]))

    symbols = raw.var["gene_symbols"].tolist()
    path, _, _ = make_dataset(
        tmp_path / "chunks", x=raw.X, chunk_size=150, gene_names=symbols, accessions=("SRX1",), more_obs=labelled
    )
    seed_everything(0, verbose=False)
    model = VAE(n_hidden=32, kl_warmup_epochs=5, lr=0.005)
    data = ChunkedDataModule(path, batch_size=64, split=None, normalized=False)
    Trainer(max_epochs=30, accelerator="cpu", limit_val_batches=0, default_root_dir=tmp_path, **QUIET).fit(
        model, datamodule=data
    )
    for name in ("B cell", "monocyte"):
        found = model.differential_expression(path, f"cell_type == '{name}'", test=ChangeTest(n_samples=500))
        raised = found[found["lfc_median"] > 0]
        assert set(CELL_TYPES[name]) <= set(raised.index[:10]), (name, raised.index[:10].tolist())
        assert raised.loc[list(CELL_TYPES[name]), "is_de_fdr_0.05"].all()
