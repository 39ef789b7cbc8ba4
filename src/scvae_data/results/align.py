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
from scvae_data.results.model import Model

__all__ = ["AlignedData", "GeneMatch", "match_genes"]

SHOWN = 5  # names listed in a message

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


def match_genes(wanted: Sequence[str], names: Sequence[Any], ids: Sequence[Any], symbols: Sequence[Any]) -> GeneMatch:
    """Find each gene of a model among a directory's names, else its ids, else its symbols.

    An id or a symbol that several columns have finds none of them: which one
    the model means is not known.

    Parameters
    ----------
    wanted
        Names of the model's genes.
    names, ids, symbols
        Of the directory's columns; None where unknown.

    Raises
    ------
    SelectionError
        If no gene is found.
    """
    columns = np.full(len(wanted), -1, dtype=np.int64)
    taken: set[int] = set()
    for labels in (names, ids, symbols):
        found = _unique_positions(labels)
        for position in np.flatnonzero(columns < 0).tolist():
            column = found.get(wanted[position], -1)
            if column >= 0 and column not in taken:
                columns[position] = column
                taken.add(column)
    missing = tuple(wanted[position] for position in np.flatnonzero(columns < 0).tolist())
    if len(missing) == len(wanted):
        raise SelectionError(
            f"none of the model's {len(wanted):,} genes ({_some(wanted)}) is in the dataset ({_some(names)}); "
            "process it with the same kind of gene names"
        )
    return GeneMatch(columns, missing)


class AlignedData:
    """A DataModule that serves counts, seen through the eyes of a model that was trained on another directory.

    Genes are put in the model's order; those the directory lacks count as
    zero and as not ``measured``: bool (n, n_vars) in each batch, None where
    every cell has all genes. Categories of the model's ``batch_key`` keep their codes; others are
    "unknown". Normalised values are computed anew, over the genes and with
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
        genes = data.index.genes
        self.genes = match_genes(model.facts["var_names"], genes.names, genes.ids, genes.symbols)
        self.same_genes = bool(np.array_equal(self.genes.columns, np.arange(data.n_vars)))
        self._columns = torch.from_numpy(self.genes.columns)
        self.expectation = expectation
        self._known = {name: code for code, name in enumerate(model.facts["categories"])}
        theirs = data.categories.get(self.batch_key, []) if self.batch_key is not None else []
        unknown = len(self._known)
        self._codes = torch.tensor([*(self._known.get(name, unknown) for name in theirs), unknown])
        # The model knows the names of its whole directory; what it has not been trained on is unknown all the same.
        seen = np.array([*(model.is_seen(code) for code in range(unknown)), False])
        is_unknown = ~seen[self._codes.numpy()]
        n_cells = self._cells_of_categories(len(theirs))
        self.unseen = tuple(name for name, odd, n in zip(theirs, is_unknown, n_cells, strict=False) if odd and n)
        self.n_unknown = int(n_cells[is_unknown].sum())

    def report(self) -> dict[str, Any]:
        """Counts of what the model knows and the directory lacks, and the other way round; said in the log as well."""
        genes, n_wanted = self.genes, len(self.genes.columns)
        if genes.missing:
            log.warning(
                "%s of the model's %s genes (%.1f %%) are not in %s and count as zero: %s",
                f"{len(genes.missing):,}", f"{n_wanted:,}", 100 * genes.missing_share, self.index.path,
                _some(genes.missing),
            )  # fmt: skip
        if self.unseen:
            log.info(
                "%d categories of %s were not trained on and are embedded as unknown: %s",
                len(self.unseen), self.batch_key, _some(self.unseen),
            )  # fmt: skip
        return {
            "n_cells": int(self.data.n_obs),
            "n_genes_of_model": n_wanted,
            "n_missing_genes": len(genes.missing),
            "missing_genes_share": genes.missing_share,
            "n_genes_not_used": int(self.index.n_vars) - (n_wanted - len(genes.missing)),
            "n_unseen_categories": len(self.unseen),
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

    def _cells_of_categories(self, n_categories: int) -> NDArray[np.int64]:
        """Selected cells of each of the directory's categories, and last of those without one, (n_categories + 1,)."""
        if self.batch_key is None:
            return np.zeros(1, np.int64)
        if n_categories == 0:
            return np.array([self.n_obs])
        counts: NDArray[np.int64] = self.data.group_counts(self.batch_key, "predict")
        return counts

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
        if self.batch_key is None:
            return dict(batch["obs"])
        if self.batch_key not in batch["obs"]:  # the directory has no such column
            return {**batch["obs"], self.batch_key: torch.full_like(batch["index"], len(self._known))}
        codes = batch["obs"][self.batch_key]
        return {**batch["obs"], self.batch_key: self._codes.to(codes.device)[codes]}


def _unique_positions(labels: Sequence[Any]) -> dict[str, int]:
    """Position of each label that occurs once."""
    positions: dict[str, int] = {}
    for position, label in enumerate(labels):
        if label is not None:
            positions[str(label)] = -1 if str(label) in positions else position
    return positions


def _some(names: Sequence[Any]) -> str:
    return ", ".join(map(str, names[:SHOWN])) + (", …" if len(names) > SHOWN else "")
