"""What is known of a finished run in, one HTML page about it out."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from scvae_data.calling import command, override
from scvae_data.training.leakage import HeldOut
from scvae_data.training.scores import SCORES
from scvae_data.wording import counted

__all__ = [
    "EXPERIMENTS", "REPORT", "SCORED", "TERMS", "Finished", "Labels", "Meaning", "compared", "experiments_table",
    "in_words", "latent_words", "next_lines", "only_a_page", "picture_of", "report", "settings_of", "versions",
]  # fmt: skip

log = logging.getLogger(__name__)

REPORT = "report.html"
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
EXPERIMENTS = "experiment scores"
PARTS = {"val": "validation", "test": "test"}
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
ACTIVE = Meaning("active latent dimensions", "neither", "latent dimensions that vary between cells; few mean collapse")


class Labels(NamedTuple):
    """What cells are called, to show by example how groups of them are compared."""

    column: str
    """An obs column."""
    names: Sequence[str]
    """Its most frequent values, two or fewer."""


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
    from scvae_data.training.experiment_scores import read_scores, scores_told

    scored = read_scores(run.made[EXPERIMENTS]) if EXPERIMENTS in run.made else None
    tables = {} if scored is None else {"experiments": experiments_table(scored.table)}
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
        not_scored={name.replace("_", " ").capitalize(): reason for name, reason in run.not_scored.items()},
        curves=picture_of(run.made, "curves"),
        latents=picture_of(run.made, "latents", latent_words(run.facts["n_obs"], run.config)),
        experiments=picture_of(run.made, "experiments"),
        told="" if scored is None else scores_told(scored),
        held_out=run.held_out,
        data=_data(run.facts) | words,
        next=_next(run, flagged=scored is not None and bool(scored.table["flagged"].any())),
        command=None if run.overrides is None else command("train", *run.overrides),
        versions=versions(),
        files=_files(run),
        config=settings_of(run.config),
    )


@contextmanager
def only_a_page(run_dir: Path) -> Iterator[None]:
    """Make a warning of whatever goes wrong with the page about something that is done."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        told = " ".join(str(error).split()) or type(error).__name__
        log.warning("no %s: %s; all else is in %s", REPORT, told, run_dir)


def versions() -> dict[str, str]:
    """Versions of what made a run."""
    return {name: version(name) for name in VERSIONS}


def settings_of(config: Mapping[str, Any]) -> str:
    """A resolved configuration as YAML."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dict(config)))


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


def compared(model: str, labels: Labels | None) -> dict[str, str]:
    """The command that compares the cells of two labels, under what it is for; nothing where there are none.

    ``model`` is, as the command takes them, the model, and the directory of the cells if it is another.
    """
    if labels is None or len(labels.names) < 2 or not labels.column.isidentifier():
        return {}
    first, second = (shlex.quote(f"{labels.column} == {json.dumps(name, ensure_ascii=False)}") for name in labels.names)
    line = f"scvae-data de {model} --group1 {first} --group2 {second} --out genes.parquet"
    return {"Genes that differ between two groups of cells": line}


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
        (meaning, f" ({words})", f"{metrics[f'{part}/{term}']:,.1f} nats per cell")
        for part, words in PARTS.items()
        for term, meaning in TERMS.items()
        if f"{part}/{term}" in metrics
    ]
    if "val/active_units" in metrics:
        n_latent = run.config["model"].get("n_latent")
        of_all = f" of {n_latent}" if n_latent else ""
        rows.append((ACTIVE, "", f"{metrics['val/active_units']:.0f}{of_all}"))
    rows += [(SCORED[name], "", f"{metrics[name]:.3f}") for name in SCORES if name in metrics]
    return [
        {"title": meaning.title + part, "value": value, "better": meaning.better, "meaning": meaning.text}
        for meaning, part, value in rows
    ]


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


def experiments_table(table: Any) -> Any:
    """The scores of experiments as a table of a page, the worst first."""
    from scvae_data.report.page import Table

    return Table(_columns(table))


def _columns(table: Any) -> list[Any]:
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


def _next(run: Finished, *, flagged: bool) -> dict[str, str]:
    """What people do with a trained model, and the commands for it."""
    run_dir = run.run_dir.absolute()
    named = shlex.quote(str(run_dir))
    best = next((name for name in ("best", "last") if (run_dir / "checkpoints" / f"{name}.ckpt").is_file()), None)
    overrides = [text for text in run.overrides or () if not text.startswith(("hydra.", "resume_from="))]
    found: dict[str, str] = {}
    if "latents" in run.made:
        found["Clusters and UMAP of the latents, in scanpy"] = "\n".join(next_lines(run.made["latents"].absolute()))
    if best:
        ckpt = override("ckpt", run_dir / "checkpoints" / f"{best}.ckpt")
        found["Latents and ELBO of the cells of another directory"] = command(
            "train", "mode=embed", ckpt, "paths.processed_dir=DIR"
        )
        found |= compared(named, run.labels)
        found["Decoded expression"] = f"scvae-data express {named} --out expression.h5ad"
        found["The model in a folder to hand on"] = f"scvae-data card {named} --out FOLDER"
        longer = f"trainer.max_epochs={2 * int(run.config['trainer'].get('max_epochs') or 1)}"
        found["Train on, for longer"] = command("train", override("resume_from", run_dir), longer)
    if n_latent := run.config["model"].get("n_latent"):
        rest = [text for text in overrides if not text.startswith("model.n_latent=")]
        others = f"model.n_latent={n_latent // 2 or 4},{2 * n_latent}"
        found["Other settings side by side"] = command("train", "-m", *rest, others)
    if flagged:
        scores = override("data.exclude_srx_accessions", f"@{run.made[EXPERIMENTS].absolute()}")
        found["Without the experiments that are flagged"] = command("train", *overrides, scores)
    return found


def _files(run: Finished) -> dict[str, str]:
    of_all = {
        "configuration": "config.yaml",
        "checkpoints": "checkpoints/",
        "every number": "result.json, run.json, metrics.csv (epochs), steps.csv",
    }
    return {"directory": str(run.run_dir.absolute())} | {name: path.name for name, path in run.made.items()} | of_all
