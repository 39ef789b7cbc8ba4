"""What results ask of a model: the part of :class:`~scvae_data.VAE` that is used here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Model", "categories_of", "moments_of", "served_columns"]


class Model(Protocol):
    """A trained model; batches are as :class:`~scvae_data.results.align.AlignedData` makes them."""

    normalized: bool
    facts: dict[str, Any] | None
    record: dict[str, Any]

    @property
    def hparams(self) -> Any:
        """Its settings."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    def eval(self) -> Any:
        """Leave training."""

    def posterior(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent of each cell, (n, n_latent) each."""

    def log_shares(self, z: Tensor, batch: dict[str, Any]) -> Tensor:
        """Log of each gene's expected share of the counts, given latents and the cells' ``obs``; (n, n_vars)."""

    def simulated(self, batch: dict[str, Any]) -> Tensor:
        """Counts drawn from the posterior predictive distribution of each cell, (n, n_vars)."""

    def elbo_terms(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """``recon`` and ``kl`` of each cell, (n,)."""

    def seen_of(self, column: str) -> NDArray[np.bool_]:
        """Which categories of the batch column, or of a covariate, training has seen; (n_categories,)."""


def categories_of(facts: Mapping[str, Any], batch_key: str | None) -> dict[str, list[str]]:
    """Categories by column of all that a model is given as codes, the batch first."""
    batch = {} if batch_key is None else {str(batch_key): facts["categories"]}
    others = facts.get("covariates", {}).get("categorical", {})
    return batch | {name: known["categories"] for name, known in others.items()}


def moments_of(facts: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation by column of all that a model is given as numbers."""
    continuous = facts.get("covariates", {}).get("continuous", {})
    return {name: (known["mean"], known["sd"]) for name, known in continuous.items()}


def served_columns(hparams: Mapping[str, Any], there: Collection[str]) -> dict[str, Any]:
    """Settings of a DataModule that serves of the columns a model is given those that a directory has."""
    key = hparams["batch_key"]
    kinds = ("categorical_covariates", "continuous_covariates")
    return {
        "batch_key": key if key in there else None,
        **{kind: [name for name in hparams[kind] if name in there] for kind in kinds},
    }
