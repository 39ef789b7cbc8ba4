"""A model and cells in, the expression that the model decodes for them out; and where its genes and batches are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scvae_data.errors import ConfigError, SelectionError
from scvae_data.loading.select.genes import as_genes, gene_columns
from scvae_data.results.align import AlignedData
from scvae_data.results.cells import Block, batches, block, check_samples, drawing
from scvae_data.results.model import Model
from scvae_data.store import GeneList
from scvae_data.wording import did_you_mean, named, similar

__all__ = ["LATENT", "Decoding", "as_if_in", "batch_codes", "columns_of", "expression", "genes_of"]

LATENT = "latent"


@dataclass(frozen=True)
class Decoding:
    """How expression is decoded.

    Raises
    ------
    ConfigError
        For a value outside its range.
    """

    transform_batch: str | Sequence[str] | None = None
    """Decode as if all cells were of this batch, or as the mean over several; None: each cell's own."""
    n_samples: int = 1
    """Draws from each cell's posterior that are averaged."""
    library_size: float | Literal["latent"] = 1.0
    """Counts that all genes of a cell sum to, or ``"latent"``: as many as over the genes that the cell was measured
    for."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        check_samples(self.n_samples)
        size = self.library_size
        if size != LATENT and (isinstance(size, (bool, str)) or not size > 0):
            raise ConfigError(f'library_size={size!r} must be a positive number or "latent"')


def expression(
    model: Model, data: AlignedData, genes: Sequence[str] | Sequence[int] | None, how: Decoding
) -> Iterator[Block]:
    """Normalised expression of chosen genes in each selected cell, as ``get_normalized_expression`` of scvi-tools.

    It is the share of each gene in a cell's counts that the decoder expects,
    times ``library_size``. Shares are over all genes of the model, also where
    a cell was measured for some of them only, so that all cells compare.

    Raises
    ------
    ConfigError
        If the likelihood has no shares of counts.
    SelectionError
        If a gene or a batch is unknown.
    """
    columns = torch.from_numpy(columns_of(model, genes)).to(model.device)
    codes = batch_codes(model, how.transform_batch)
    for number, batch in enumerate(batches(model, data, data.predict_dataloader(), "express")):
        with torch.inference_mode(), drawing(how.seed, number, model.device):
            found = block(batch, decoded(model, batch, columns, codes, how))
        yield found


def decoded(model: Model, batch: dict[str, Any], columns: Tensor, codes: Sequence[int | None], how: Decoding) -> Tensor:
    """Expression of the genes in ``columns``, the mean over draws and over batches; (n, n_columns)."""
    mean, log_var = model.posterior(batch)
    noise = torch.randn((how.n_samples, *mean.shape), device=mean.device)
    total = mean.new_zeros(len(mean), len(columns))
    for code in codes:
        seen = as_if_in(model, batch, code)
        for draw in noise:
            shares = model.log_shares(mean + draw * torch.exp(0.5 * log_var), seen).exp()
            total += shares[:, columns] * library(shares, batch, how)
    return total / (how.n_samples * len(codes))


def library(shares: Tensor, batch: dict[str, Any], how: Decoding) -> Tensor | float:
    """What shares are multiplied by: a number, or for each cell, (n, 1)."""
    if how.library_size != LATENT:
        return float(how.library_size)
    measured = batch["measured"]
    observed: Tensor = batch["x"].sum(dim=1, keepdim=True).clamp(min=1.0)
    return observed if measured is None else observed / (shares * measured).sum(dim=1, keepdim=True)


def as_if_in(model: Model, batch: dict[str, Any], codes: Any) -> dict[str, Any]:
    """A batch whose cells are of another batch category, or each of one of ``codes``; None: of their own."""
    if codes is None:
        return batch
    key = model.hparams["batch_key"]
    own = batch["obs"][key]
    return {**batch, "obs": {**batch["obs"], key: torch.as_tensor(codes, device=own.device).expand_as(own)}}


def genes_of(model: Model) -> GeneList:
    """The genes of a model; ids and symbols are unknown to older checkpoints."""
    assert model.facts is not None
    own = model.facts
    return GeneList.of(own["var_names"], own.get("gene_ids"), own.get("gene_symbols"))


def columns_of(model: Model, genes: Sequence[str] | Sequence[int] | None) -> NDArray[np.int64]:
    """Columns of genes given by name, id, symbol or number; None: all.

    Raises
    ------
    SelectionError
        If one is unknown; it names similar ones.
    """
    lists = genes_of(model)
    given = as_genes(genes)
    return np.arange(lists.n_vars) if given is None else gene_columns(lists, given, "the model")


def batch_codes(model: Model, names: str | Sequence[str] | None, setting: str = "transform_batch") -> list[int | None]:
    """Codes of the batches to decode for, which a setting names; ``[None]``: each cell's own.

    Raises
    ------
    ConfigError
        If the model corrects for no batch.
    SelectionError
        If a batch is unknown, or none that training has seen.
    """
    if names is None:
        return [None]
    assert model.facts is not None
    key, categories = model.hparams["batch_key"], model.facts["categories"]
    if key is None:
        raise ConfigError(f"the model corrects for no batch (batch_key=null); leave {setting} out")
    found: list[int | None] = []
    for name in [names] if isinstance(names, str) else names:
        if name not in categories:
            hint = did_you_mean(similar(name, categories), f"it has {named(categories)}")
            raise SelectionError(f"{setting}={name}: {key} of the model has no such value; {hint}")
        code = categories.index(name)
        if not model.seen_of(key)[code]:
            raise SelectionError(f"{setting}={name}: no cell of it was trained on; choose another {key}")
        found.append(code)
    if not found:
        raise ConfigError(f"{setting}=[] names no batch; give at least one, or leave it out")
    return found
