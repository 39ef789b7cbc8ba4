"""A trained model in, one small folder that stands for it out, and back.

``model.json`` has settings, categories, what the run recorded, and checksums
of the others; ``weights.pt`` tensors; ``gene_list.json`` the genes with ids and
symbols; ``gene_sets.bin``, where cells were measured for different genes, which;
``README.md`` the model card. Nothing in it is run when it is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scvae_data.errors import ConfigError, DamagedFileError
from scvae_data.results.card import card, versions
from scvae_data.results.expression import genes_of
from scvae_data.results.model import Model
from scvae_data.results.weights import read_plain
from scvae_data.store import GENE_LIST_FILE, GeneList, GeneSets, read_json, write_gene_list
from scvae_data.store.files import FileFacts, atomic_file, names_in, sha256_file, write_atomic, write_json
from scvae_data.store.gene_list import read_gene_list, write_gene_sets

__all__ = ["MODEL_FILE", "Saved", "read_model", "write_model"]

FORMAT, FORMAT_VERSION = "scvae-data model", 1
MODEL_FILE, WEIGHTS_FILE, GENE_SETS_FILE, CARD_FILE = "model.json", "weights.pt", "gene_sets.bin", "README.md"
OURS = {MODEL_FILE, WEIGHTS_FILE, GENE_LIST_FILE, GENE_SETS_FILE, CARD_FILE}
GENES = ("var_names", "gene_ids", "gene_symbols")  # facts that gene_list.json has


@dataclass(frozen=True, eq=False)
class Saved:
    """What a folder holds, checked against its checksums, not yet against each other."""

    settings: dict[str, Any]
    """Of the model, with ``facts``."""
    weights: dict[str, Tensor]
    """By the names of its state."""
    n_bytes: int
    """Of the file of weights."""
    gene_sets: Tensor | None
    """Masks of measured genes, packed."""
    record: dict[str, Any]
    """What the run recorded."""


def write_model(
    folder: Path, model: Model, weights: Mapping[str, Tensor], gene_sets: Tensor | None, license: str | None
) -> None:
    """Write the folder, ``model.json`` last.

    Raises
    ------
    ConfigError
        If the model was not built, or the folder holds something else.
    """
    if model.facts is None:
        raise ConfigError("the model was not built yet, so there is nothing to save; train it first")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder for the model")
    there = set(names_in(folder))
    # The gene list is written first: a folder without it is nobody's half-written model.
    if others := there - OURS if there & {MODEL_FILE, GENE_LIST_FILE} else there:
        raise ConfigError(f"{folder} holds {sorted(others)[0]}, which is of no saved model; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name in OURS & set(names_in(folder)):
        (folder / name).unlink()
    genes = genes_of(model)
    files = {GENE_LIST_FILE: write_gene_list(folder, genes)}
    if gene_sets is not None:
        files[GENE_SETS_FILE] = write_gene_sets(folder / GENE_SETS_FILE, GeneSets(gene_sets.numpy(), genes.n_vars))
    with atomic_file(folder / WEIGHTS_FILE) as target:
        torch.save({name: values.cpu() for name, values in weights.items()}, target)
    path = folder / WEIGHTS_FILE
    files[WEIGHTS_FILE] = FileFacts(path.stat().st_size, sha256_file(path))
    write_atomic(folder / CARD_FILE, card(model, license, folder.name).encode())
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "settings": {name: value for name, value in model.hparams.items() if name != "facts"},
        "facts": {name: value for name, value in model.facts.items() if name not in GENES},
        "record": model.record,
        "license": license,
        "versions": versions(),
        "files": {name: {"bytes": facts.bytes, "sha256": facts.sha256} for name, facts in files.items()},
    }
    write_json(folder / MODEL_FILE, _finite(content))


def read_model(folder: Path) -> Saved:
    """Read the folder.

    Raises
    ------
    ConfigError
        If it holds no model, one of a newer version, or files that are not those that were written.
    """
    if not (folder / MODEL_FILE).is_file():
        raise ConfigError(f"{folder} holds no {MODEL_FILE}; give a folder that VAE.save or scvae-data card has written")
    try:
        content = read_json(folder / MODEL_FILE)
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}")
        if content["format_version"] != FORMAT_VERSION:
            raise ConfigError(
                f"{folder} is a model of format {content['format_version']}, this version of scvae-data reads format "
                f"{FORMAT_VERSION}; use the version that wrote it"
            )
        files = {str(name): facts["sha256"] for name, facts in content["files"].items() if name in OURS}
        for name, sha256 in files.items():
            if sha256_file(folder / name) != sha256:
                raise ValueError(f"{name} is not what was written")
        facts, settings = dict(content["facts"]), dict(content["settings"])
        genes = read_gene_list(folder, n_vars=facts["n_vars"], sha256=files[GENE_LIST_FILE])
        if not all(isinstance(name, str) for name in facts["categories"]):
            raise ValueError("its categories are no list of names")
        weights = read_plain(folder / WEIGHTS_FILE, "weights")
        return Saved(
            settings | {"facts": facts | _gene_facts(genes)},
            dict(weights),
            (folder / WEIGHTS_FILE).stat().st_size,
            _gene_sets(folder, genes.n_vars) if GENE_SETS_FILE in files else None,
            dict(content["record"]),
        )
    except (AttributeError, DamagedFileError, KeyError, OSError, TypeError, ValueError) as error:
        text = str(error).partition(";")[0]
        raise ConfigError(f"{folder} is no whole model ({text}); give another folder") from None


def _gene_facts(genes: GeneList) -> dict[str, Any]:
    return dict(zip(GENES, (column.tolist() for column in (genes.names, genes.ids, genes.symbols)), strict=True))


def _gene_sets(folder: Path, n_vars: int) -> Tensor:
    packed = np.fromfile(folder / GENE_SETS_FILE, np.uint8).reshape(-1, (n_vars + 7) // 8)
    return torch.from_numpy(packed)


def _finite(value: Any) -> Any:
    """A value as JSON has it: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(name): _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
