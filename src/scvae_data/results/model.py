"""What results ask of a model: the part of :class:`~scvae_data.VAE` that is used here."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Model"]


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

    def is_seen(self, code: int) -> bool:
        """Whether training has seen a category of the batch column."""
