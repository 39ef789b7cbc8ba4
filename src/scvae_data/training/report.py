"""What is known of a finished run in, one HTML page about it out."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scvae_data.calling import command, override
from scvae_data.training import pages
from scvae_data.training.leakage import PARTS, HeldOut
from scvae_data.training.pages import Labels, Meaning
from scvae_data.wording import counted

__all__ = ["Finished", "in_words", "report"]

SECTIONS = {
    "result": "Result",
    "curves": "Curves",
    "latents": "Latents",
    "experiments": "Experiments",
    "held-out": "Held out",
    "data": "Data and speed",
    "next": "How to go on",
    "made": "How it was made",
}
ACTIVE = Meaning("active latent dimensions", "neither", "latent dimensions that vary between cells; few mean collapse")


@dataclass(frozen=True)
class Finished:
    """A finished run."""

    run_dir: Path
    config: Mapping[str, Any]
    """Resolved."""
    facts: Mapping[str, Any]
    """Of the dataset."""
    metrics: Mapping[str, Any]
    """Of the best checkpoint, with speed and cache."""
    made: Mapping[str, Path] = field(default_factory=dict)
    """Files by name."""
    held_out: HeldOut = field(default_factory=HeldOut)
    """What the parts that are held out share with training."""
    not_scored: Mapping[str, str] = field(default_factory=dict)
    """Why scores are not among the metrics, by their names."""
    overrides: Sequence[str] | None = None
    """What the command line set; None where there was none."""
    labels: Labels | None = None
    """Of the cells; None where there are none."""


def report(run: Finished) -> str:
    """Tell what was trained on what, how well and how fast, what the numbers mean, and how to go on."""
    from scvae_data.report.page import page

    tables, told, flagged = pages.experiments_told(run.made)
    words = in_words(run.metrics)
    return page(
        "train.html",
        {},
        tables,
        title=f"Training {run.run_dir.name}",
        lead=_lead(run),
        sections=SECTIONS,
        simulated=bool(run.facts.get("simulated")),
        skipped=words.pop("skipped", ""),
        scores=_scores(run),
        curves=pages.picture_of(run.made, "curves"),
        told=told,
        held_out=run.held_out,
        data=_data(run.facts) | words,
        next=_next(run, flagged=flagged),
        files=_files(run),
        **pages.common_facts(run.made, run.config, run.facts["n_obs"], run.not_scored, run.overrides),
    )


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


def _lead(run: Finished) -> str:
    likelihood = run.config["model"].get("likelihood", "model")
    trained = f"{likelihood}, {run.facts['n_obs']:,} cells × {run.facts['n_vars']:,} genes"
    found = [
        f"{words} ELBO {run.metrics[f'{part}/elbo']:,.1f} nats per cell"
        for part, words in PARTS.items()
        if f"{part}/elbo" in run.metrics
    ]
    return "; ".join([trained, *found])


def _scores(run: Finished) -> list[dict[str, str]]:
    """How well: the best checkpoint's terms in nats per cell, then what the latents are worth."""
    metrics = run.metrics
    rows = [
        (meaning._replace(title=f"{meaning.title} ({words})"), f"{metrics[f'{part}/{term}']:,.1f} nats per cell")
        for part, words in PARTS.items()
        for term, meaning in pages.TERMS.items()
        if f"{part}/{term}" in metrics
    ]
    if "val/active_units" in metrics:
        n_latent = run.config["model"].get("n_latent")
        of_all = f" of {n_latent}" if n_latent else ""
        rows.append((ACTIVE, f"{metrics['val/active_units']:.0f}{of_all}"))
    return pages.scored_rows(rows, metrics)


def _data(facts: Mapping[str, Any]) -> dict[str, str]:
    """What was trained on."""
    parts = {"training": facts["n_train"], **{words: facts[f"n_{part}"] for part, words in PARTS.items()}}
    n_all, paths = facts["n_obs_directory"], facts["data_path"]
    return {
        "directory": ", ".join([paths] if isinstance(paths, str) else paths),
        "cells": ", ".join(f"{n_cells:,} {part}" for part, n_cells in parts.items() if n_cells)
        + (f"; {n_all:,} in the directory" if n_all != facts["n_obs"] else ""),
        "genes": f"{facts['n_vars']:,}",
        "chunks": f"{facts['n_chunks']:,} of up to {facts['chunk_size']:,} cells",
        "epoch": f"{facts['cells_per_epoch']:,} cells in {facts['batches_per_epoch']:,} batches",
        **{name.replace("_", " "): facts[name][:12] for name in ("content_hash", "gene_list_hash")},
    }


def _next(run: Finished, *, flagged: bool) -> dict[str, str]:
    """What people do with a trained model, and the commands for it."""
    run_dir = run.run_dir.absolute()
    named = shlex.quote(str(run_dir))
    best = next((name for name in ("best", "last") if (run_dir / "checkpoints" / f"{name}.ckpt").is_file()), None)
    overrides = [text for text in run.overrides or () if not text.startswith(("hydra.", "resume_from="))]
    found = pages.with_latents(run.made)
    if best:
        ckpt = override("ckpt", run_dir / "checkpoints" / f"{best}.ckpt")
        found["Latents and ELBO of the cells of another directory"] = command(
            "train", "mode=embed", ckpt, "paths.processed_dir=DIR"
        )
        found |= pages.compared(named, run.labels)
        found["Decoded expression"] = f"scvae-data express {named} --out expression.h5ad"
        found["The model in a folder to hand on"] = f"scvae-data card {named} --out FOLDER"
        longer = f"trainer.max_epochs={2 * int(run.config['trainer'].get('max_epochs') or 1)}"
        found["Train on, for longer"] = command("train", override("resume_from", run_dir), longer)
    if n_latent := run.config["model"].get("n_latent"):
        rest = [text for text in overrides if not text.startswith("model.n_latent=")]
        others = f"model.n_latent={n_latent // 2 or 4},{2 * n_latent}"
        found["Other settings side by side"] = command("train", "-m", *rest, others)
    return found | (pages.without_flagged(run.made, overrides) if flagged else {})


def _files(run: Finished) -> dict[str, str]:
    of_all = {
        "configuration": "config.yaml",
        "checkpoints": "checkpoints/",
        "every number": "result.json, run.json, metrics.csv (epochs), steps.csv",
    }
    return {"directory": str(run.run_dir.absolute())} | {name: path.name for name, path in run.made.items()} | of_all
