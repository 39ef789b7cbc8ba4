"""What is asked of a trained model: latents, expression and tests of the cells of a directory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from scvae_data.results.cells import Block, Data, elbos, latents, served
from scvae_data.results.change import ChangeTest, differential_expression
from scvae_data.results.expression import Decoding, expression
from scvae_data.results.model import Model
from scvae_data.results.predictive import predictive_check

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Trained"]


class Trained:
    """The results of a :class:`~scvae_data.results.model.Model`, as methods of it."""

    def latents(self: Model, data: Data, where: str | None = None) -> Iterator[Block]:
        """Mean of the latent of each cell, batch by batch: global rows (n,) and latents (n, n_latent).

        Parameters
        ----------
        data
            A directory, or a data module of one. Genes and categories are matched to the model's.
        where
            A filter of obs, such as ``cell_type == "B cell"``; None: all cells.
        """
        return latents(self, served(self, data, where))

    def expression(
        self: Model,
        data: Data,
        genes: Sequence[str] | Sequence[int] | None = None,
        *,
        transform_batch: str | Sequence[str] | None = None,
        n_samples: int = 1,
        library_size: float | Literal["latent"] = 1.0,
        where: str | None = None,
        seed: int = 0,
    ) -> Iterator[Block]:
        """Normalised (decoded) expression of each cell, batch by batch: global rows (n,) and values (n, n_genes).

        Defined as by scvi-tools' ``get_normalized_expression``; see ``scvae_data.results.expression``.

        Parameters
        ----------
        data, where
            As of :meth:`latents`.
        genes
            Names, ids, symbols or numbers of genes of the model, in the order of the columns; None: all.
        transform_batch
            Decode as if all cells were of this batch, or as the mean over several; None: each cell's own.
        n_samples
            Draws from each cell's posterior that are averaged.
        library_size
            Counts that all genes of a cell sum to; ``"latent"``: the cell's own.
        seed
            Of the draws.
        """
        how = Decoding(transform_batch, n_samples, library_size, seed)
        return expression(self, served(self, data, where), genes, how)

    def elbo(
        self: Model, data: Data, where: str | None = None, *, n_samples: int = 1, seed: int = 0
    ) -> Iterator[Block]:
        """ELBO, reconstruction and KL divergence of each cell in nats, batch by batch: rows (n,) and values (n, 3).

        Parameters
        ----------
        data, where
            As of :meth:`latents`.
        n_samples
            Draws from each cell's posterior that are averaged.
        seed
            Of the draws.
        """
        return elbos(self, served(self, data, where), n_samples, seed)

    def predictive_check(
        self: Model, data: Data, where: str | None = None, *, n_samples: int = 1, seed: int = 0
    ) -> pd.DataFrame:
        """Mean, variance and share of zeros of each gene: observed, and simulated from the posterior of each cell.

        Parameters
        ----------
        data, where
            As of :meth:`latents`.
        n_samples
            Simulations of each cell.
        seed
            Of the simulations.
        """
        return predictive_check(self, served(self, data, where), n_samples, seed)

    def differential_expression(
        self: Model,
        data: Data,
        group1: str,
        group2: str | None = None,
        *,
        where: str | None = None,
        test: ChangeTest | None = None,
    ) -> pd.DataFrame:
        """How the expression of each gene changes between two groups of cells, most certain changes first.

        See ``scvae_data.results.change.differential_expression``, which names the columns.

        Parameters
        ----------
        data, where
            As of :meth:`latents`.
        group1, group2
            Filters of obs; the second None for the cells that the first leaves out
            and that have a value in each column that it names.
        test
            Settings of the test; None: the defaults.
        """
        return differential_expression(self, data, (group1, group2), test or ChangeTest(), where)
