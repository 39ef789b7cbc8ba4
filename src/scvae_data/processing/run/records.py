"""TODO scvae_data.processing.run.records."""

from __future__ import annotations

import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scvae_data.processing.facts import FileFacts, ScanResult
from scvae_data.processing.run.summary import Summary
from scvae_data.store import ChunkEntry

__all__ = ["provenance", "storage_statistics", "total_lost"]

PACKAGES = (
    "scvae-data",
    "anndata",
    "h5py",
    "hdf5plugin",
    "deflate",
    "numba",
    "numcodecs",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
)


def provenance(
    config: Mapping[str, Any],
    files: Sequence[FileFacts],
    gene_list_hash: str,
    processing_id: str,
    overrides: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return the content of ``processing_config.json``: enough to repeat the run."""
    return {
        "format": "scvae-data processing config",
        "format_version": 1,
        "processing_id": processing_id,
        "config": dict(config),
        "command": None if overrides is None else {"overrides": list(overrides), "directory": str(Path.cwd())},
        "gene_list_hash": gene_list_hash,
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "git": git_revision(),
        "inputs": {
            "path": [file.path for file in files],
            "source_file": [file.source_file for file in files],
            "format": [file.format for file in files],
            "n_obs": [file.n_obs for file in files],
            "bytes": [file.bytes for file in files],
            "sampled_sha256": [file.fingerprint for file in files],
            "sha256": [file.sha256 for file in files],
        },
    }


def git_revision() -> str | None:
    """Return the commit this code is checked out at, or None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"],  # noqa: S607
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def storage_statistics(
    summary: Summary, entries: Sequence[ChunkEntry], results: Sequence[ScanResult], accessions: Mapping[str, int]
) -> dict[str, Any]:
    """Return the content of ``chunk_summary.json``, in columns: short at 10,000 chunks and 61,000 files."""
    arrays = sorted({name for entry in entries for name in entry.stored_bytes})
    in_memory = 8 * summary.nnz + 8 * (summary.n_obs + summary.n_chunks)
    rules = list(dict.fromkeys(rule for result in results for rule in result.lost))
    return {
        "format": "scvae-data chunk summary",
        "format_version": 1,
        "n_obs": summary.n_obs,
        "n_vars": summary.n_vars,
        "nnz": summary.nnz,
        "bytes": summary.bytes,
        "bytes_per_count": summary.bytes / max(summary.nnz, 1),
        "compression_ratio": in_memory / max(summary.bytes, 1),
        "chunks": {
            "file": [entry.file for entry in entries],
            "n_obs": [entry.n_obs for entry in entries],
            "nnz": [entry.nnz for entry in entries],
            "bytes": [entry.bytes for entry in entries],
            **{f"{name}_bytes": [entry.stored_bytes.get(name, 0) for entry in entries] for name in arrays},
        },
        "cells_per_accession": dict(accessions),
        "attrition": {
            "source_file": [result.source_file for result in results],
            "slot": [result.slot for result in results],
            "passed_over": [result.evidence for result in results],
            "n_obs_in": [result.n_obs for result in results],
            "n_obs_kept": [result.n_kept for result in results],
            "lost": {rule: [result.lost.get(rule, 0) for result in results] for rule in rules},
            "seconds": [round(result.seconds, 3) for result in results],
        },
        "dropped_cells": summary.dropped_cells,
        "duplicates": summary.duplicates,
        "outlier_bounds": outlier_bounds(results),
        "gene_choice": summary.gene_choice,
        "gene_statistics": summary.gene_statistics,
        "gene_mapping": summary.gene_mapping,
        "gene_synonyms": summary.gene_synonyms,
        "dropped_genes": summary.dropped_genes,
        "failed_files": [vars(file) for file in summary.failed],
        "seconds": {name: round(seconds, 3) for name, seconds in summary.seconds.items()},
        "peak_rss_bytes": summary.peak_rss,
    }


def outlier_bounds(results: Sequence[ScanResult]) -> dict[str, list[Any]]:
    """Return the outlier bounds of all files in columns; empty without outlier rules."""
    rows = [{"source_file": result.source_file} | bound for result in results for bound in result.bounds]
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def total_lost(results: Sequence[ScanResult]) -> dict[str, int]:
    """Return the cells lost per rule over all files."""
    lost: Counter[str] = Counter()
    for result in results:
        lost.update(result.lost)
    return dict(lost)
