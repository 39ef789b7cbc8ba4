"""A model and what its run recorded in, a model card out: a README.md as model hubs show it.

The sections are those of the cards of scvi-hub; the block at the top is the
metadata that Hugging Face reads.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from math import isfinite
from typing import Any

from scvae_data.results.cells import facts_of_model
from scvae_data.results.expression import genes_of
from scvae_data.results.model import Model

__all__ = ["card", "versions"]

PACKAGES = ("scvae-data", "torch", "lightning", "anndata")
NOT_STATED = "not stated"
METRICS = {
    "val/elbo": "ELBO, validation (nats per cell)",
    "val/recon": "reconstruction, validation (nats per cell)",
    "val/kl": "KL divergence, validation (nats per cell)",
    "val/elbo_unseen": "ELBO, validation cells of batches not trained on (nats per cell)",
    "test/elbo": "ELBO, test (nats per cell)",
    "val/active_units": "active latent dimensions",
    "cell_type_separation": "cell type separation (silhouette, 0 to 1)",
    "batch_mixing": "batch mixing (silhouette, 0 to 1)",
}
LOADING = """\
```python
from scvae_data import VAE

model = VAE.load("{folder}")
for rows, latents in model.latents("DIR"):  # a directory that process.py has written, whatever its genes
    ...
```"""


def card(model: Model, license: str | None = None, folder: str = "FOLDER") -> str:
    """Describe a model in Markdown.

    Parameters
    ----------
    model
        Built; what its run recorded is in ``record``.
    license
        Under which it is given away, e.g. ``cc-by-4.0``.
    folder
        Where it is loaded from, for the example.
    """
    settings = {name: value for name, value in model.hparams.items() if name != "facts"}
    recorded = model.record.get("facts") or {}
    title = f"VAE ({settings['likelihood']}) of {genes_of(model).n_vars:,} genes"
    simulated = ["Trained on simulated demo data.\n"] if recorded.get("simulated") else []
    parts = [
        _metadata(license),
        f"# {title}\n",
        f"A variational autoencoder of single-cell expression with {settings['n_latent']} latent dimensions.\n",
        *simulated,
        _table("Data", _data(model, recorded)),
        _table("Metrics", _metrics(model.record.get("metrics") or {})),
        _table("Settings", {name: f"`{value}`" for name, value in settings.items()}),
        "## Loading\n",
        LOADING.format(folder=folder),
        "",
        _table("Versions", versions()),
        f"License: {license or NOT_STATED}\n",
    ]
    return "\n".join(parts)


def versions() -> dict[str, str]:
    """What is installed here of what the model needs."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _metadata(license: str | None) -> str:
    tags = ["biology", "genomics", "single-cell", "model_cls_name:VAE", f"scvae_data_version:{version('scvae-data')}"]
    lines = [f"license: {json.dumps(license or 'unknown')}", "library_name: scvae-data", "tags:"]
    return "\n".join(["---", *lines, *(f"- {json.dumps(tag)}" for tag in [*tags, "modality:rna"]), "---", ""])


def _data(model: Model, recorded: Mapping[str, Any]) -> dict[str, str]:
    assert model.facts is not None
    known, key = facts_of_model(model), model.hparams["batch_key"]
    parts = {"training": "n_train", "validation": "n_val", "test": "n_test"}
    cells = [f"{recorded[name]:,} {words}" for words, name in parts.items() if recorded.get(name)]
    of_key = f"{len(model.facts['categories']):,} of `{key}`" if key is not None else "none"
    hashes = {name.replace("_", " "): f"`{known[name]}`" for name in ("content_hash", "gene_list_hash")}
    normalization = known.get("normalization") or {}
    return {
        "cells": ", ".join(cells) or NOT_STATED,
        "experiments": f"{recorded['n_experiments']:,}" if recorded.get("n_experiments") else NOT_STATED,
        "genes": f"{genes_of(model).n_vars:,}, in `gene_list.json`",
        "batches": of_key,
        "normalization": ", ".join(f"{name}: {value}" for name, value in normalization.items()) or NOT_STATED,
        **hashes,
    }


def _metrics(metrics: Mapping[str, Any]) -> dict[str, str]:
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float) and isfinite(value)}
    found = {words: numbers[name] for name, words in METRICS.items() if name in numbers}
    return {words: f"{value:,.4g}" if abs(value) < 100 else f"{value:,.1f}" for words, value in found.items()}


def _table(title: str, values: Mapping[str, str]) -> str:
    rows = [f"| {name} | {text} |" for name, text in values.items()] or [f"| {NOT_STATED} | |"]
    return "\n".join([f"## {title}\n", "| | |", "|---|---|", *rows, ""])
