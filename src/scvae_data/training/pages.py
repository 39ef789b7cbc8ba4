"""What pages about runs and about embedded cells have in common: words, pictures, tables, commands."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from scvae_data.calling import command, override
from scvae_data.training.scores import SCORES

__all__ = [
    "EXPERIMENTS", "REPORT", "TERMS", "Labels", "Meaning", "common_facts", "compared", "experiments_told",
    "next_lines", "only_a_page", "picture_of", "scored_rows", "with_latents", "without_flagged",
]  # fmt: skip

log = logging.getLogger(__name__)

REPORT = "report.html"
EXPERIMENTS = "experiment scores"
VERSIONS = ("scvae-data", "torch", "lightning", "numpy")


class Drawn(NamedTuple):
    """A picture that a run may have made: its name among the files, what it shows, and how to read it."""

    key: str
    alt: str
    caption: str


PICTURES = {
    "curves": Drawn(
        "training curves",
        "Curves over epochs: ELBO, KL divergence, active latent dimensions and speed",
        "Over epochs, with steps above. Means over training cells are of the weights half an epoch ago. An ELBO of "
        "validation cells that falls while that of training cells rises means overfitting.",
    ),
    "latents": Drawn(
        "latent picture",
        "Latents in two dimensions, a panel for each obs column that colours the cells",
        "Cell types should be apart, and batches mixed within each of them; an axis along depth means that latents "
        "tell how deeply a cell was sequenced.",
    ),
    "experiments": Drawn(
        "experiments",
        "ELBO of each experiment against counts of its cells, and against what is expected of their depth",
        "A point for each experiment; crosses are flagged.",
    ),
}  # fmt: skip


class Meaning(NamedTuple):
    """How to read a number."""

    title: str
    better: str
    text: str


TERMS = {
    "elbo": Meaning(
        "ELBO", "higher",
        "lower bound of the log-likelihood of a cell's counts; comparable between models of the same genes and cells",
    ),
    "elbo_unseen": Meaning(
        "ELBO, unseen", "higher", "the same, over cells of batches that training has not seen"
    ),
    "recon": Meaning("reconstruction", "higher", "log-likelihood of the counts, as decoded from the latents"),
    "kl": Meaning(
        "KL divergence", "neither",
        "what the latents say of a cell beyond the prior: 0 means nothing; ELBO is reconstruction less this",
    ),
}  # fmt: skip
SCORED = {
    "cell_type_separation": Meaning(
        "cell type separation", "higher",
        "average silhouette width of cell types in the latents, as scIB scales it: 0.5 not apart, 1 far apart",
    ),
    "batch_mixing": Meaning(
        "batch mixing", "higher",
        "one less the silhouette width of batches within each cell type, as scIB has it: 0 apart, 1 mixed",
    ),
}  # fmt: skip


class Labels(NamedTuple):
    """What cells are called, to show by example how groups of them are compared."""

    column: str
    """An obs column."""
    names: Sequence[str]
    """Its most frequent values, two or fewer."""


@contextmanager
def only_a_page(run_dir: Path) -> Iterator[None]:
    """Make a warning of whatever goes wrong with the page about something that is done."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        told = " ".join(str(error).split()) or type(error).__name__
        log.warning("no %s: %s; all else is in %s", REPORT, told, run_dir)


def common_facts(
    made: Mapping[str, Path],
    config: Mapping[str, Any],
    n_cells: int,
    not_scored: Mapping[str, str],
    overrides: Sequence[str] | None,
) -> dict[str, Any]:
    """What both kinds of pages show of files, by name, of a resolved configuration and of what the command line set."""
    from omegaconf import OmegaConf

    return {
        "latents": picture_of(made, "latents", latent_words(n_cells, config)),
        "experiments": picture_of(made, "experiments"),
        "not_scored": {name.replace("_", " ").capitalize(): reason for name, reason in not_scored.items()},
        "command": None if overrides is None else command("train", *overrides),
        "versions": {name: version(name) for name in VERSIONS},
        "config": OmegaConf.to_yaml(OmegaConf.create(dict(config))),
    }


def experiments_told(made: Mapping[str, Path]) -> tuple[dict[str, Any], str, bool]:
    """The table of scored experiments, a sentence on them, and whether any is flagged; nothing where there are none."""
    if EXPERIMENTS not in made:
        return {}, "", False
    from scvae_data.report.page import Table
    from scvae_data.training.experiment_scores import read_scores, scores_told

    scored = read_scores(made[EXPERIMENTS])
    return {"experiments": Table(_columns(scored.table))}, scores_told(scored), bool(scored.table["flagged"].any())


def scored_rows(rows: Iterable[tuple[Meaning, str]], found: Mapping[str, Any]) -> list[dict[str, str]]:
    """Numbers with what they mean, and after them what the latents are worth, as far as that was ``found``."""
    scores = [(SCORED[name], f"{found[name]:.3f}") for name in SCORES if name in found]
    return [
        {"title": meaning.title, "value": value, "better": meaning.better, "meaning": meaning.text}
        for meaning, value in (*rows, *scores)
    ]


def next_lines(latents: Path) -> list[str]:
    """Python that continues from the latents."""
    return [
        f'import scanpy as sc; adata = sc.read_h5ad("{latents}")',
        'sc.pp.neighbors(adata, use_rep="X_scvae", transformer="sklearn")',
        'sc.tl.leiden(adata, flavor="igraph", n_iterations=2); sc.tl.umap(adata)',
    ]


def compared(model: str, labels: Labels | None) -> dict[str, str]:
    """The command that compares the cells of two labels, under what it is for; nothing where there are none.

    ``model`` is, as the command takes them, the model, and the directory of the cells if it is another.
    """
    if labels is None or len(labels.names) < 2 or not labels.column.isidentifier():
        return {}
    first, second = (shlex.quote(f"{labels.column} == {json.dumps(name, ensure_ascii=False)}") for name in labels.names)
    line = f"scvae-data de {model} --group1 {first} --group2 {second} --out genes.parquet"
    return {"Genes that differ between two groups of cells": line}


def with_latents(made: Mapping[str, Path]) -> dict[str, str]:
    """How to go on with latents, under what it is for; nothing where there are none."""
    if "latents" not in made:
        return {}
    return {"Clusters and UMAP of the latents, in scanpy": "\n".join(next_lines(made["latents"].absolute()))}


def without_flagged(made: Mapping[str, Path], overrides: Iterable[str]) -> dict[str, str]:
    """The command that trains without the experiments that are flagged, under what it is for."""
    scores = override("data.exclude_srx_accessions", f"@{made[EXPERIMENTS].absolute()}")
    return {"Without the experiments that are flagged": command("train", *overrides, scores)}


def picture_of(made: Mapping[str, Path], name: str, caption: str = "") -> Any:
    """One of `PICTURES` for a page, with a caption of its own if given; None where it was not made."""
    from scvae_data.report.page import Picture

    key, alt, usual = PICTURES[name]
    return Picture(made[key], alt, caption or usual) if key in made else None


def latent_words(n_cells: int, config: Mapping[str, Any]) -> str:
    """How to read the picture of the latents of so many cells."""
    n_drawn = min(n_cells, int((config.get("outputs") or {}).get("max_picture_cells", n_cells)))
    of_all = f"a random choice of {n_drawn:,} of {n_cells:,}" if n_drawn < n_cells else "all"
    return f"Latent means of {of_all} cells. {PICTURES['latents'].caption}"


def _columns(table: Any) -> list[Any]:
    """The scores of experiments as columns of a table of a page, the worst first."""
    import numpy as np

    from scvae_data.report.page import Column

    def numbers(title: str, name: str, digits: int, about: str) -> Column:
        values = table[name].to_numpy(np.float64)
        return Column(title, [round(v, digits) if np.isfinite(v) else None for v in values.tolist()], digits, about)

    odd = [
        list(dict.fromkeys([*reasons, *(() if flags is None else flags)]))
        for reasons, flags in zip(table["reasons"], table["qc_flags"], strict=True)
    ]
    counts = table.assign(counts=10 ** table["mean_log10_counts"])["counts"]
    return [
        Column("experiment", table["srx_accession"].tolist()),
        Column("cells", table["n_cells"].tolist(), 0, "cells that were scored"),
        numbers("ELBO", "elbo", 1, "mean over them, in nats per cell; higher is better"),
        numbers("expected", "expected", 1, "of cells of their depth"),
        numbers("z", "z", 1, "difference to what is expected, in spreads of experiments"),
        Column("counts", [round(value) for value in counts.tolist()], 0, "geometric mean of the counts of a cell"),
        numbers("genes", "mean_genes", 0, "mean genes with a count of a cell"),
        numbers("% mt", "pct_counts_mt", 1, "mean mitochondrial share of a cell, per cent"),
        Column("what is odd", odd, about="compared with the other experiments, and flags of processing"),
    ]
