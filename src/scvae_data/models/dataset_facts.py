"""What a model learns from the DataModule it is trained on, and how it complains about it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from scvae_data.errors import ConfigError

__all__ = [
    "category_names", "datamodule_of", "facts_of", "gene_masks", "not_finite",
    "packed_masks", "same_genes", "unpacked_masks",
]  # fmt: skip

Facts = dict[str, Any]

log = logging.getLogger(__name__)

SHOWN = 10  # rows or names listed in a message


def not_finite(model: LightningModule, batch: dict[str, Any], per_cell: Tensor, step: int) -> str:
    """One line that leads to the cells behind a loss of ``step`` that is not a number."""
    bad = (~torch.isfinite(per_cell)).nonzero().flatten().cpu()
    rows = batch["index"].cpu()[bad].tolist()
    names = category_names(datamodule_of(model), "SRX_accession", batch, bad)
    shown = ", ".join(map(str, rows[:SHOWN])) + (", …" if len(rows) > SHOWN else "")
    return (
        f"the loss is not finite at step {step}: {len(rows)} of {len(per_cell)} cells, "
        f"global rows {shown} of {', '.join(names) or 'unknown experiments'}; lower model.lr "
        f"(now {model.hparams['lr']}) or look at these cells"
    )


def datamodule_of(model: LightningModule) -> Any:
    """The DataModule of the trainer that runs ``model``."""
    data = getattr(model.trainer, "datamodule", None)
    if data is None:
        raise ConfigError("a VAE learns its sizes from a DataModule; call trainer.fit(model, datamodule=…)")
    return data


def facts_of(
    data: Any, batch_key: str | None, categorical: Sequence[str] = (), continuous: Sequence[str] = ()
) -> Facts:
    """What a checkpoint must know of the dataset, as plain types; tells of cells that a covariate is unknown of."""
    if batch_key is not None and batch_key not in data.categories:
        raise ConfigError(
            f"batch_key={batch_key} is not among the columns served ({', '.join(data.categories) or 'none'}); "
            f"add it to data.label_keys or set data.batch_key={batch_key}"
        )
    names = [str(name) for name in data.var_names]
    genes = data.index.genes
    place = {str(name): column for column, name in enumerate(genes.names)}
    columns = [place[name] for name in names]
    return {
        "n_vars": int(data.n_vars),
        "var_names": names,
        "gene_ids": [genes.ids[column] for column in columns],
        "gene_symbols": [genes.symbols[column] for column in columns],
        "categories": [str(name) for name in data.categories[batch_key]] if batch_key is not None else [],
        "covariates": _covariates(data, categorical, continuous),
        "gene_list_hash": str(data.index.gene_list_hash),
        "content_hash": str(data.index.content_hash),
        "n_vars_directory": int(data.index.n_vars),
        "normalization": dict(data.index.normalization),
    }


def _covariates(data: Any, categorical: Sequence[str], continuous: Sequence[str]) -> Facts:
    """What a checkpoint must know of covariates, by their kind and name."""
    kinds = {"categorical": (categorical, "unknown"), "continuous": (continuous, "the mean")}
    for kind, (wanted, _) in kinds.items():
        setting = f"{kind}_covariates"
        if absent := [name for name in wanted if name not in getattr(data, setting, ())]:
            raise ConfigError(f"{setting}: {', '.join(absent)} of the model is not served; add it to data.{setting}")
    if not categorical and not continuous:
        return {kind: {} for kind in kinds}
    served = data.covariate_facts()
    found = {kind: {name: served[kind][name] for name in wanted} for kind, (wanted, _) in kinds.items()}
    for kind, (_, instead) in kinds.items():
        for name, known in found[kind].items():
            if known["n_missing"]:
                log.warning("%s training cells have no %s: they get %s", f"{known['n_missing']:,}", name, instead)
    return found


def same_genes(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether two sets of facts are about the same genes in the same order, chosen from the same gene list."""
    return all(ours.get(key) == theirs.get(key) for key in ("gene_list_hash", "var_names"))


def gene_masks(model: LightningModule) -> Tensor | None:
    """Which genes each gene set measures, (n_sets, n_vars) bool; None if all do or there is no dataset at hand."""
    data = getattr(model._trainer, "datamodule", None)
    if data is None:
        return None
    masks = np.asarray(data.gene_mask(np.arange(len(data.index.gene_sets))), dtype=bool)
    return None if masks.all() else torch.from_numpy(masks)


def packed_masks(masks: Tensor | None) -> Tensor | None:
    """Masks of genes (n_sets, n_vars) as they are saved: a bit each, uint8 (n_sets, (n_vars + 7) // 8)."""
    return None if masks is None else torch.from_numpy(np.packbits(masks.cpu().numpy(), axis=1, bitorder="little"))


def unpacked_masks(packed: Tensor | None, n_vars: int) -> Tensor | None:
    """The inverse of :func:`packed_masks`.

    Raises
    ------
    ValueError
        If ``packed`` is none of ``n_vars`` genes.
    """
    if packed is None:
        return None
    if packed.dtype != torch.uint8 or packed.dim() != 2 or packed.shape[1] != (n_vars + 7) // 8:
        raise ValueError(f"its gene sets are no masks of {n_vars} genes")
    return torch.from_numpy(np.unpackbits(packed.cpu().numpy(), axis=1, count=n_vars, bitorder="little").astype(bool))


def category_names(data: Any, column: str, batch: dict[str, Any], rows: Tensor) -> list[str]:
    """Distinct categories of ``column`` among ``rows`` of ``batch``, at most ``SHOWN``."""
    if column not in batch["obs"]:
        return []
    categories = data.categories[column]
    codes = sorted(set(batch["obs"][column].cpu()[rows].tolist()))
    return [str(categories[code]) for code in codes if code < len(categories)][:SHOWN]
