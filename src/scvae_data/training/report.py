"""Facts and metrics of a run in, a page in Markdown out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from scvae_data.training.experiment_scores import read_scores, scores_section
from scvae_data.training.scores import SCORES
from scvae_data.wording import counted

__all__ = ["in_words", "next_lines", "report"]

SCORES_EXPLAINED = (
    "Separation of cell types and mixing of batches in the latents: average silhouette widths as scIB scales them, "
    "0 to 1, higher is better.\n"
)
EXPERIMENTS = "experiment scores"
PARTS = {"val": "validation", "test": "test"}


def report(
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    metrics: Mapping[str, Any],
    made: Mapping[str, Path],
    held_out: Sequence[str] = (),
    not_scored: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """A short page: what was trained on what, how well and how fast, which files there are, how to go on.

    ``held_out`` are lines on the cells that were held out; ``not_scored`` says of scores that are not among the
    metrics why.
    """
    title = f"{config['model'].get('likelihood', 'model')}, {facts['n_obs']:,} cells × {facts['n_vars']:,} genes"
    parts = [
        f"# {title}\n",
        *(["Simulated demo data.\n"] if facts.get("simulated") else []),
        _table("dataset", _dataset(facts)),
        _table("result", _result(metrics) | _not_scored(not_scored)),
        *([SCORES_EXPLAINED] if any(name in metrics for name in SCORES) else []),
        *held_out,
        *(scores_section(read_scores(made[EXPERIMENTS])) if EXPERIMENTS in made else []),
        "## Files\n",
        *(f"- {name}: `{path.name}`" for name, path in made.items()),
        "- configuration: `config.yaml`",
        "- checkpoints: `checkpoints/`",
        "- every number: `result.json`, `run.json`, `metrics.csv` (epochs), `steps.csv`",
        "",
    ]
    if "latents" in made:
        parts += ["## Go on in scanpy\n", "```python", *next_lines(made["latents"]), "```", ""]
    pictures = [(name, path) for name, path in made.items() if path.suffix == ".png"]
    parts += [f"![{name}]({path.name})\n" for name, path in pictures]
    return "\n".join(parts)


def in_words(metrics: Mapping[str, Any]) -> dict[str, str]:
    """How fast a run was and what its cache did, as people read it; what was not measured is left out."""
    words: dict[str, str] = {}
    if "cells_per_s" in metrics:
        words["speed"] = f"{metrics['cells_per_s']:,.0f} cells/s, {100 * metrics['wait_share']:.1f} % waiting on data"
    if "hit_rate" in metrics:
        found, predicted = (f"{100 * metrics[name]:.1f} %" for name in ("hit_rate", "predicted_hit_rate"))
        words["cache"] = f"{found} of chunks found in memory (predicted {predicted}), "
        words["cache"] += f"{metrics['bytes_read'] / 1e6:,.1f} MB read"
    if metrics.get("skipped_cells"):
        chunks = counted(metrics["bad_chunks"], "damaged chunk") if "bad_chunks" in metrics else "damaged chunks"
        words["skipped"] = f"{counted(metrics['skipped_cells'], 'cell')} of {chunks}, in all epochs together"
    return words


def next_lines(latents: Path) -> list[str]:
    """Python that continues from the latents."""
    return [
        f'import scanpy as sc; adata = sc.read_h5ad("{latents}")',
        'sc.pp.neighbors(adata, use_rep="X_scvae", transformer="sklearn")',
        'sc.tl.leiden(adata, flavor="igraph", n_iterations=2); sc.tl.umap(adata)',
    ]


def _dataset(facts: Mapping[str, Any]) -> dict[str, str]:
    """What was trained on."""
    parts = {"training": facts["n_train"], **{words: facts[f"n_{part}"] for part, words in PARTS.items()}}
    n_all, paths = facts["n_obs_directory"], facts["data_path"]
    return {
        "directory": ", ".join(f"`{path}`" for path in ([paths] if isinstance(paths, str) else paths)),
        "cells": ", ".join(f"{n_cells:,} {part}" for part, n_cells in parts.items() if n_cells)
        + (f"; {n_all:,} in the directory" if n_all != facts["n_obs"] else ""),
        "genes": f"{facts['n_vars']:,}",
        "chunks": f"{facts['n_chunks']:,} of {facts['chunk_size']:,} cells",
        "epoch": f"{facts['cells_per_epoch']:,} cells in {facts['batches_per_epoch']:,} batches",
        **{name.replace("_", " "): f"`{facts[name][:12]}`" for name in ("content_hash", "gene_list_hash")},
    }


def _result(metrics: Mapping[str, Any]) -> dict[str, str]:
    """How well and how fast: the best checkpoint's terms in nats per cell, then speed, cache and scores."""
    terms = {"elbo": "ELBO", "elbo_unseen": "ELBO, unseen", "recon": "reconstruction", "kl": "KL divergence"}
    found = {
        f"{words} ({part_words})": f"{metrics[f'{part}/{term}']:,.1f} nats per cell"
        for part, part_words in PARTS.items()
        for term, words in terms.items()
        if f"{part}/{term}" in metrics
    }
    if "val/active_units" in metrics:
        found["active latent dimensions"] = f"{metrics['val/active_units']:.0f}"
    scores = {name.replace("_", " "): f"{metrics[name]:.3f}" for name in SCORES if name in metrics}
    return found | in_words(metrics) | scores


def _not_scored(reasons: Mapping[str, str]) -> dict[str, str]:
    """Scores that could not be computed, with the reason."""
    return {name.replace("_", " "): f"not computed: {reason}" for name, reason in reasons.items()}


def _table(title: str, values: Mapping[str, str]) -> str:
    rows = [f"| {name} | {text} |" for name, text in values.items()]
    return "\n".join([f"## {title.capitalize()}\n", "| | |", "|---|---|", *rows, ""])
