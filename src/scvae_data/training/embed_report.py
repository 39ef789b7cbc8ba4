"""What is known of cells that a trained model was shown in, one HTML page about them out."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scvae_data.calling import command, override
from scvae_data.store import CellIndex
from scvae_data.training import pages
from scvae_data.training.pages import Labels, Meaning
from scvae_data.wording import counted, named

__all__ = ["Embedded", "embed_report"]

SECTIONS = {
    "result": "Result",
    "known": "What the model knows of them",
    "latents": "Latents",
    "experiments": "Experiments",
    "next": "How to go on",
    "made": "How it was made",
}
ELBO = {
    "elbo": pages.TERMS["elbo"]._replace(title="ELBO of these cells"),
    "elbo_of_unseen": pages.TERMS["elbo_unseen"]._replace(
        title="ELBO of new experiments", text="the same, over cells of experiments that training has not seen"
    ),
    "elbo_expected": Meaning(
        "ELBO expected", "", "of cells of their depth, by the cells that the model's own run was scored on"
    ),
    "elbo_of_training": Meaning("ELBO in training", "", "of the cells that the model's own run was scored on"),
}
"""How well the model explains the cells, and what to compare that with."""


@dataclass(frozen=True)
class Embedded:
    """Cells that were embedded."""

    run_dir: Path
    """Where the files are."""
    config: Mapping[str, Any]
    """Resolved."""
    ckpt: Path
    """The checkpoint."""
    hparams: Mapping[str, Any]
    """Settings of its model."""
    trained_on: Mapping[str, Any]
    """Facts of the dataset that it was trained on."""
    index: CellIndex
    """Of the cells."""
    found: Mapping[str, Any]
    """What is in ``embed.json``."""
    made: Mapping[str, Path] = field(default_factory=dict)
    """Files by name."""
    overrides: Sequence[str] | None = None
    """What the command line set; None where there was none."""
    labels: Labels | None = None
    """Of the cells; None where there are none."""


def embed_report(run: Embedded) -> str:
    """Tell which cells were embedded by which model, what it does not know of them, and how well it explains them."""
    from scvae_data.report.page import page

    found = run.found
    tables, told, flagged = pages.experiments_told(run.made)
    elbo = f"; ELBO {found['elbo']:,.1f} nats per cell" if "elbo" in found else ""
    return page(
        "embed.html",
        {},
        tables,
        title=f"Embedding {run.run_dir.name}",
        lead=f"{counted(found['n_cells'], 'cell')} by the model of {run.ckpt}{elbo}",
        sections=SECTIONS,
        simulated=bool(run.index.simulated),
        scores=pages.scored_rows(
            [(meaning, f"{found[name]:,.1f} nats per cell") for name, meaning in ELBO.items() if name in found], found
        ),
        known=_known(found),
        is_strange=bool(found["n_missing_genes"] or found["absent_columns"]),
        is_new=bool(found["n_unknown_cells"]),
        told=told,
        next=_next(run, flagged=flagged),
        used=_used(run),
        files={name: path.name for name, path in run.made.items()} | {"every number": "embed.json"},
        **pages.common_facts(run.made, run.config, found["n_cells"], found["not_scored"], run.overrides),
    )


def _known(found: Mapping[str, Any]) -> dict[str, str]:
    """How far genes and categories of the cells are those of the model."""
    n_genes, missing = found["n_genes_of_model"], found["missing_genes"]
    words = {"genes of the model": f"{n_genes - len(missing):,} of {n_genes:,} are there"}
    if missing:
        words["missing genes"] = f"{100 * found['missing_genes_share']:.1f} %, which count as zero: {named(missing)}"
    if found["n_genes_not_used"]:
        words["other genes"] = f"{found['n_genes_not_used']:,}, which the model does not see"
    words["unknown cells"] = (
        f"{found['n_unknown_cells']:,} of {found['n_cells']:,}, of batches that it was not trained on"
        if found["n_unknown_cells"]
        else "none: it was trained on the batches of all"
    )
    for column, names in found["unseen_categories"].items():
        words[f"not trained on: {column}"] = named(names)
    if found["absent_columns"]:
        words["absent columns"] = f"{found['absent_columns']}, unknown in all cells"
    return words


def _used(run: Embedded) -> dict[str, str]:
    """Model and cells."""
    facts, hparams = run.trained_on, run.hparams
    where = [str(path) for path in run.index.paths]
    return {
        "checkpoint": str(run.ckpt),
        "model": f"{hparams['likelihood']}, {counted(hparams['n_latent'], 'latent dimension')}, "
        f"batches by {hparams['batch_key'] or 'nothing'}",
        "trained on": f"{facts['n_train']:,} cells × {run.found['n_genes_of_model']:,} genes of {facts['data_path']}",
        "cells": f"{run.found['n_cells']:,} of {run.index.n_obs:,} in {', '.join(where)}",
        "content hash": str(run.index.content_hash)[:12],
    }


def _next(run: Embedded, *, flagged: bool) -> dict[str, str]:
    """What people do with cells that are embedded, and the commands for it."""
    model, data = shlex.quote(str(run.ckpt)), " ".join(shlex.quote(str(path)) for path in run.index.paths)
    found = pages.with_latents(run.made)
    found |= pages.compared(f"{model} --data {data}", run.labels)
    found["Decoded expression"] = f"scvae-data express {model} --data {data} --out expression.h5ad"
    both = [run.trained_on["data_path"], *map(str, run.index.paths)]
    if isinstance(both[0], str) and len(set(both)) > 1:
        found["A new model, of these cells and those of training"] = command(
            "train", override("paths.processed_dir", both)
        )
    return found | (pages.without_flagged(run.made, run.overrides or ()) if flagged else {})
