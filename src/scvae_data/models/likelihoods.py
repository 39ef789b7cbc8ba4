"""Likelihoods: a cell's values, what the decoder says of them and what is learned of each gene in, nats out."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import NegativeBinomial

from scvae_data.errors import ConfigError
from scvae_data.loading.batch.sparse import SparseRows
from scvae_data.models import fused
from scvae_data.models.densities import gaussian_log_prob, nb_log_prob, zinb_log_prob
from scvae_data.system.import_path import imported

__all__ = ["LIKELIHOODS", "NB", "ZINB", "Gaussian", "Likelihood", "import_likelihood", "likelihood_named", "log_rates"]

# Equal for all genes: random starting values, as SCVI has them, have no symmetry to break and take thousands of steps
# to forget.
DISPERSION = {"log_dispersion": 0.0}
UNMEASURED_LOGIT = -1e4  # softmax share of a gene that a file did not measure: zero, and finite in the log
MIN_LOG_SCALE = -4.0  # a gene that is constant in the data must not buy an infinite density


class Likelihood(ABC):
    """How likely the values of a cell are; made without arguments, holds no state."""

    normalized: ClassVar[bool] = False
    """Whether the values are log-normalised; counts if not."""
    heads: ClassVar[tuple[str, ...]]
    """Parameters that the decoder computes for each cell and gene: any real numbers."""
    per_gene: ClassVar[Mapping[str, float]] = {}
    """Parameters learned for each gene, with the value that all genes start from."""

    @abstractmethod
    def log_prob(self, x: Tensor, parameters: Mapping[str, Tensor], measured: Tensor | None) -> Tensor:
        """Log-density of each cell in nats, (n,), at least float32.

        Parameters
        ----------
        x
            Counts or normalised values, (n, n_vars) float32.
        parameters
            Those of ``heads``, (n, n_vars) float32, and of ``per_gene``, (n_vars,) or (n, n_vars).
        measured
            Genes that count, (n, n_vars) bool; ``x`` is zero in the others. None: all.
        """

    def log_prob_of_rows(self, rows: SparseRows, parameters: Mapping[str, Tensor], measured: Tensor | None) -> Tensor:
        """:meth:`log_prob` of values that come as sparse rows; makes them dense unless a likelihood knows better."""
        return self.log_prob(rows.to_dense().to(rows.data.dtype), parameters, measured)

    def log_shares(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Log of the share that each gene is expected to have in the counts of a cell, (n, n_vars).

        Raises
        ------
        ConfigError
            If this is no likelihood of counts with such shares.
        """
        raise ConfigError(self._no_counts("expected shares of counts"))

    def sample(self, x: Tensor, parameters: Mapping[str, Tensor], measured: Tensor | None) -> Tensor:
        """Counts drawn for cells with the totals of ``x``, by torch's global generator, (n, n_vars).

        Raises
        ------
        ConfigError
            If this is no likelihood of counts that can be drawn from.
        """
        raise ConfigError(self._no_counts("counts to draw"))

    def _no_counts(self, what: str) -> str:
        return f"likelihood {type(self).__name__} has no {what}; use a model of counts, e.g. model=vae_nb"

    def __init_subclass__(cls) -> None:
        # What computes another density must not inherit the sparse form of this one.
        if "log_prob" in vars(cls) and "log_prob_of_rows" not in vars(cls):
            cls.log_prob_of_rows = Likelihood.log_prob_of_rows  # type: ignore[method-assign]


class NB(Likelihood):
    """Negative binomial counts."""

    heads: ClassVar[tuple[str, ...]] = ("scale",)
    per_gene = DISPERSION

    def log_prob(self, x: Tensor, parameters: Mapping[str, Tensor], measured: Tensor | None) -> Tensor:
        """As of a :class:`Likelihood`; ``log_dispersion`` is the log of the inverse dispersion."""
        log_mean = log_rates(x, parameters["scale"], measured)
        return nb_log_prob(x, log_mean, parameters["log_dispersion"]).sum(dim=1)

    def log_prob_of_rows(self, rows: SparseRows, parameters: Mapping[str, Tensor], measured: Tensor | None) -> Tensor:
        """As of a :class:`Likelihood`, in one pass over the logits."""
        if not fused.serves(rows, parameters["scale"]):
            return super().log_prob_of_rows(rows, parameters, measured)
        return fused.nb(rows, parameters["scale"], parameters["log_dispersion"], measured)

    def log_shares(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """As of a :class:`Likelihood`; over all genes, so that cells of all files compare."""
        return torch.log_softmax(parameters["scale"], dim=1)

    def sample(self, x: Tensor, parameters: Mapping[str, Tensor], measured: Tensor | None) -> Tensor:
        """As of a :class:`Likelihood`; genes that were not measured get none."""
        log_mean, log_theta = log_rates(x, parameters["scale"], measured), parameters["log_dispersion"]
        counts = NegativeBinomial(log_theta.exp(), logits=log_mean - log_theta, validate_args=False)
        return counts.sample()  # type: ignore[no-any-return, no-untyped-call]


class ZINB(NB):
    """Negative binomial counts with extra zeros."""

    heads = ("scale", "zero_logit")

    def log_prob(self, x: Tensor, parameters: Mapping[str, Tensor], measured: Tensor | None) -> Tensor:
        """As of :class:`NB`; ``zero_logit`` is the logit of the share of extra zeros."""
        log_mean = log_rates(x, parameters["scale"], measured)
        return zinb_log_prob(x, log_mean, parameters["log_dispersion"], parameters["zero_logit"]).sum(dim=1)

    def log_prob_of_rows(self, rows: SparseRows, parameters: Mapping[str, Tensor], measured: Tensor | None) -> Tensor:
        """As of :class:`NB`."""
        if not fused.serves(rows, parameters["scale"]):
            return Likelihood.log_prob_of_rows(self, rows, parameters, measured)
        return fused.nb(
            rows, parameters["scale"], parameters["log_dispersion"], measured, zero_logit=parameters["zero_logit"]
        )

    def sample(self, x: Tensor, parameters: Mapping[str, Tensor], measured: Tensor | None) -> Tensor:
        """As of :class:`NB`, with the extra zeros."""
        counts = super().sample(x, parameters, measured)
        return counts.masked_fill(torch.rand_like(counts) < torch.sigmoid(parameters["zero_logit"]), 0)


class Gaussian(Likelihood):
    """Normal log-normalised values."""

    normalized = True
    heads = ("mean",)
    per_gene = DISPERSION

    def log_prob(self, x: Tensor, parameters: Mapping[str, Tensor], measured: Tensor | None) -> Tensor:
        """As of a :class:`Likelihood`; ``log_dispersion`` is the log of the standard deviation."""
        values = gaussian_log_prob(x, parameters["mean"], parameters["log_dispersion"].clamp(min=MIN_LOG_SCALE))
        return (values if measured is None else values * measured).sum(dim=1)

    def log_prob_of_rows(self, rows: SparseRows, parameters: Mapping[str, Tensor], measured: Tensor | None) -> Tensor:
        """As of a :class:`Likelihood`, in one pass over the means."""
        if not fused.serves(rows, parameters["mean"]):
            return super().log_prob_of_rows(rows, parameters, measured)
        log_scale = parameters["log_dispersion"].clamp(min=MIN_LOG_SCALE)
        return fused.gaussian(rows, parameters["mean"], log_scale, measured)


LIKELIHOODS = {"nb": NB, "zinb": ZINB, "gaussian": Gaussian}


def log_rates(counts: Tensor, scale: Tensor, measured: Tensor | None) -> Tensor:
    """Logs of the means of counts: a softmax over the measured genes times each cell's total.

    Parameters
    ----------
    counts
        (n, n_vars). The total is theirs, not that over the whole directory: the softmax shares out exactly these.
    scale
        Logits of the shares, (n, n_vars).
    measured
        (n, n_vars) bool; None: all.
    """
    logits = scale if measured is None else scale.masked_fill(~measured, UNMEASURED_LOGIT)
    log_library = counts.sum(dim=1, keepdim=True).clamp(min=1.0).log()
    return torch.log_softmax(logits, dim=1) + log_library


def likelihood_named(name: str) -> Likelihood:
    """The likelihood behind a key of ``LIKELIHOODS``, or behind the import path of a class or object.

    Its module must be imported already. A name may come from a checkpoint,
    which is data: it must not choose what code is run.

    Raises
    ------
    ConfigError
        If there is none.
    """
    module, _, own = str(name).rpartition(".")
    if module and module not in sys.modules:
        raise ConfigError(
            f"likelihood={name} is not imported; import {module} first, or name it on the command line: "
            f"model.likelihood={name}"
        )
    known: Mapping[str, Any] = vars(sys.modules[module]) if module else LIKELIHOODS
    found = known.get(own)
    if isinstance(found, type) and issubclass(found, Likelihood):
        found = found()
    if not isinstance(found, Likelihood):
        raise ConfigError(
            f"likelihood={name} is not one of {', '.join(LIKELIHOODS)}, nor the import path of a {__name__}.Likelihood"
        )
    return found


def import_likelihood(name: object) -> None:
    """Import the module of a likelihood that the user's own configuration names by import path.

    Raises
    ------
    ConfigError
        If it cannot be found.
    """
    if isinstance(name, str) and "." in name:
        imported(name, "model.likelihood")
