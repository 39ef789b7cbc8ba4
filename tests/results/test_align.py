"""Where the genes of a model are in a directory, and what its covariates are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from tests.support.datasets import make_dataset

from scvae_data import VAE, ChunkedDataModule
from scvae_data.results.align import AlignedData, match_genes
from scvae_data.store import GeneList

COVARIATES = {"categorical_covariates": ["donor", "chemistry"], "continuous_covariates": ["age"]}
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*")


def with_covariates(obs: pd.DataFrame) -> pd.DataFrame:
    i = np.arange(len(obs))
    donor, chemistry = (pd.Categorical([f"{letter}{k % n}" for k in i]) for letter, n in (("D", 3), ("v", 2)))
    return obs.assign(donor=donor, chemistry=chemistry, age=(i % 40).astype(np.float32))


def other_donors(obs: pd.DataFrame) -> pd.DataFrame:
    return obs.assign(donor=pd.Categorical([[None, "D2", "D9"][k % 3] for k in range(len(obs))]))


def test_columns_that_a_directory_lacks_are_unknown_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_dataset(tmp_path / "trained", 60, 8, 30, more_obs=with_covariates)[0]
    trained = ChunkedDataModule(path, batch_size=10, normalized=False, **COVARIATES)
    model = VAE(batch_key="SRX_accession", n_latent=2, n_hidden=4, encode_batch=True, **COVARIATES)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    Trainer(max_steps=0, accelerator="cpu", default_root_dir=tmp_path, **quiet).fit(model, datamodule=trained)
    model.seen[:] = True
    other = make_dataset(tmp_path / "other", 30, 8, 30, more_obs=other_donors)[0]
    data = ChunkedDataModule(other, batch_size=10, normalized=False, split=None, categorical_covariates=["donor"])
    data.setup("predict")
    aligned = AlignedData(data, model, {})
    report = aligned.report()
    assert aligned.unseen == {"donor": ["D9"]}
    assert (report["n_unseen_categories"], report["absent_columns"]) == (1, "chemistry, age")
    assert "has no obs column chemistry: all cells are embedded as unknown" in caplog.text
    assert "has no obs column age: all cells are embedded with its mean" in caplog.text
    batch = aligned.aligned(next(iter(data.predict_dataloader())))
    found = model.eval()._covariates(batch)
    assert found is not None
    codes = found.codes - model.first_code
    assert codes[:, 1].tolist() == [[3, 2, 3][row % 3] for row in batch["index"].tolist()]
    assert codes[:, 2].tolist() == [2] * 10
    assert found.numbers.flatten().tolist() == [0.0] * 10
    assert torch.isfinite(model(batch)).all()


@pytest.mark.parametrize(
    ("wanted", "names", "ids", "symbols", "columns", "missing"),
    [
        (["a", "b"], ["b", "a"], [None] * 2, [None] * 2, [1, 0], ()),
        (["a", "b"], ["x", "y"], ["b", "a"], [None] * 2, [1, 0], ()),
        (["a", "b"], ["x", "a"], [None] * 2, ["b", "c"], [1, 0], ()),
        (["a", "b"], ["x", "y", "b"], [None] * 3, ["a", "a", None], [-1, 2], ("a",)),
        (["a", "b"], ["a", "y"], [None] * 2, ["b", None], [0, -1], ("b",)),
    ],
    ids=["names", "ids", "symbols", "ambiguous", "taken"],
)
def test_genes_match_by_name_then_id_then_symbol(
    wanted: list[str],
    names: list[Any],
    ids: list[Any],
    symbols: list[Any],
    columns: list[int],
    missing: tuple[str, ...],
) -> None:
    match = match_genes(wanted, GeneList.of(names, ids, symbols))
    assert match.columns.tolist() == columns
    assert match.missing == missing
