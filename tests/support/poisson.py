"""Likelihoods as a user adds them: counts with the variance of their mean, and one that loses its numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from scvae_data.models.likelihoods import Likelihood, log_rates


class Poisson(Likelihood):
    heads = ("scale",)

    def log_prob(
        self, x: torch.Tensor, parameters: Mapping[str, torch.Tensor], measured: torch.Tensor | None
    ) -> torch.Tensor:
        log_rate = log_rates(x, parameters["scale"], measured)
        return (x * log_rate - log_rate.exp() - torch.lgamma(x + 1)).sum(dim=1)


class Diverged(Poisson):
    def log_prob(
        self, x: torch.Tensor, parameters: Mapping[str, torch.Tensor], measured: torch.Tensor | None
    ) -> torch.Tensor:
        return torch.nan * super().log_prob(x, parameters, measured)
