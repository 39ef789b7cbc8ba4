"""The variational autoencoder as a LightningModule: batches of a ChunkedDataModule in, losses and latents out.

The model is that of SCVI: ``log1p`` of the counts into an encoder, a normal
latent, a softmax decoder times the observed library size, one dispersion per
gene. Sizes, optimiser and defaults are SCVI's as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor, nn

from scvae_data.errors import ConfigError, SelectionError
from scvae_data.loading.batch.sparse import SparseRows
from scvae_data.models.dataset_facts import (
    datamodule_of,
    facts_of,
    gene_masks,
    packed_masks,
    same_genes,
    unpacked_masks,
)
from scvae_data.models.likelihoods import likelihood_named
from scvae_data.models.loss_check import LossCheck
from scvae_data.models.networks import Covariates, Decoder, Encoder, MlpShape
from scvae_data.models.settings import check_settings
from scvae_data.models.trained import Trained
from scvae_data.results.model import categories_of, moments_of
from scvae_data.results.saved import read_model, write_model
from scvae_data.results.weights import check_size, fitting

__all__ = ["CHECKPOINT_KEY", "CHECKPOINT_VERSION", "VAE"]

CHECKPOINT_KEY = "scvae_data_vae"
CHECKPOINT_VERSION = 1  # of what hparams and weights mean

Batch = dict[str, Any]

TERMS = ("loss", "elbo", "recon", "kl")
ACTIVE_VARIANCE = 0.01  # a latent dimension is active if its mean varies more than this over cells (Burda et al. 2016)


class VAE(Trained, LightningModule):
    """Variational autoencoder of single-cell expression.

    The networks are built when a trainer starts, from what its DataModule
    knows (genes, categories), and are described in the checkpoint, so that
    ``VAE.load_from_checkpoint(path)`` needs no data.

    Logged per cell, in nats: ``elbo = recon - kl``, where ``recon`` is the
    expected log-density of the data; higher is better. ``loss`` is what is
    minimised: ``kl_weight * kl - recon`` in training, ``-elbo`` elsewhere.
    ``train/elbo`` and its like are of single batches, ``train/elbo_epoch``
    and its like means over an epoch.

    Parameters
    ----------
    likelihood
        ``"nb"`` or ``"zinb"`` on counts, ``"gaussian"`` on normalised values, or the import path of another
        :class:`~scvae_data.models.likelihoods.Likelihood`, whose module must be imported before.
    normalized
        Whether the DataModule's ``x`` is log-normalised; follows from the
        likelihood if None. It is a parameter so that a config can hand it on
        to the DataModule.
    n_latent, n_hidden, n_layers
        Latent dimensions, width and number of hidden layers.
    dropout
        Share of hidden units dropped in the encoder.
    norm
        ``"batch"``, ``"layer"`` or ``"none"``.
    dispersion
        What the likelihood learns of genes: ``"gene"``: one per gene;
        ``"gene-batch"``: one per gene and category of ``batch_key``.
    batch_key
        obs column to correct for; None: no correction.
    categorical_covariates, continuous_covariates
        Further obs columns to correct for, of categories and of numbers. Numbers are standardised by the mean and
        standard deviation of the training cells; a cell without one has the mean.
    batch_dim
        Length of a learned vector per category; 0: one-hot.
    encode_batch
        Whether the encoder sees batch and covariates too, not only the decoder.
    unknown_dropout
        Share of training cells whose category is replaced by "unknown", for each
        column by itself; it is what cells of categories not seen in training get.
    kl_warmup_epochs
        Epochs over which the weight of the KL term rises linearly from 0 to 1.
    lr, eps, weight_decay
        Of Adam.
    facts
        What the networks were built for; filled in by :meth:`configure_model`.

    Raises
    ------
    ConfigError
        For a value outside its range, naming it.
    """

    takes_sparse_rows = True
    """Whether batches may come with ``x`` as sparse rows, on a CPU."""

    def __init__(
        self,
        likelihood: str = "nb",
        normalized: bool | None = None,
        n_latent: int = 10,
        n_hidden: int = 128,
        n_layers: int = 1,
        dropout: float = 0.1,
        norm: Literal["batch", "layer", "none"] = "batch",
        dispersion: Literal["gene", "gene-batch"] = "gene",
        batch_key: str | None = None,
        batch_dim: int = 0,
        encode_batch: bool = False,
        unknown_dropout: float = 0.1,
        kl_warmup_epochs: float = 10.0,
        lr: float = 1e-3,
        eps: float = 0.01,
        weight_decay: float = 1e-6,
        facts: dict[str, Any] | None = None,
        categorical_covariates: str | Sequence[str] = (),
        continuous_covariates: str | Sequence[str] = (),
    ) -> None:
        super().__init__()
        categorical_covariates, continuous_covariates = _names(categorical_covariates), _names(continuous_covariates)
        self.likelihood = likelihood_named(likelihood)
        self.normalized = self.likelihood.normalized
        check_settings(locals())
        if normalized is not None and normalized != self.normalized:
            raise ConfigError(
                f"likelihood={likelihood} cannot use normalized={normalized}; "
                f"set model.normalized={str(not normalized).lower()} or choose another model"
            )
        self.save_hyperparameters(logger=False)
        self.facts = facts
        self.record: dict[str, Any] = {}  # what the run that trained it noted: config, facts of the dataset, metrics
        self.encoder: Encoder | None = None
        self.decoder: Decoder | None = None
        self._loss_check = LossCheck(self)

    # ---- building -------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Check that the DataModule serves what the likelihood needs, from the genes the networks were built for."""
        data = datamodule_of(self)
        if not self._has_target(data):
            wanted = "normalised values" if self.normalized else "counts"
            raise ConfigError(
                f"likelihood={self.hparams['likelihood']} needs {wanted}, but the data are served with "
                f"normalized={data.normalized}; set data.normalized={str(self.normalized).lower()} "
                f"(in Python: normalized={self.normalized} of the DataModule)"
            )
        if self.facts is not None and not same_genes(self.facts, facts_of(data, None)):
            raise SelectionError(
                f"the model was trained on {self.facts['n_vars']} genes (list {self.facts['gene_list_hash'][:12]}), "
                f"this dataset has {data.n_vars} (list {data.index.gene_list_hash[:12]}); use one with its genes"
            )
        if self.decoder is not None:  # codes of gene sets are those of the data at hand
            self.measured = gene_masks(self)

    def configure_model(self) -> None:
        """Build the networks once, for ``facts`` or else for the trainer's DataModule."""
        if self.decoder is not None:
            return
        data = datamodule_of(self) if self.facts is None else None
        if data is not None:
            columns = (self.hparams[f"{kind}_covariates"] for kind in ("categorical", "continuous"))
            self.facts = facts_of(data, self.hparams["batch_key"], *columns)
            self.hparams["facts"] = self.facts
        assert self.facts is not None
        self._build(self.facts)

    def _build(self, facts: dict[str, Any]) -> None:
        options, n_vars = self.hparams, int(facts["n_vars"])
        n_codes = [len(names) + 1 for names in categories_of(facts, options["batch_key"]).values()]
        moments = list(moments_of(facts).values())
        sizes: dict[str, Any] = {key: options[key] for key in ("n_hidden", "n_layers", "norm", "batch_dim")}
        given: dict[str, Any] = {"n_codes": sum(n_codes), "n_categorical": len(n_codes), "n_continuous": len(moments)}
        decoder_shape = MlpShape(**sizes, **given)
        encoder_shape = MlpShape(**sizes, **(given if options["encode_batch"] else {}))
        self.encoder = Encoder(n_vars, options["n_latent"], encoder_shape, options["dropout"])
        self.decoder = Decoder(n_vars, options["n_latent"], decoder_shape, self.likelihood.heads)
        n_rows = n_codes[0] if options["dispersion"] == "gene-batch" else 1
        for name, start in self.likelihood.per_gene.items():
            self.register_parameter(name, nn.Parameter(torch.full((n_rows, n_vars), start)))
        # The codes of all columns, one column after the other; the last one of each is "unknown".
        self.register_buffer("seen", torch.zeros(max(1, sum(n_codes)), dtype=torch.bool))
        lengths = torch.tensor(n_codes, dtype=torch.int64)
        ends = lengths.cumsum(0)
        self.register_buffer("first_code", ends - lengths, persistent=False)
        self.register_buffer("unknown", ends - 1, persistent=False)
        if moments:
            self.register_buffer("moments", torch.tensor(moments).T)
        self.register_buffer("measured", gene_masks(self), persistent=False)
        self.register_buffer("epoch_sums", torch.zeros(3, dtype=torch.float64), persistent=False)
        self.register_buffer("held_out_sums", torch.zeros(3, dtype=torch.float64), persistent=False)
        self.register_buffer("unseen_sums", torch.zeros(2, dtype=torch.float64), persistent=False)
        self.register_buffer("latent_sums", torch.zeros(3, options["n_latent"], dtype=torch.float64), persistent=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say whose checkpoint this is, and in which version; weights of a loss that is not finite are none."""
        self._loss_check.check()
        masks = packed_masks(self.measured)
        checkpoint[CHECKPOINT_KEY] = {"format_version": CHECKPOINT_VERSION, "gene_sets": masks}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights that belong to another gene list; without a trainer, take over the rest as well."""
        theirs = checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY].get("facts") or {}
        ours = self.facts or {}
        if not same_genes(theirs, ours):
            raise SelectionError(
                f"the checkpoint was trained on gene list {str(theirs.get('gene_list_hash'))[:12]}, but this dataset "
                f"has {str(ours.get('gene_list_hash'))[:12]}; resume with the dataset it was trained on"
            )
        ours["covariates"] = theirs.get("covariates", {})  # the weights come with the moments that they learned with
        if self._trainer is None:
            self.take_over(checkpoint)

    def take_over(self, checkpoint: dict[str, Any]) -> None:
        """Take from a checkpoint what is neither a setting nor a weight: gene sets, and what the run recorded.

        Raises
        ------
        ValueError
            If the gene sets are not of this model's genes.
        """
        assert self.facts is not None
        # None where all genes were measured; older checkpoints do not say.
        self.measured = unpacked_masks(checkpoint.get(CHECKPOINT_KEY, {}).get("gene_sets"), int(self.facts["n_vars"]))
        self.record = checkpoint.get("scvae_data", {})

    # ---- the model ------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> Tensor:
        """Mean of the latent of each cell, (n, n_latent) float32."""
        return self.posterior(batch)[0]

    def elbo_terms(self, batch: Batch, *, noise_seed: int | None = None) -> dict[str, Tensor]:
        """Reconstruction, KL divergence and latent mean of each cell, with one sample of the latent.

        Parameters
        ----------
        batch
            As delivered by the DataModule.
        noise_seed
            Draw the sample from a stream of its own; None: from torch's global one.

        Returns
        -------
        ``recon`` and ``kl`` in nats, (n,) float32, and ``latent``, (n, n_latent) float32.
        """
        target = self._target(batch)
        covariates = self._covariates(batch)
        mean, log_var = self._encode(target, covariates)
        stream = None if noise_seed is None else torch.Generator(mean.device).manual_seed(noise_seed)
        noise = torch.randn(mean.shape, generator=stream, device=mean.device)
        z = mean + noise * torch.exp(0.5 * log_var)
        kl = 0.5 * (mean.square() + log_var.exp() - log_var - 1).sum(dim=1)
        recon = self._log_prob(target, z, covariates, self._measured(batch))
        return {"recon": recon, "kl": kl, "latent": mean}

    def _encode(self, target: Tensor | SparseRows, covariates: Covariates | None) -> tuple[Tensor, Tensor]:
        assert self.encoder is not None
        latent: tuple[Tensor, Tensor] = self.encoder(target if self.normalized else log1p(target), covariates)
        return latent

    def _log_prob(
        self, target: Tensor | SparseRows, z: Tensor, covariates: Covariates | None, measured: Tensor | None
    ) -> Tensor:
        """Log-density of each cell, (n,)."""
        parameters = self._density_parameters(z, covariates)
        if isinstance(target, SparseRows):
            return self.likelihood.log_prob_of_rows(target, parameters, measured)
        return self.likelihood.log_prob(target, parameters, measured)

    def _density_parameters(self, z: Tensor, covariates: Covariates | None) -> dict[str, Tensor]:
        """What the decoder and the genes say of the likelihood."""
        assert self.decoder is not None
        parameters: dict[str, Tensor] = self.decoder(z, covariates)
        for name in self.likelihood.per_gene:
            rows = self.get_parameter(name)
            parameters[name] = rows[0] if len(rows) == 1 or covariates is None else rows[covariates.codes[:, 0]]
        return parameters

    def _has_target(self, data: Any) -> bool:
        return bool(data.normalized) == self.normalized or (
            not self.normalized and bool(getattr(data, "counts", False))
        )

    def _target(self, batch: Batch) -> Tensor | SparseRows:
        """What the likelihood explains: counts or normalised values, (n, n_vars) float32."""
        return cast("Tensor | SparseRows", batch["x"] if self.normalized else batch.get("counts", batch["x"]))

    def _measured(self, batch: Batch) -> Tensor | None:
        if "measured" in batch:  # of a directory whose gene sets are its own
            return cast("Tensor | None", batch["measured"])
        return None if self.measured is None else self.measured[batch["gene_set"]]

    def _covariates(self, batch: Batch) -> Covariates | None:
        """Categories and standardised numbers of each cell.

        A category is "unknown" where it was not seen in training and, in training, for a random share of the cells.
        """
        assert self.facts is not None
        categorical, moments = categories_of(self.facts, self.hparams["batch_key"]), moments_of(self.facts)
        if not categorical and not moments:
            return None
        served = [batch["obs"][name] for name in (*categorical, *moments)]
        codes = _side_by_side(served[: len(categorical)], torch.int64, served[0])
        numbers = _side_by_side(served[len(categorical) :], torch.float32, served[0])
        if categorical:
            codes = self._known(codes + cast(Tensor, self.first_code))
        if moments:
            mean, sd = cast(Tensor, self.moments)
            numbers = (numbers - mean) / sd
            numbers = numbers.masked_fill(numbers.isnan(), 0)
        return Covariates(codes, numbers)

    def _known(self, codes: Tensor) -> Tensor:
        seen, unknown = cast(Tensor, self.seen), cast(Tensor, self.unknown)
        if self.training:
            seen[codes] = True
            kept = torch.rand(codes.shape, device=codes.device) >= self.hparams["unknown_dropout"]
        else:
            kept = seen[codes]
        return torch.where(kept, codes, unknown)

    # ---- a trained model --------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, license: str | None = None) -> None:
        """Write the model into one small folder: weights, genes, categories, settings and a model card.

        Parameters
        ----------
        folder
            New, empty, or of a saved model, which is replaced.
        license
            Under which it is given away, e.g. ``cc-by-4.0``; for the card.
        """
        weights = {} if self.decoder is None else self.state_dict()
        masks = None if self.decoder is None else packed_masks(self.measured)
        write_model(Path(folder), self, weights, masks, license)

    @classmethod
    def load(cls, folder: str | Path) -> VAE:
        """Read a model that :meth:`save` has written, on the CPU; nothing in the folder is run.

        Raises
        ------
        ConfigError
            If it holds no whole model of this version.
        """
        saved = read_model(Path(folder))
        beside = {CHECKPOINT_KEY: {"gene_sets": saved.gene_sets}, "scvae_data": saved.record}
        with fitting(str(folder)):
            return cls.restored(saved.settings, saved.weights, saved.n_bytes, beside)

    @classmethod
    def restored(
        cls, settings: dict[str, Any], weights: dict[str, Tensor], n_bytes: int, checkpoint: dict[str, Any]
    ) -> VAE:
        """Make a model of the settings and weights in a file of ``n_bytes``, and of what a checkpoint has beside."""
        check_size(cls, settings, weights, n_bytes)
        model = cls(**settings)
        model.configure_model()
        model.load_state_dict(weights)
        model.take_over(checkpoint)
        return model.eval()

    def posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent of each cell, (n, n_latent) each."""
        return self._encode(self._target(batch), self._covariates(batch))

    def log_shares(self, z: Tensor, batch: Batch) -> Tensor:
        """Log of each gene's expected share of the counts, given latents and the cells' ``obs``; (n, n_vars)."""
        return self.likelihood.log_shares(self._density_parameters(z, self._covariates(batch)))

    def simulated(self, batch: Batch) -> Tensor:
        """Counts drawn from the posterior predictive distribution of each cell, (n, n_vars)."""
        mean, log_var = self.posterior(batch)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_var)
        parameters = self._density_parameters(z, self._covariates(batch))
        target = self._target(batch)
        dense = target.to_dense() if isinstance(target, SparseRows) else target
        return self.likelihood.sample(dense, parameters, self._measured(batch))

    def seen_of(self, column: str) -> NDArray[np.bool_]:
        """Which categories of ``batch_key``, or of a covariate, training has seen; (n_categories,)."""
        assert self.facts is not None
        categories = categories_of(self.facts, self.hparams["batch_key"])
        first = int(cast(Tensor, self.first_code)[list(categories).index(column)])
        seen: NDArray[np.bool_] = cast(Tensor, self.seen).cpu().numpy()[first : first + len(categories[column])]
        return seen

    # ---- training -------------------------------------------------------------------------------------------------

    def kl_weight(self, batch_idx: int) -> float:
        """Weight of the KL term: linear in the share of ``kl_warmup_epochs`` that has passed, at most 1."""
        warmup = float(self.hparams["kl_warmup_epochs"])
        if warmup == 0:
            return 1.0
        epochs = self.current_epoch + batch_idx / max(1.0, float(self.trainer.num_training_batches))
        return min(1.0, epochs / warmup)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch: mean over cells, in nats."""
        terms = self.elbo_terms(batch)
        weight = self.kl_weight(batch_idx)
        per_cell = weight * terms["kl"] - terms["recon"]
        loss = per_cell.mean()
        self._loss_check.note(loss, per_cell, batch)
        if self.trainer._logger_connector.should_update_logs:  # Lightning's bookkeeping of a value costs 0.1 ms
            self._log_step(terms, loss, weight)
        self._log_epoch_means(terms)
        return loss

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """End here if the step before had no finite loss."""
        self._loss_check.check()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """ELBO of one batch of held-out cells, also apart for cells of categories not seen in training."""
        terms = self._evaluate(batch, batch_idx)
        latent = terms["latent"].double()
        sums = cast(Tensor, self.latent_sums)
        sums += torch.stack([torch.full_like(latent[0], len(latent)), latent.sum(dim=0), latent.square().sum(dim=0)])
        self._log_unseen(batch, terms)

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch; what one rank has seen in training, all have."""
        self._loss_check.check()
        cast(Tensor, self.held_out_sums).zero_()
        cast(Tensor, self.latent_sums).zero_()
        cast(Tensor, self.unseen_sums).zero_()
        self._share_seen()

    def on_train_end(self) -> None:
        """What one rank has seen, all have."""
        self._loss_check.check()
        self._share_seen()

    def on_validation_epoch_end(self) -> None:
        """Count the latent dimensions that vary over cells: few of them mean posterior collapse."""
        self._log_held_out("val")
        n, total, squares = self._over_ranks(cast(Tensor, self.latent_sums))
        variance = squares / n - (total / n).square()
        self.log("val/active_units", (variance > ACTIVE_VARIANCE).sum().float(), sync_dist=True)
        n_unseen, elbo = self._over_ranks(cast(Tensor, self.unseen_sums))
        if n_unseen:
            self.log("val/elbo_unseen", elbo / n_unseen, sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """ELBO of one batch of test cells."""
        self._evaluate(batch, batch_idx)

    def on_test_epoch_start(self) -> None:
        """Forget earlier cells."""
        cast(Tensor, self.held_out_sums).zero_()

    def on_test_epoch_end(self) -> None:
        """Log the means over all test cells."""
        self._log_held_out("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """``latent``, the mean of each cell's latent, and ``index``, its global row."""
        return {"latent": self(batch), "index": batch["index"]}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam as in SCVI; on a CPU in one pass over the weights, which are more than its caches hold."""
        options = {key: self.hparams[key] for key in ("lr", "eps", "weight_decay")}
        adam = torch.optim.Adam(self.parameters(), **options, fused=True if self.device.type == "cpu" else None)
        adam.register_load_state_dict_post_hook(_lay_out_as_weights)
        return adam

    def _evaluate(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        # The same noise every time: epochs and models differ by what they learned, not by luck.
        terms = self.elbo_terms(batch, noise_seed=batch_idx)
        sums = cast(Tensor, self.held_out_sums)
        sums += sums_of(terms)
        return terms

    def _log_held_out(self, stage: str) -> None:
        """Means over all held-out cells."""
        n, recon, kl = self._over_ranks(cast(Tensor, self.held_out_sums))
        means = torch.stack([kl - recon, recon - kl, recon, kl]) / n
        self.log_dict(
            {f"{stage}/{name}": mean.float() for name, mean in zip(TERMS, means, strict=True)}, sync_dist=True
        )

    def _log_step(self, terms: dict[str, Tensor], loss: Tensor, kl_weight: float) -> None:
        recon, kl = terms["recon"].mean(), terms["kl"].mean()
        # A number of the host would be sent to the device, and waited for.
        values = torch.stack([loss, recon - kl, recon, kl, loss.new_full((), kl_weight)]).detach()
        if self.trainer.world_size > 1:
            values = self.trainer.strategy.reduce(values, reduce_op="mean")
        named = {f"train/{name}": value for name, value in zip((*TERMS, "kl_weight"), values, strict=True)}
        self.log_dict(named, on_step=True, on_epoch=False, batch_size=len(terms["kl"]))

    def _log_epoch_means(self, terms: dict[str, Tensor]) -> None:
        """Means over an epoch: single batches differ more by their cells' depth than epochs by what was learned."""
        sums = cast(Tensor, self.epoch_sums)  # Lightning's own means cost as much as a tenth of a small step
        sums += sums_of(terms)
        if self.trainer.is_last_batch:
            n, recon, kl = self._over_ranks(sums)
            recon, kl = recon / n, kl / n
            sums.zero_()
            means = {"train/elbo_epoch": recon - kl, "train/recon_epoch": recon, "train/kl_epoch": kl}
            self.log_dict(means, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def _log_unseen(self, batch: Batch, terms: dict[str, Tensor]) -> None:
        covariates, unknown = self._covariates(batch), cast(Tensor, self.unknown)
        if covariates is None or not len(unknown):
            return
        unseen = (covariates.codes == unknown).any(dim=1) & cast(Tensor, self.seen).any()
        elbo = (terms["recon"] - terms["kl"]).masked_fill(~unseen, 0)
        sums = cast(Tensor, self.unseen_sums)
        sums += torch.stack([unseen.sum(), elbo.sum()])

    def _over_ranks(self, sums: Tensor) -> Tensor:
        """Sums over the cells of all ranks."""
        if self.trainer.world_size == 1:
            return sums
        return cast(Tensor, self.trainer.strategy.reduce(sums.clone(), reduce_op="sum"))

    def _share_seen(self) -> None:
        """Take for seen what any rank has seen."""
        seen = cast(Tensor, self.seen)
        seen |= self._over_ranks(seen.double()) > 0


def _lay_out_as_weights(optimizer: torch.optim.Optimizer) -> None:
    """Give moments of a checkpoint the memory order of their weights, which Adam in one pass takes for granted."""
    for weights, state in optimizer.state.items():
        for name, moments in state.items():
            if torch.is_tensor(moments) and moments.shape == weights.shape:
                state[name] = torch.empty_like(weights, dtype=moments.dtype).copy_(moments)


def log1p(counts: Tensor | SparseRows) -> Tensor | SparseRows:
    """``log(1 + counts)``, of sparse rows again sparse."""
    if isinstance(counts, SparseRows):
        return counts._replace(data=torch.log1p(counts.data))
    return torch.log1p(counts)


def sums_of(terms: dict[str, Tensor]) -> Tensor:
    """Number of cells and the sums of their reconstruction and KL terms, (3,)."""
    recon, kl = terms["recon"].detach(), terms["kl"].detach()
    return torch.stack([torch.full_like(kl[0], len(kl)), recon.sum(), kl.sum()])


def _names(given: str | Sequence[str]) -> list[str]:
    """One name or several as a list."""
    return [given] if isinstance(given, str) else list(given or ())


def _side_by_side(columns: list[Tensor], dtype: torch.dtype, like: Tensor) -> Tensor:
    """Columns (n,) as (n, number of columns); of none, as many rows as ``like`` and on its device."""
    if not columns:
        return like.new_empty((len(like), 0), dtype=dtype)
    return torch.stack([column.to(dtype) for column in columns], dim=1)
