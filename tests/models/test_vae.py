"""The VAE on data held in memory: what it learns, what it saves, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from tests.support.fake_data import FakeData, sparse_rows
from tests.support.poisson import Poisson
from torch.utils._python_dispatch import TorchDispatchMode

from scvae_data import VAE
from scvae_data.errors import ConfigError, ScvaeDataError, SelectionError

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*")


def trainer(tmp_path: Path, **options: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "max_epochs": 2, "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
        "enable_checkpointing": False, "accelerator": "cpu", "default_root_dir": str(tmp_path), "log_every_n_steps": 1,
    }  # fmt: skip
    return Trainer(**(defaults | options))


def small(**options: Any) -> VAE:
    return VAE(**({"n_latent": 2, "n_hidden": 16, "lr": 0.01} | options))


def elbo(model: VAE, data: FakeData, tmp_path: Path) -> float:
    return float(trainer(tmp_path).validate(model, datamodule=data, verbose=False)[0]["val/elbo"])


def saved(model: VAE, data: FakeData, folder: Path, **options: Any) -> Path:
    """The checkpoint of a model after its training."""
    fit = trainer(folder, **options)
    fit.fit(model, datamodule=data)
    fit.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


def partly_measured(n_sets: int = 1) -> FakeData:
    """Cells of whose genes the first set lacks the last four."""
    gene_sets = np.ones((n_sets, 12), dtype=bool)
    gene_sets[0, 8:] = False
    return FakeData(gene_sets=gene_sets)


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "gaussian", "tests.support.poisson.Poisson"])
def test_training_raises_the_elbo(tmp_path: Path, likelihood: str) -> None:
    torch.manual_seed(0)
    data = FakeData(n_obs=128, normalized=likelihood == "gaussian")
    model = small(likelihood=likelihood, kl_warmup_epochs=0, norm="layer")
    before = elbo(model, data, tmp_path)
    trainer(tmp_path, max_epochs=15).fit(model, datamodule=data)
    after = elbo(model, data, tmp_path)
    assert after > before + 5
    assert after == elbo(model, data, tmp_path)  # the same noise every time


def test_metrics_are_per_cell_and_add_up(tmp_path: Path) -> None:
    fit = trainer(tmp_path, max_epochs=1)
    fit.fit(small(), datamodule=FakeData())
    metrics = {name: float(value) for name, value in fit.callback_metrics.items()}
    for stage in ("train", "val"):
        assert metrics[f"{stage}/elbo"] == pytest.approx(metrics[f"{stage}/recon"] - metrics[f"{stage}/kl"], rel=1e-5)
    assert metrics["val/loss"] == pytest.approx(-metrics["val/elbo"], rel=1e-5)
    assert 0 <= metrics["val/active_units"] <= 2


def test_epoch_means_weigh_batches_by_their_cells(tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []

    class Recording(VAE):
        def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
            loss = super().training_step(batch, batch_idx)
            seen.append((len(batch["index"]), -float(loss.detach())))  # without warm-up the loss is the negative ELBO
            return loss

    fit = trainer(tmp_path, max_epochs=1)
    model = Recording(n_latent=2, n_hidden=16, kl_warmup_epochs=0)
    fit.fit(model, datamodule=FakeData(n_obs=70))
    sizes, elbos = zip(*seen, strict=True)
    assert len(set(sizes)) > 1
    assert float(fit.callback_metrics["train/elbo_epoch"]) == pytest.approx(np.average(elbos, weights=sizes), rel=1e-5)


def test_single_batches_are_logged_where_the_log_has_a_row(tmp_path: Path) -> None:
    logged: list[int] = []

    class Recording(VAE):
        def log_dict(self, dictionary: Any, *args: Any, **options: Any) -> None:
            logged.extend([self.global_step] if "train/loss" in dictionary else [])
            super().log_dict(dictionary, *args, **options)

    trainer(tmp_path, max_epochs=2, log_every_n_steps=3).fit(Recording(n_latent=2, n_hidden=8), datamodule=FakeData())
    assert logged == [2, 5]


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "gaussian"])
def test_genes_start_with_the_same_dispersion(tmp_path: Path, likelihood: str) -> None:
    model = small(likelihood=likelihood)
    trainer(tmp_path, max_steps=0).fit(model, datamodule=FakeData(normalized=likelihood == "gaussian"))
    assert model.log_dispersion.unique().tolist() == [0.0]


def test_kl_warmup_is_linear_in_steps(tmp_path: Path) -> None:
    weights: list[float] = []

    class Recording(VAE):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            weights.append(self.kl_weight(batch_idx))
            return super().training_step(batch, batch_idx)

    model = Recording(n_latent=2, n_hidden=8, kl_warmup_epochs=2)
    trainer(tmp_path, max_epochs=3).fit(model, datamodule=FakeData(batch_size=12))
    assert weights == pytest.approx([0, 1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1, 1, 1, 1])


def test_constructor_touches_no_data_and_builds_nothing() -> None:
    model = VAE()
    assert model.decoder is None
    assert list(model.parameters()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"likelihood": "poisson"}, "likelihood=poisson is not one of nb, zinb, gaussian", id="likelihood"),
        pytest.param({"n_latent": 0}, "n_latent=0 must be at least 1", id="n_latent"),
        pytest.param({"dropout": 1.5}, "dropout=1.5 must be at least 0 and at most 1", id="dropout"),
        pytest.param({"lr": -1.0}, "lr=-1.0 must be at least 0", id="lr"),
        pytest.param({"lr": "fast"}, "lr=fast is not a number", id="lr is text"),
        pytest.param({"n_layers": 1.5}, "n_layers=1.5 must be a whole number", id="n_layers"),
        pytest.param({"dispersion": "gene-batch"}, "needs a batch_key", id="dispersion"),
        pytest.param({"likelihood": "nb", "normalized": True}, "set model.normalized=false", id="normalized"),
    ],
)
def test_bad_settings_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        VAE(**options)


def test_counts_are_needed_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"likelihood=nb needs counts.*set data\.normalized=false"):
        trainer(tmp_path).fit(small(), datamodule=FakeData(normalized=True))


def test_unserved_batch_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch_key=donor is not among the columns served \(SRX_accession\)"):
        trainer(tmp_path).fit(small(batch_key="donor"), datamodule=FakeData())


def test_checkpoint_loads_without_data(tmp_path: Path) -> None:
    data = FakeData()
    model = small(batch_key="SRX_accession", dispersion="gene-batch", encode_batch=True, batch_dim=3)
    path = saved(model, data, tmp_path)
    loaded = VAE.load_from_checkpoint(path)
    batch = data.batch(torch.arange(8))
    torch.testing.assert_close(loaded.eval()(batch), model.eval()(batch))
    facts = torch.load(path, weights_only=True)["hyper_parameters"]["facts"]
    assert facts["var_names"] == data.var_names
    assert facts["categories"] == ["SRX1", "SRX2"]
    assert facts["gene_list_hash"] == "g" * 64


def test_checkpoint_that_knows_of_no_covariates_loads(tmp_path: Path) -> None:
    data, model = FakeData(), small(batch_key="SRX_accession")
    path = saved(model, data, tmp_path, max_epochs=1)
    contents = torch.load(path, weights_only=True)
    for settings, name in (("", "categorical_covariates"), ("", "continuous_covariates"), ("facts", "covariates")):
        (contents["hyper_parameters"][settings] if settings else contents["hyper_parameters"]).pop(name)
    names = {"encoder.mlp.layers.0.linear.weight", "decoder.mlp.layers.0.covariate.table.weight", "seen"}
    assert names < set(contents["state_dict"])
    torch.save(contents, path)
    batch = data.batch(torch.arange(8))
    torch.testing.assert_close(VAE.load_from_checkpoint(path).eval()(batch), model.eval()(batch))


def test_checkpoint_of_a_likelihood_of_ones_own(tmp_path: Path) -> None:
    data, model = FakeData(), small(likelihood="tests.support.poisson.Poisson")
    path = saved(model, data, tmp_path)
    assert torch.load(path, weights_only=True)["hyper_parameters"]["likelihood"] == "tests.support.poisson.Poisson"
    loaded = VAE.load_from_checkpoint(path)
    assert type(loaded.likelihood) is Poisson
    assert "log_dispersion" not in loaded.state_dict()
    assert elbo(loaded, data, tmp_path) == elbo(model, data, tmp_path)


def test_checkpoint_of_another_gene_list_is_refused(tmp_path: Path) -> None:
    path = saved(small(), FakeData(), tmp_path)
    other = FakeData()
    other.index.gene_list_hash = "h" * 64
    with pytest.raises(SelectionError, match=r"list gggggggggggg.*hhhhhhhhhhhh"):
        trainer(tmp_path).validate(VAE.load_from_checkpoint(path), datamodule=other, verbose=False)
    with pytest.raises(SelectionError, match="resume with the dataset it was trained on"):
        trainer(tmp_path, max_epochs=3).fit(small(), datamodule=other, ckpt_path=path)


@pytest.mark.parametrize(
    ("poison", "words"),
    [
        pytest.param((5,), "1 of 16 cells, global rows 5 of SRX2;", id="one"),
        pytest.param((6, 7), "2 of 16 cells, global rows 6, 7 of SRX1, SRX2;", id="two"),
    ],
)
def test_loss_that_is_not_finite_names_the_cells(tmp_path: Path, poison: tuple[int, ...], words: str) -> None:
    with pytest.raises(ScvaeDataError, match="the loss is not finite at step 0: " + words) as caught:
        trainer(tmp_path).fit(small(norm="layer"), datamodule=FakeData(poison=poison))
    assert "\n" not in str(caught.value)


def test_weights_of_a_loss_that_is_not_finite_are_not_saved(tmp_path: Path) -> None:
    model = small(norm="layer")
    fit = trainer(tmp_path, max_steps=1)
    with pytest.raises(ScvaeDataError, match="the loss is not finite at step 0"):
        fit.fit(model, datamodule=FakeData(poison=tuple(range(16))))
    model._loss_check.note(torch.tensor(np.nan), torch.tensor([np.nan]), {"index": torch.tensor([5]), "obs": {}})
    with pytest.raises(ScvaeDataError, match="1 of 1 cells, global rows 5"):
        fit.save_checkpoint(tmp_path / "model.ckpt")
    assert not (tmp_path / "model.ckpt").exists()


class Waits(TorchDispatchMode):
    """Counts numbers that the host reads: on a device, each would wait for all work before it."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += operation.name() == "aten::_local_scalar_dense"
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("step", ["training_step", "validation_step"])
def test_no_step_but_the_first_reads_a_number(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, read = getattr(VAE, step), []

    def watched(*args: Any) -> Any:
        with Waits() as waits:
            made = inner(*args)
        read.append(waits.n)
        return made

    monkeypatch.setattr(VAE, step, watched)
    trainer(tmp_path).fit(small(batch_key="SRX_accession"), datamodule=FakeData(unseen=True))
    assert len(read) > 1
    assert not any(read[1:])
    with Waits() as waits:
        bool(torch.isfinite(torch.zeros(1)))
    assert waits.n == 1


def test_categories_not_seen_in_training_count_as_unknown(tmp_path: Path) -> None:
    data = FakeData(unseen=True)
    model = small(batch_key="SRX_accession", unknown_dropout=0.5)
    fit = trainer(tmp_path)
    fit.fit(model, datamodule=data)
    model.eval()
    found = model._covariates({"obs": {"SRX_accession": torch.tensor([0, 1, 2, 3])}})
    assert found is not None
    assert found.codes.flatten().tolist() == [0, 1, 3, 3]
    assert "val/elbo_unseen" in fit.callback_metrics


def test_unknown_dropout_replaces_its_share_in_training(tmp_path: Path) -> None:
    model = small(batch_key="SRX_accession", unknown_dropout=0.25)
    trainer(tmp_path, max_epochs=1).fit(model, datamodule=FakeData())
    torch.manual_seed(0)
    model.train()
    found = model._covariates({"obs": {"SRX_accession": torch.zeros(4000, dtype=torch.int64)}})
    assert found is not None
    assert float((found.codes == 2).float().mean()) == pytest.approx(0.25, abs=0.03)


N = 64
DONORS = [None if i % 8 == 3 else f"D{i % 3}" for i in range(N)]
MITO = [float("nan") if i % 16 == 5 else float(i % 7) for i in range(N)]


def covariate_data(**options: Any) -> FakeData:
    return FakeData(categorical={"donor": DONORS}, continuous={"mito": MITO}, **options)


def covariate_model(**options: Any) -> VAE:
    columns = {"categorical_covariates": ["donor"], "continuous_covariates": ["mito"]}
    return small(batch_key="SRX_accession", **columns, **options)


def test_covariates_have_codes_of_their_own_and_standardised_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, model = covariate_data(), covariate_model()
    trainer(tmp_path, max_epochs=1).fit(model, datamodule=data)
    batch = data.batch(torch.arange(N))
    found = model.eval()._covariates(batch)
    assert found is not None
    # SRX1, SRX2, unknown, D0, D1, D2, unknown
    expected = [[i % 2, 6 if DONORS[i] is None else 3 + i % 3] for i in range(N)]
    assert found.codes.tolist() == expected
    known = np.array([MITO[i] for i in range(N) if i % 4])
    numbers = np.nan_to_num((np.array(MITO) - np.nanmean(known)) / np.nanstd(known))
    np.testing.assert_allclose(found.numbers[:, 0], numbers, atol=1e-6)
    assert "8 training cells have no donor: they get unknown" in caplog.text
    assert "4 training cells have no mito: they get the mean" in caplog.text


@pytest.mark.parametrize("encode", [False, True])
def test_the_networks_see_every_covariate(tmp_path: Path, encode: bool) -> None:
    data, model = covariate_data(), covariate_model(encode_batch=encode)
    trainer(tmp_path, max_epochs=1).fit(model, datamodule=data)
    model.eval()
    batch = data.batch(torch.tensor([0, 2]))
    before, latent = model.elbo_terms(batch, noise_seed=0)["recon"], model(batch)
    for name, other in {
        "SRX_accession": torch.tensor([1, 1]),
        "donor": torch.tensor([1, 1]),
        "mito": batch["obs"]["mito"] + 1,
    }.items():
        changed = {**batch, "obs": {**batch["obs"], name: other}}
        assert not torch.allclose(model.elbo_terms(changed, noise_seed=0)["recon"], before)
        assert torch.equal(model(changed), latent) != encode


def test_continuous_covariates_alone(tmp_path: Path) -> None:
    model = small(continuous_covariates="mito")
    trainer(tmp_path, max_epochs=1).fit(model, datamodule=covariate_data())
    assert model.hparams["continuous_covariates"] == ["mito"]
    assert model.decoder is not None
    assert model.decoder.mlp.layers[0].covariate.numbers.weight.shape == (16, 1)


def test_checkpoint_with_covariates_loads_without_data(tmp_path: Path) -> None:
    data, model = covariate_data(), covariate_model(batch_dim=3, dispersion="gene-batch")
    path = saved(model, data, tmp_path)
    loaded = VAE.load_from_checkpoint(path).eval()
    batch = data.batch(torch.arange(8))
    terms = (one.eval().elbo_terms(batch, noise_seed=0)["recon"] for one in (loaded, model))
    torch.testing.assert_close(*terms)
    facts = torch.load(path, weights_only=True)["hyper_parameters"]["facts"]["covariates"]
    assert facts["categorical"] == {"donor": {"categories": ["D0", "D1", "D2"], "n_missing": 8}}
    assert facts["continuous"]["mito"]["n_missing"] == 4


def test_training_goes_on_with_the_moments_that_it_began_with(tmp_path: Path) -> None:
    path = saved(covariate_model(), covariate_data(), tmp_path, max_epochs=1)
    other = FakeData(categorical={"donor": DONORS}, continuous={"mito": [3 * value for value in MITO]})
    resumed = covariate_model()
    trainer(tmp_path).fit(resumed, datamodule=other, ckpt_path=path)
    theirs = torch.load(path, weights_only=True)
    torch.testing.assert_close(resumed.moments, theirs["state_dict"]["moments"])
    assert resumed.facts is not None
    assert resumed.facts["covariates"] == theirs["hyper_parameters"]["facts"]["covariates"]


def test_a_covariate_named_twice_or_not_served_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="donor is named twice among batch_key=donor"):
        VAE(batch_key="donor", categorical_covariates=["donor"])
    with pytest.raises(
        ConfigError, match=r"categorical_covariates: donor of the model is not served; add it to data\."
    ):
        trainer(tmp_path).fit(small(categorical_covariates=["donor"]), datamodule=FakeData())


def test_unmeasured_genes_neither_cost_nor_take_a_share(tmp_path: Path) -> None:
    data, model = partly_measured(), small(norm="layer")
    trainer(tmp_path, max_epochs=1).fit(model, datamodule=data)
    model.eval()
    batch = data.batch(torch.arange(4))
    before = model.elbo_terms(batch, noise_seed=0)["recon"]
    assert model.decoder is not None
    with torch.no_grad():
        model.decoder.heads["scale"].bias[8:] += 100.0
        model.log_dispersion[:, 8:] += 3.0
    torch.testing.assert_close(model.elbo_terms(batch, noise_seed=0)["recon"], before)


def test_a_checkpoint_knows_which_genes_were_measured(tmp_path: Path) -> None:
    """Loaded without data, it scores the batches of its directory as the trainer does."""
    data, model = partly_measured(n_sets=2), small(norm="layer")
    path = saved(model, data, tmp_path, max_epochs=1)
    batch = data.batch(torch.arange(4))
    expected = model.eval().elbo_terms(batch, noise_seed=0)["recon"]
    loaded = VAE.load_from_checkpoint(path).eval()
    torch.testing.assert_close(loaded.elbo_terms(batch, noise_seed=0)["recon"], expected)
    older = torch.load(path, weights_only=True)
    del older["scvae_data_vae"]["gene_sets"]
    torch.save(older, path)
    unknown = VAE.load_from_checkpoint(path).eval().elbo_terms(batch, noise_seed=0)["recon"]
    assert not torch.allclose(unknown, expected, rtol=1e-3)


def test_gene_sets_are_those_of_the_data_at_hand(tmp_path: Path) -> None:
    """Codes of one directory mean other sets than those of the directory that was trained on."""
    loaded = VAE.load_from_checkpoint(saved(small(norm="layer"), partly_measured(), tmp_path, max_epochs=1))
    assert loaded.measured is not None
    trainer(tmp_path).validate(loaded, datamodule=FakeData(), verbose=False)
    assert loaded.measured is None


def test_bf16_stays_close_to_float32(tmp_path: Path) -> None:
    data = FakeData()
    model = small(norm="layer")
    wide = trainer(tmp_path).validate(model, datamodule=data, verbose=False)[0]["val/elbo"]
    narrow = trainer(tmp_path, precision="bf16-mixed").validate(model, datamodule=data, verbose=False)[0]["val/elbo"]
    assert narrow == pytest.approx(wide, rel=0.02)


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "gaussian", "tests.support.poisson.Poisson"])
def test_a_step_of_sparse_rows_is_that_of_dense_ones(likelihood: str) -> None:
    data = FakeData(normalized=likelihood == "gaussian")
    batch = data.batch(torch.arange(16))
    losses, gradients = [], []
    for x in (batch["x"], sparse_rows(batch["x"])):
        torch.manual_seed(0)
        model = small(likelihood=likelihood, batch_key="SRX_accession", facts={"n_vars": 12, "categories": ["a", "b"]})
        model.configure_model()
        terms = model.elbo_terms({**batch, "x": x})
        loss = (terms["kl"] - terms["recon"]).mean()
        loss.backward()
        losses.append(loss.detach())
        gradients.append(torch.cat([weights.grad.flatten() for weights in model.parameters()]))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6 * float(gradients[0].abs().max()))


def test_moments_of_any_memory_order_are_laid_out_as_their_weights() -> None:
    model = small(facts={"n_vars": 12, "categories": []})
    model.configure_model()
    optimizer = model.configure_optimizers()
    sum(weights.square().sum() for weights in model.parameters()).backward()
    optimizer.step()
    state = optimizer.state_dict()
    for moments in state["state"].values():
        moments.update({name: values.contiguous() for name, values in moments.items()})
    optimizer.load_state_dict(state)
    for weights, moments in optimizer.state.items():
        assert moments["exp_avg"].stride() == weights.stride()
        torch.testing.assert_close(moments["exp_avg"], 0.1 * weights.grad, rtol=1e-4, atol=1e-7)


def test_predict_gives_latent_means_and_rows(tmp_path: Path) -> None:
    data = FakeData()
    model = small()
    trainer(tmp_path).fit(model, datamodule=data)
    predicted = trainer(tmp_path).predict(model, datamodule=data)
    assert predicted is not None
    assert torch.cat([part["index"] for part in predicted]).tolist() == list(range(64))
    assert predicted[0]["latent"].shape == (16, 2)
