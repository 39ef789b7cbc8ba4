"""Batches of one dataset directory in, batches with the genes and the categories of a trained model out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scvae_data.errors import SelectionError
from scvae_data.results.model import Model, categories_of, moments_of
from scvae_data.store.gene_list import GeneList
from scvae_data.store.gene_match import find_names, some
from scvae_data.wording import counted

__all__ = ["AlignedData", "GeneMatch", "match_genes"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class GeneMatch:
    """Where the genes of a model are in a directory."""

    columns: NDArray[np.int64]
    """Column of the directory for each gene of the model, -1 where it has none; (n_vars of the model,)."""
    missing: tuple[str, ...]
    """Genes of the model that the directory lacks, in the model's order."""

    @property
    def missing_share(self) -> float:
        """Share of the model's genes that the directory lacks, 0 to 1."""
        return len(self.missing) / len(self.columns)


def match_genes(wanted: Sequence[str], genes: GeneList) -> GeneMatch:
    """Find each gene of a model in a directory; see :func:`~scvae_data.store.gene_match.find_names`.

    Parameters
    ----------
    wanted
        Names of the model's genes.
    genes
        Of the directory.

    Raises
    ------
    SelectionError
        If no gene is found.
    """
    columns = find_names(wanted, genes)
    missing = tuple(wanted[position] for position in np.flatnonzero(columns < 0).tolist())
    if len(missing) == len(wanted):
        raise SelectionError(
            f"none of the model's {len(wanted):,} genes ({some(wanted)}) is in the dataset ({some(genes.names)}); "
            "process it with the same kind of gene names"
        )
    return GeneMatch(columns, missing)


class AlignedData:
    """A DataModule that serves counts, seen through the eyes of a model that was trained on another directory.

    Genes are put in the model's order; those the directory lacks count as
    zero and as not ``measured``: bool (n, n_vars) in each batch, None where
    every cell has all genes. Categories of the model's ``batch_key`` and covariates keep their
    codes; others are "unknown". Numbers that the directory lacks are missing
    in every cell. Normalised values are computed anew, over the genes and with
    the target of the model's own dataset.

    Parameters
    ----------
    data
        Set up, with ``normalized=False``.
    model
        With ``facts``.
    facts
        Of the dataset the model was trained on, from its checkpoint.
    expectation
        What ELBO the model's training says that a cell has by its depth; None if that is not known.
    """

    def __init__(self, data: Any, model: Model, facts: Mapping[str, Any], expectation: Any = None) -> None:
        assert model.facts is not None
        self.data = data
        self.index = data.index
        self.n_obs: int = data.n_obs
        self.normalized = model.normalized
        self.facts = facts
        self.batch_key: str | None = model.hparams["batch_key"]
        self.genes = match_genes(model.facts["var_names"], data.index.genes)
        self.same_genes = bool(np.array_equal(self.genes.columns, np.arange(data.n_vars)))
        self._columns = torch.from_numpy(self.genes.columns)
        self.expectation = expectation
        known = categories_of(model.facts, self.batch_key)
        self._n_known = {column: len(names) for column, names in known.items()}
        self._numbers = tuple(moments_of(model.facts))
        self.absent = tuple(name for name in (*known, *self._numbers) if name not in data.obs_keys)
        self.unseen: dict[str, list[str]] = {}
        self.n_unknown = data.n_obs if self.batch_key in self.absent else 0
        self._codes: dict[str, Tensor] = {}
        for column in (name for name in known if name not in self.absent):
            codes = {name: code for code, name in enumerate(known[column])}
            theirs, unknown = data.categories[column], len(codes)
            self._codes[column] = torch.tensor([*(codes.get(name, unknown) for name in theirs), unknown])
            # The model knows the names of its whole directory; what it has not been trained on is unknown all the same.
            seen = np.append(model.seen_of(column), False)
            is_unknown = ~seen[self._codes[column].numpy()]
            n_cells = data.group_counts(column, "predict")
            if new := [name for name, odd, n in zip(theirs, is_unknown, n_cells, strict=False) if odd and n]:
                self.unseen[column] = new
            if column == self.batch_key:
                self.n_unknown = int(n_cells[is_unknown].sum())

    def report(self) -> dict[str, Any]:
        """Counts of what the model knows and the directory lacks, and the other way round; said in the log as well."""
        genes, n_wanted = self.genes, len(self.genes.columns)
        if genes.missing:
            log.warning(
                "%s of the model's %s genes (%.1f %%) are not in %s and count as zero: %s",
                f"{len(genes.missing):,}", f"{n_wanted:,}", 100 * genes.missing_share, self.index.where,
                some(genes.missing),
            )  # fmt: skip
        for column, names in self.unseen.items():
            log.info(
                "%s of %s not trained on, embedded as unknown: %s",
                counted(len(names), "category"), column, some(names),
            )  # fmt: skip
        for column in self.absent:
            instead = "with its mean" if column in self._numbers else "as unknown"
            log.warning("%s has no obs column %s: all cells are embedded %s", self.index.where, column, instead)
        return {
            "n_cells": int(self.data.n_obs),
            "n_genes_of_model": n_wanted,
            "n_missing_genes": len(genes.missing),
            "missing_genes_share": genes.missing_share,
            "n_genes_not_used": int(self.index.n_vars) - (n_wanted - len(genes.missing)),
            "n_unseen_categories": sum(map(len, self.unseen.values())),
            "absent_columns": ", ".join(self.absent),
            "n_unknown_cells": self.n_unknown,
        }

    def predict_dataloader(self) -> Any:
        """Every selected cell, in the order of global rows."""
        return self.data.predict_dataloader()

    def sample_dataloader(self, n: int, seed: int) -> Any:
        """At most ``n`` selected cells, chosen by the seed, in the order of global rows."""
        return self.data.sample_dataloader(n, seed)

    def on_before_batch_transfer(self, batch: dict[str, Any], loader: int) -> Any:
        """As the DataModule does it."""
        return self.data.on_before_batch_transfer(batch, loader)

    def transfer_batch_to_device(self, batch: dict[str, Any], device: torch.device, loader: int) -> Any:
        """As the DataModule does it."""
        return self.data.transfer_batch_to_device(batch, device, loader)

    def on_after_batch_transfer(self, batch: dict[str, Any], loader: int) -> dict[str, Any]:
        """Align the batch, on the device."""
        return self.aligned(self.data.on_after_batch_transfer(batch, loader))

    def aligned(self, batch: dict[str, Any]) -> dict[str, Any]:
        """``batch`` as the model expects it."""
        counts: Tensor = batch["x"]
        if not self.same_genes:
            columns = self._columns.to(counts.device)
            counts = counts[:, columns.clamp(min=0)].masked_fill(columns < 0, 0)
        x = torch.log1p(counts / self._size_factor(batch, counts)[:, None]) if self.normalized else counts
        return {**batch, "x": x, "obs": self._obs(batch), "measured": self._measured(batch)}

    def _measured(self, batch: dict[str, Any]) -> Tensor | None:
        """Which of the model's genes each cell was measured for; None where it is all of them."""
        columns = self.genes.columns
        sets, place = np.unique(batch["gene_set"].cpu().numpy(), return_inverse=True)
        masks = self.data.gene_mask(sets)[:, columns.clip(min=0)] & (columns >= 0)
        return None if masks.all() else torch.from_numpy(masks[place]).to(batch["x"].device)

    def _size_factor(self, batch: dict[str, Any], counts: Tensor) -> Tensor:
        """Total of each cell by the target of the model's dataset, (n,); 1 for a cell without counts.

        The total is over what it was over in training: all genes of the
        input or of the directory, or the model's genes if these were all.
        """
        theirs, own = self.facts["normalization"], self.index.normalization
        if self.index.gene_list_hash == self.facts["gene_list_hash"] and theirs == own:
            return cast(Tensor, batch["size_factor"])
        if theirs["size_factor_genes"] == own["size_factor_genes"] == "all":
            total = batch["size_factor"] * own["target_sum"]
        elif self.facts["n_vars"] != len(self.genes.columns):
            total = batch["library_size"]
        else:
            total = counts.sum(dim=1)
        factor = total / theirs["target_sum"]
        return torch.where(factor > 0, factor, torch.ones_like(factor))

    def _obs(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        obs = dict(batch["obs"])
        for column, codes in self._codes.items():
            obs[column] = codes.to(obs[column].device)[obs[column]]
        for column in self.absent:
            filling = float("nan") if column in self._numbers else self._n_known[column]
            obs[column] = torch.full_like(
                batch["index"], filling, dtype=torch.float32 if column in self._numbers else None
            )
        return obs
