"""The older loader's names do what they did, by way of the present ones, and say so."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import anndata
import lightning
import numpy as np
import pytest
import scanpy as sc
import torch
from tests.compat.conftest import KEEP_ALL, ROOT
from tests.support.datasets import make_dataset

import scvae_data.compat
from scvae_data import VAE, ChunkedDataModule, ConfigError, InputError, MissingIndexError
from scvae_data.compat import (
    ChunkedDataLoader,
    DatasetConfig,
    VAEDataModule,
    create_vae_dataloaders,
    load_and_preprocess_data,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]
SNIPPET = """\
from src.dataloaders.vae_loader import create_vae_dataloaders, DatasetConfig
config = DatasetConfig(data_path="outputs/chunked_processed", batch_size=256, chunk_cache_size=5)
data_module = create_vae_dataloaders(config)
trainer.fit(model, data_module)
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("dataset"), n_obs=300)[0]


def rows_of(loader: Iterable[dict[str, Any]]) -> list[int]:
    return [row for batch in loader for row in batch["index"].tolist()]


def parameters(of: Any) -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(of).parameters.items() if p.kind != p.VAR_KEYWORD}


def test_the_older_snippet_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dataset(tmp_path / "outputs" / "chunked_processed", n_obs=600)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", **quiet)
    names: dict[str, Any] = {"trainer": trainer, "model": VAE(likelihood="gaussian")}
    with pytest.warns(
        DeprecationWarning, match=r"now: scvae_data\.ChunkedDataModule\('outputs/chunked_processed', chunk"
    ):
        exec(compile(SNIPPET, "train.py", "exec"), names)
    assert trainer.global_step == len(names["data_module"].train_dataloader()) == 3
    assert names["data_module"].chunk_cache_size == 5


def test_the_older_module_has_the_older_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "src"))
    import dataloaders.vae_loader as older

    assert older.__all__ == scvae_data.compat.__all__
    for name in older.__all__:
        assert getattr(older, name) is getattr(scvae_data.compat, name)


def test_a_configuration_is_made_of_arguments_of_the_data_module() -> None:
    new = parameters(ChunkedDataModule) | parameters(VAEDataModule)
    for one in fields(DatasetConfig):
        default = one.default_factory() if callable(one.default_factory) else one.default  # type: ignore[misc]
        assert one.name in new
        if one.name != "data_path":
            assert default == new[one.name], one.name


def test_drop_in_for_the_data_module(directory: Path) -> None:
    settings = {"max_chunks_in_memory": 2, "include_srx_accessions": "SRX2", "seed": 3}
    new = ChunkedDataModule(directory, 16, 5, **settings)
    with pytest.warns(DeprecationWarning, match="batch_size=16, chunk_cache_size=5, .*include_srx_accessions='SRX2'"):
        old = VAEDataModule(directory, 16, 5, **settings)
    assert isinstance(old, ChunkedDataModule)
    for data in (old, new):
        data.prepare_data()
        data.setup()
    for ours, theirs in zip(old.train_dataloader(), new.train_dataloader(), strict=True):
        assert torch.equal(ours["x"], theirs["x"])
        assert torch.equal(ours["index"], theirs["index"])


def test_a_configuration_says_it_all(directory: Path) -> None:
    config = DatasetConfig(str(directory), batch_size=10, include_srx_accessions=["SRX1"], chunk_cache_size=2)
    with pytest.warns(DeprecationWarning) as caught:
        data = create_vae_dataloaders(config)
    data.setup()
    assert (data.batch_size, data.chunk_cache_size, data.n_obs) == (10, 2, 100)
    assert [str(one.message) for one in caught] == [
        f"create_vae_dataloaders is an older name; now: scvae_data.ChunkedDataModule('{directory}', batch_size=10, "
        "chunk_cache_size=2, include_srx_accessions=['SRX1']); see docs/migration.md"
    ]
    assert caught[0].filename == __file__


@pytest.mark.parametrize("older", [DatasetConfig, VAEDataModule, ChunkedDataLoader])
def test_a_misspelt_argument(older: Any, directory: Path) -> None:
    message = rf"{older.__name__} has no argument 'normalised'; did you mean normalized\?"
    with pytest.raises(TypeError, match=message):
        older(directory, normalised=True)


def test_a_configuration_can_be_copied(directory: Path) -> None:
    config = DatasetConfig(directory, batch_size=3)
    assert copy.deepcopy(config) == config == replace(config, seed=0)


def test_nothing_is_opened_before_setup(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning):
        data = VAEDataModule(tmp_path / "absent")
    with pytest.raises(MissingIndexError, match="scvae-data process"):
        data.setup()
    with pytest.warns(DeprecationWarning), pytest.raises(ConfigError, match="batch_size=0"):
        warned = DatasetConfig(tmp_path, batch_size=0)
        VAEDataModule(tmp_path)
        create_vae_dataloaders(warned)


@pytest.mark.parametrize("name", ["", "SRX9000001.h5ad"])
def test_raw_files_are_chunked_on_first_use(name: str, raw: Path, cache_dir: Path) -> None:
    with pytest.warns(
        DeprecationWarning, match=r"scvae-data process input=files .* once, then .*ChunkedDataModule\('DIR'"
    ):
        data = VAEDataModule(raw / name, batch_size=50, cache_dir=cache_dir, process_overrides=KEEP_ALL)
    data.prepare_data()
    data.setup()
    assert data.index.path.parent == cache_dir
    assert data.n_obs == (120 if name else 240)
    assert len(rows_of(data.predict_dataloader())) == data.n_obs


def test_an_anndata_as_scanpy_would_preprocess_it(raw: Path, cache_dir: Path) -> None:
    with pytest.warns(DeprecationWarning, match=r"now: scvae-data process .*ChunkedDataset\('DIR'\)\.to_anndata\(\)"):
        ours = load_and_preprocess_data(raw, cache_dir=cache_dir, process_overrides=KEEP_ALL)
    assert isinstance(ours, anndata.AnnData)
    for number, file in enumerate(sorted(raw.glob("*.h5ad"))):
        theirs = sc.read_h5ad(file)
        mine = ours[120 * number : 120 * (number + 1)]
        assert [name.split(":")[1] for name in mine.obs_names] == list(theirs.obs_names)
        sc.pp.normalize_total(theirs, target_sum=1e4)
        sc.pp.log1p(theirs)
        # Files name genes in different ways: values are compared as a sorted multiset of each cell.
        expected, found = np.sort(theirs.X.toarray(), axis=1), np.sort(mine.X.toarray(), axis=1)
        width = min(expected.shape[1], found.shape[1])
        np.testing.assert_allclose(found[:, -width:], expected[:, -width:], rtol=1e-5, atol=1e-6)
        assert found[:, :-width].sum() == expected[:, :-width].sum() == 0


def test_an_anndata_of_some_experiments_as_batches_have_them(directory: Path) -> None:
    with pytest.warns(DeprecationWarning):
        adata = load_and_preprocess_data(directory, include_srx_accessions=["SRX3", "SRX1"])
        counts = load_and_preprocess_data(directory, include_srx_accessions="SRX1", normalized=False)
    assert adata.obs["source_row"].tolist() == [*range(100), *range(100)]
    assert adata.obs["SRX_accession"].tolist() == ["SRX1"] * 100 + ["SRX3"] * 100
    data = ChunkedDataModule(directory, 50, split=None, include_srx_accessions=["SRX1", "SRX3"])
    data.setup()
    for batch in data.predict_dataloader():
        names = data.index.obs([], batch["index"].numpy()).index
        np.testing.assert_allclose(adata[names].X.toarray(), batch["x"].numpy(), rtol=1e-6)
    assert counts.X.sum() == counts.obs["total_counts"].sum()


def test_loaders_where_asked(directory: Path) -> None:
    with pytest.warns(DeprecationWarning, match=r"load_and_preprocess_data is an older name; .*batch_size=20"):
        train, val = load_and_preprocess_data(directory, return_dataloaders=True, batch_size=20)
    data = ChunkedDataModule(directory, batch_size=20)
    data.setup()
    assert rows_of(train) == rows_of(data.train_dataloader())
    assert rows_of(val) == rows_of(data.val_dataloader())


@pytest.mark.parametrize("shuffle", [True, False])
def test_chunked_data_loader(shuffle: bool, directory: Path) -> None:
    with pytest.warns(DeprecationWarning, match="ChunkedDataLoader is an older name"):
        loader = ChunkedDataLoader(directory, 64, shuffle)
    first, second = rows_of(loader), rows_of(loader)
    assert len(loader) == 5
    assert sorted(first) == sorted(second) == list(range(300))
    assert (first == second) is (not shuffle)
    assert (first == sorted(first)) is (not shuffle)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'VaeDataModule'"):
        _ = scvae_data.compat.VaeDataModule
    assert dir(scvae_data.compat) == sorted(scvae_data.compat.__all__)


def test_a_configuration_file_is_read_without_torch() -> None:
    import subprocess

    code = "import scvae_data.compat.json_config, sys; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_a_raw_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning):
        data = VAEDataModule(tmp_path / "SRX1.h5ad", cache_dir=tmp_path)
    with pytest.raises(InputError, match=r"SRX1\.h5ad: there is no such file"):
        data.setup()


def test_a_setting_of_loaders_where_an_anndata_is_asked_for(directory: Path) -> None:
    message = "batch_size needs return_dataloaders=True; an AnnData takes include_srx_accessions and normalized"
    with pytest.warns(DeprecationWarning), pytest.raises(ConfigError, match=message):
        load_and_preprocess_data(directory, batch_size=3)
