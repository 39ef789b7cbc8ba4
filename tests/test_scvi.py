"""SCVI of scvi-tools trains from a chunk directory: registry, training, latents, save, load; our VAE is its model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from scipy.sparse import csr_matrix
from tests.support.datasets import make_dataset

from scvae_data import VAE, ChangeTest, ChunkedDataModule, ChunkedDataset, ConfigError
from scvae_data.models.dataset_facts import facts_of
from scvae_data.scvi import ScviDataModule

HAS_SCVI = importlib.util.find_spec("scvi") is not None
needs_scvi = pytest.mark.skipif(not HAS_SCVI, reason="scvi-tools is not installed (pip install 'scvae-data[scvi]')")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "chunks", n_obs=300, n_vars=30, chunk_size=60)[0]


def data_module(path: Path, **more: Any) -> ChunkedDataModule:
    return ChunkedDataModule(path, batch_size=32, normalized=False, label_keys=["cell_type"], **more)


@pytest.fixture
def any_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the adapter be made without scvi-tools."""
    metadata = tmp_path / "scvi_tools-1.4.2.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: scvi-tools\nVersion: 1.4.2\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("any_version")
def test_batches_have_the_names_and_shapes_of_scvi_tools(path: Path) -> None:
    ours = data_module(path)
    data = ScviDataModule(ours, label_key="cell_type")
    batches = list(data.inference_dataloader())
    assert len(batches) == len(data.inference_dataloader()) == 10
    for theirs, mine in zip(batches, ours.predict_dataloader(), strict=True):
        assert theirs["X"].dtype == torch.float32
        assert torch.equal(theirs["X"], mine["x"])
        for key, column in (("batch", "SRX_accession"), ("labels", "cell_type")):
            assert theirs[key].dtype == torch.int64
            assert torch.equal(theirs[key], mine["obs"][column][:, None])
    assert torch.cat([batch["ind_x"] for batch in batches]).flatten().tolist() == list(range(300))


@pytest.mark.usefixtures("any_version")
def test_cells_without_a_category_have_one_that_comes_last(path: Path) -> None:
    data = ScviDataModule(data_module(path), label_key="cell_type")
    assert data.batch_labels.tolist() == ["SRX1", "SRX2", "SRX3"]
    assert data.label_names.tolist() == ["type0", "type1", "type2", "unknown"]
    assert (data.n_batch, data.n_labels, data.n_vars, data.n_obs) == (3, 4, 30, 300)
    assert data.labels_.shape == (300,)
    assert set(data.labels_) == set(data.label_names)


COVARIATES = {"categorical_covariates": ["donor", "chemistry"], "continuous_covariates": ["age", "log1p_total_counts"]}


@pytest.fixture(scope="module")
def with_covariates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some cells have no donor, some no age."""

    def more_obs(obs: pd.DataFrame) -> pd.DataFrame:
        i = np.arange(len(obs))
        donor = pd.Categorical([None if k % 5 == 0 else f"D{k % 3}" for k in i])
        age = np.where(i % 7 == 0, np.nan, i % 50).astype(np.float32)
        return obs.assign(donor=donor, chemistry=pd.Categorical([f"v{2 + k % 2}" for k in i]), age=age)

    return make_dataset(tmp_path_factory.mktemp("data") / "chunks", 300, 30, 60, more_obs=more_obs)[0]


@pytest.mark.usefixtures("any_version")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*")
def test_covariates_are_registered_and_what_our_model_sees(with_covariates: Path, tmp_path: Path) -> None:
    ours = data_module(with_covariates, **COVARIATES)
    data = ScviDataModule(ours)
    fields = data.registry["field_registries"]
    assert fields["extra_categorical_covs"]["state_registry"]["n_cats_per_key"] == [4, 2]
    assert data.covariate_names["donor"].tolist() == ["D0", "D1", "D2", "unknown"]
    assert fields["extra_continuous_covs"]["summary_stats"] == {"n_extra_continuous_covs": 2}
    assert data.registry["setup_args"]["categorical_covariate_keys"] == ["donor", "chemistry"]
    model = VAE(batch_key="SRX_accession", n_latent=2, n_hidden=4, **COVARIATES)
    untrained(model, ours, tmp_path)
    model.seen[:] = True
    model.eval()
    for theirs, mine in zip(data.inference_dataloader(), ours.predict_dataloader(), strict=True):
        found = model._covariates(mine)
        assert found is not None
        codes = found.codes - model.first_code
        assert torch.equal(theirs["batch"], codes[:, :1])
        assert torch.equal(theirs["extra_categorical_covs"], codes[:, 1:])
        assert torch.equal(theirs["extra_continuous_covs"], found.numbers)


def untrained(model: VAE, data: ChunkedDataModule, tmp_path: Path) -> None:
    """Build the networks."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    Trainer(max_steps=0, accelerator="cpu", default_root_dir=tmp_path, **quiet).fit(model, datamodule=data)


@pytest.mark.usefixtures("any_version")
def test_counts_are_needed(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scvi-tools models counts; use ChunkedDataModule\(…, normalized=False\)"):
        ScviDataModule(ChunkedDataModule(path))
    with pytest.raises(ConfigError, match="label_key=tissue is not served"):
        ScviDataModule(data_module(path), label_key="tissue")


@pytest.mark.skipif(HAS_SCVI, reason="scvi-tools is installed")
def test_without_scvi_tools_it_says_what_to_install(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs scvi-tools; pip install 'scvae-data\[scvi\]'"):
        ScviDataModule(data_module(path))


@needs_scvi
@pytest.mark.filterwarnings("ignore")
def test_scvi_trains_embeds_saves_and_loads(path: Path, tmp_path: Path) -> None:
    import scvi

    scvi.settings.seed = 0
    data = ScviDataModule(data_module(path), label_key="cell_type")
    model = scvi.model.SCVI(registry=data.registry, n_latent=4, n_hidden=16)
    model.train(datamodule=data, max_epochs=3, check_val_every_n_epoch=1, accelerator="cpu", enable_progress_bar=False)
    history = model.history["elbo_train"]["elbo_train"]
    assert len(history) == 3
    assert float(history.iloc[-1]) < float(history.iloc[0])
    assert len(model.history["elbo_validation"]) == 3
    latents = model.get_latent_representation(dataloader=data.inference_dataloader())
    assert latents.shape == (300, 4)
    assert np.isfinite(latents).all()
    model.save(str(tmp_path / "saved"), datamodule=data)
    loaded = scvi.model.SCVI.load(str(tmp_path / "saved"), accelerator="cpu")
    again = loaded.get_latent_representation(dataloader=data.inference_dataloader())
    np.testing.assert_allclose(again, latents, atol=1e-5)


@needs_scvi
@pytest.mark.filterwarnings("ignore")
def test_latents_are_those_of_the_same_model_on_an_anndata(path: Path) -> None:
    """The order of cells, genes and batches is the one an AnnData of the directory has."""
    import scvi

    scvi.settings.seed = 0
    data = ScviDataModule(data_module(path))
    model = scvi.model.SCVI(registry=data.registry, n_latent=4, n_hidden=16)
    model.train(datamodule=data, max_epochs=1, accelerator="cpu", enable_progress_bar=False, logger=False)
    adata = ChunkedDataset(path).to_anndata()
    scvi.model.SCVI.setup_anndata(adata, batch_key="SRX_accession")
    other = scvi.model.SCVI(adata, n_latent=4, n_hidden=16)
    other.module.load_state_dict(model.module.state_dict())
    other.module.eval()
    other.is_trained_ = True
    ours = model.get_latent_representation(dataloader=data.inference_dataloader())
    np.testing.assert_allclose(ours, other.get_latent_representation(), atol=1e-5)


@needs_scvi
@pytest.mark.filterwarnings("ignore")
def test_scanvi_trains_on_the_labels(path: Path) -> None:
    import scvi

    data = ScviDataModule(data_module(path), label_key="cell_type", model_name="SCANVI")
    model = scvi.model.SCANVI(registry=data.registry, datamodule=data, n_latent=4, n_hidden=16)
    model.train(datamodule=data, max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    assert model.get_latent_representation(dataloader=data.inference_dataloader()).shape == (300, 4)


@needs_scvi
@pytest.mark.filterwarnings("ignore")
def test_latents_with_covariates_are_those_of_the_same_model_on_an_anndata(with_covariates: Path) -> None:
    """An AnnData has the numbers as they are in obs: standardised by hand, they give the same."""
    import scvi

    from scvae_data import ChunkedDataset

    scvi.settings.seed = 0
    data = ScviDataModule(data_module(with_covariates, **COVARIATES))
    sizes = {"n_latent": 4, "n_hidden": 16, "encode_covariates": True}
    model = scvi.model.SCVI(registry=data.registry, **sizes)
    model.train(datamodule=data, max_epochs=1, accelerator="cpu", enable_progress_bar=False, logger=False)
    adata = ChunkedDataset(with_covariates).to_anndata()
    adata.obs["donor"] = adata.obs["donor"].cat.add_categories("unknown").fillna("unknown")
    for name, one in data.data.covariate_facts()["continuous"].items():
        adata.obs[name] = ((adata.obs[name] - one["mean"]) / one["sd"]).fillna(0).astype(np.float32)
    scvi.model.SCVI.setup_anndata(
        adata, batch_key="SRX_accession", categorical_covariate_keys=COVARIATES["categorical_covariates"],
        continuous_covariate_keys=COVARIATES["continuous_covariates"],
    )  # fmt: skip
    other = scvi.model.SCVI(adata, **sizes)
    other.module.load_state_dict(model.module.state_dict())
    other.module.eval()
    other.is_trained_ = True
    ours = model.get_latent_representation(dataloader=data.inference_dataloader())
    np.testing.assert_allclose(ours, other.get_latent_representation(), atol=1e-5)


@needs_scvi
@pytest.mark.filterwarnings("ignore")
def test_scanvi_trains_with_covariates(with_covariates: Path) -> None:
    import scvi

    data = ScviDataModule(data_module(with_covariates, **COVARIATES), label_key="cell_type", model_name="SCANVI")
    model = scvi.model.SCANVI(registry=data.registry, datamodule=data, n_latent=4, n_hidden=16)
    model.train(datamodule=data, max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    latents = model.get_latent_representation(dataloader=data.inference_dataloader())
    assert latents.shape == (300, 4)
    assert np.isfinite(latents).all()


# Where the weights of our networks are in SCVI's.
SCVI_NAMES = {
    "encoder.mlp.layers.0.linear": "z_encoder.encoder.fc_layers.Layer 0.0",
    "encoder.mlp.layers.0.norm": "z_encoder.encoder.fc_layers.Layer 0.1",
    "encoder.mean": "z_encoder.mean_encoder",
    "encoder.log_var": "z_encoder.var_encoder",
    "decoder.mlp.layers.0.linear": "decoder.px_decoder.fc_layers.Layer 0.0",
    "decoder.mlp.layers.0.norm": "decoder.px_decoder.fc_layers.Layer 0.1",
    "decoder.heads.scale": "decoder.px_scale_decoder.0",
    "decoder.heads.zero_logit": "decoder.px_dropout_decoder",
}


@needs_scvi
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_with_the_weights_of_scvi_the_vae_computes_its_losses(path: Path, tmp_path: Path, likelihood: str) -> None:
    """In training: dropout, batch statistics and the sample of the latent included."""
    from scvi.module import VAE as ScviModule

    data = data_module(path, batch_key=None)
    model = VAE(likelihood=likelihood, n_latent=4, n_hidden=16)
    untrained(model, data, tmp_path)
    theirs = ScviModule(data.n_vars, n_batch=1, n_labels=1, n_latent=4, n_hidden=16, gene_likelihood=likelihood)
    weights = theirs.state_dict()
    ours = {name: _of_scvi(name, weights) for name in model.state_dict() if name.startswith(("encoder", "decoder"))}
    model.load_state_dict(ours | {"log_dispersion": weights["px_r"][None]}, strict=False)
    batch = next(iter(data.train_dataloader()))
    codes = torch.zeros(len(batch["x"]), 1, dtype=torch.int64)
    torch.manual_seed(0)
    _, _, expected = theirs.train()({"X": batch["x"], "batch": codes, "labels": codes})
    torch.manual_seed(0)
    found = model.train().elbo_terms(batch)
    torch.testing.assert_close(
        -found["recon"], expected.reconstruction_loss["reconstruction_loss"], rtol=1e-4, atol=1e-2
    )
    torch.testing.assert_close(found["kl"], expected.kl_local["kl_divergence_z"], rtol=1e-4, atol=1e-2)


def fixed_noise(*shape: Any, **_: Any) -> torch.Tensor:
    """What stands for standard normal numbers, the same for both."""
    sizes = tuple(shape[0] if shape and not isinstance(shape[0], int) else shape)
    return torch.linspace(0, 40, int(np.prod(sizes))).sin().reshape(sizes)


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose cell types express a third of the genes each, eight times as much as the others do."""
    cell, gene = np.arange(300)[:, None], np.arange(30)[None, :]
    x = np.random.default_rng(0).poisson(np.where(gene % 3 == cell % 3, 16.0, 2.0) * (1 + gene / 10))
    return make_dataset(tmp_path_factory.mktemp("typed") / "chunks", x=csr_matrix(x), chunk_size=60)[0]


@pytest.fixture
def twins(typed: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, VAE]:
    """SCVI on the AnnData of the directory, and ours with its weights; both correct for experiments."""
    import scvi

    monkeypatch.setattr("scvae_data.results.cells.BATCH_SIZE", 300)
    adata = ChunkedDataset(typed).to_anndata()
    scvi.settings.seed = 0
    scvi.model.SCVI.setup_anndata(adata, batch_key="SRX_accession")
    theirs = scvi.model.SCVI(adata, n_latent=4, n_hidden=16, gene_likelihood="nb")
    with torch.no_grad():
        for parameter in theirs.module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    theirs.is_trained_ = True
    theirs.module.eval()
    data = data_module(typed, batch_key="SRX_accession")
    data.setup()
    ours = VAE(n_latent=4, n_hidden=16, batch_key="SRX_accession", facts=facts_of(data, "SRX_accession"))
    ours.configure_model()
    weights = theirs.module.state_dict()
    found = {
        name: _of_scvi(name, weights)
        for name in ours.state_dict()
        if name.startswith(("encoder", "decoder")) and "covariate" not in name
    }
    # SCVI has one matrix for latents and one-hot batches, ours has a row for "unknown" besides.
    name = "decoder.mlp.layers.0.linear.weight"
    found[name], one_hot = found[name].split([4, 3], dim=1)
    table = torch.cat([one_hot.T, torch.zeros(1, 16)])
    found |= {"decoder.mlp.layers.0.covariate.table.weight": table, "log_dispersion": weights["px_r"][None]}
    ours.load_state_dict(found | {"seen": torch.tensor([True, True, True, False])}, strict=True)
    return theirs, ours.eval()


@needs_scvi
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n_samples", [1, 3])
@pytest.mark.parametrize("library_size", [1e4, "latent"])
@pytest.mark.parametrize("batch", [None, "SRX2"])
def test_decoded_expression_is_that_of_scvi(
    twins: tuple[Any, VAE],
    typed: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_samples: int,
    library_size: Any,
    batch: str | None,
) -> None:
    theirs, ours = twins
    how = {"n_samples": n_samples, "library_size": library_size, "transform_batch": batch}
    monkeypatch.setattr(torch, "randn", fixed_noise)
    (block,) = ours.expression(typed, **how)

    def sample(self: Any, shape: Any = ()) -> torch.Tensor:
        return self.loc + self.scale * fixed_noise(self._extended_shape(torch.Size(shape)))

    for name in ("sample", "rsample"):
        monkeypatch.setattr(torch.distributions.Normal, name, sample)
    expected = theirs.get_normalized_expression(batch_size=300, **how)
    np.testing.assert_allclose(block.values, expected, rtol=1e-3)


@needs_scvi
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch_correction", [False, True])
def test_differential_expression_agrees_with_scvi(twins: tuple[Any, VAE], typed: Path, batch_correction: bool) -> None:
    """As far as five thousand draws allow."""
    theirs, ours = twins
    how = {"delta": 0.25, "batch_correction": batch_correction}
    expected = theirs.differential_expression(
        groupby="cell_type", group1="type0", mode="change", silent=True, all_stats=False, **how
    )
    groups = "cell_type == 'type0'", "not (cell_type == 'type0')"  # the rest of scvi-tools has cells without a type
    found = ours.differential_expression(typed, *groups, test=ChangeTest(**how)).loc[expected.index]
    for name in ("lfc_mean", "lfc_median", "proba_de"):
        assert found[name].corr(expected[name], method="spearman") > 0.95, name
    np.testing.assert_allclose(found["proba_de"], expected["proba_de"], atol=0.05)
    np.testing.assert_allclose(found["lfc_mean"], expected["lfc_mean"], atol=0.1)
    np.testing.assert_allclose(found["lfc_std"], expected["lfc_std"], rtol=0.1)
    np.testing.assert_allclose(found["scale1"], expected["scale1"], rtol=0.05)
    np.testing.assert_allclose(found["bayes_factor"], expected["bayes_factor"], atol=0.3)


@needs_scvi
@pytest.mark.filterwarnings("ignore")
def test_with_the_weights_of_scvi_covariates_enter_as_in_scvi(with_covariates: Path, tmp_path: Path) -> None:
    """SCVI's linear maps have columns for input, numbers and categories side by side."""
    from scvi.module import VAE as ScviModule

    data = data_module(with_covariates, **COVARIATES)
    model = VAE(batch_key="SRX_accession", n_latent=4, n_hidden=16, encode_batch=True, **COVARIATES)
    untrained(model, data, tmp_path)
    theirs = ScviModule(
        data.n_vars, n_batch=3, n_labels=1, n_cats_per_cov=[4, 2], n_continuous_cov=2, n_latent=4, n_hidden=16,
        gene_likelihood="nb", encode_covariates=True,
    )  # fmt: skip
    weights, ours = theirs.state_dict(), model.state_dict()
    known = torch.tensor([0, 1, 2, 4, 5, 6, 7, 8, 9])  # 3 experiments, 4 donors with unknown, 2 chemistries
    for side, n_in in (("encoder", 30), ("decoder", 4)):
        layer = f"{side}.mlp.layers.0"
        for name in [name for name in ours if name.startswith(side) and "covariate" not in name]:
            ours[name] = _of_scvi(name, weights)
        whole = ours[f"{layer}.linear.weight"]
        ours[f"{layer}.linear.weight"], ours[f"{layer}.covariate.numbers.weight"] = (
            whole[:, :n_in],
            whole[:, n_in : n_in + 2],
        )
        ours[f"{layer}.covariate.table.weight"][known] = whole[:, n_in + 2 :].T
    model.load_state_dict(ours | {"log_dispersion": weights["px_r"][None], "seen": torch.ones_like(model.seen)})
    batch = next(iter(data.train_dataloader()))
    scvi_batch = ScviDataModule(data).converted(batch)
    torch.manual_seed(0)
    _, _, expected = theirs.eval()(scvi_batch)
    torch.manual_seed(0)
    found = model.eval().elbo_terms(batch)
    torch.testing.assert_close(
        -found["recon"], expected.reconstruction_loss["reconstruction_loss"], rtol=1e-4, atol=1e-2
    )
    torch.testing.assert_close(found["kl"], expected.kl_local["kl_divergence_z"], rtol=1e-4, atol=1e-2)


def _of_scvi(name: str, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """The entry of SCVI's state that is ``name`` in ours."""
    layer, _, kind = name.rpartition(".")
    return weights[f"{SCVI_NAMES[layer]}.{kind}"]
