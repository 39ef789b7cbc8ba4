"""What a run did: a summary for people, and the two JSON accounts of a directory."""

from __future__ import annotations

import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scvae_data.processing.scan_result import ScanResult
from scvae_data.processing.survey import FileFacts
from scvae_data.processing.task import Failure
from scvae_data.store import ChunkEntry
from scvae_data.wording import counted

__all__ = ["MAY_FAIL", "FailedFile", "Summary", "failure_table", "provenance", "storage_statistics"]

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


@dataclass(frozen=True)
class FailedFile:
    """An input that is not in the directory, and why."""

    source_file: str
    stage: str
    reason: str
    message: str
    details: str = ""
    path: str = ""

    @classmethod
    def of(cls, source_file: str, stage: str, failure: Failure, path: str = "") -> FailedFile:
        """Describe the failure of a file."""
        return cls(source_file, stage, failure.reason, failure.message, failure.details, path)


@dataclass
class Summary:
    """What a run did.

    Parameters
    ----------
    lost
        Cells not kept, per rule.
    seconds
        Wall time per stage.
    duplicates
        Cells that equal another one, see `report_copies`.
    dropped_cells
        Name, size and checksum of the table of cells that are not kept.
    dropped_genes
        Genes that are not in the directory, with their cells and counts, in columns.
    gene_choice
        How the genes were chosen, where not by the base rules alone.
    gene_mapping
        How each file's genes were matched, in columns.
    gene_synonyms
        Symbols that stand for an id although its gene has another symbol here, or that genes.mapping decided on.
    gene_statistics
        Name, size and checksum of the table that genes were ranked by, if there is one.
    left_alone
        The directory was finished before, and nothing was done but what ``rebuilt`` says.
    rebuilt
        Damaged files of a finished directory that were built again.
    peak_rss
        Peak memory of the largest process, bytes.
    """

    processed_dir: Path
    n_files: int = 0
    failed: list[FailedFile] = field(default_factory=list)
    n_obs_in: int = 0
    n_obs: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    n_genes_in: int = 0
    n_vars: int = 0
    nnz: int = 0
    n_chunks: int = 0
    chunk_size: int = 0
    bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    peak_rss: int = 0
    simulated: bool = False
    left_alone: bool = False
    rebuilt: Sequence[str] = ()
    duplicates: dict[str, Any] = field(default_factory=dict)
    dropped_cells: dict[str, Any] = field(default_factory=dict)
    dropped_genes: dict[str, list[Any]] = field(default_factory=dict)
    gene_choice: dict[str, Any] = field(default_factory=dict)
    gene_mapping: dict[str, list[Any]] = field(default_factory=dict)
    gene_synonyms: dict[str, str] = field(default_factory=dict)
    gene_statistics: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Lay the summary out as aligned lines."""
        if self.left_alone:
            done = f"{', '.join(self.rebuilt)} built again" if self.rebuilt else "nothing to do"
            facts = ((self.n_obs, "cell"), (self.n_vars, "gene"), (self.n_chunks, "chunk"))
            sizes = ", ".join(counted(*fact) for fact in facts)
            return f"{shown(self.processed_dir)} is finished, with these settings and inputs: {sizes}; {done}"
        total = sum(self.seconds.values())
        stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        lost = ", ".join(f"{count:,} {rule}" for rule, count in self.lost.items() if count) or "none"
        share = 100 * self.n_obs / max(self.n_obs_in, 1)
        rows = [
            ("files", f"{self.n_files:,}" + (f", {len(self.failed):,} failed" if self.failed else "")
             + (" (simulated demo)" if self.simulated else "")),
            ("cells", f"{self.n_obs_in:,} in, {self.n_obs:,} kept ({share:.1f} %)"),
            ("not kept", lost),
            *self._copies(),
            ("genes", f"{self.n_genes_in:,} in, {self.n_vars:,} kept"),
            ("chunks", f"{self.n_chunks:,} of {counted(self.chunk_size, 'cell')}"),
            ("size", f"{human_bytes(self.bytes)}, {self.bytes / max(self.nnz, 1):.2f} bytes per stored count"),
            ("time", f"processing took {total:.1f} s, {self.n_obs_in / max(total, 1e-9):,.0f} cells/s ({stages})"),
            ("memory", f"{human_bytes(self.peak_rss)} at most in one process"),
            ("index", str(self.processed_dir / "chunk_index.json")),
            ("next", f"python train.py data=chunked paths.processed_dir={shown(self.processed_dir)}"),
        ]  # fmt: skip
        return "\n".join(f"{name:<9} {text}" for name, text in rows)

    def _copies(self) -> list[tuple[str, str]]:
        """Say in one row how many cells equal another one; none, no row."""
        if not (n_copies := self.duplicates.get("n_copies")):
            return []
        keep = self.duplicates["keep"]
        done = {"all": "all are kept", "first": "the first of each is kept", "none": "none of them is kept"}[keep]
        return [("copies", f"{n_copies:,} cells have the counts of another cell; {done} (keep_duplicates={keep})")]


def shown(path: Path) -> str:
    """Return a path relative to the current directory where it lies below, quoted where a shell needs it."""
    text = str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    return f"'\"{text}\"'" if any(character in text for character in " ,=[]{}()") else text


def human_bytes(n_bytes: float) -> str:
    """Return a size with its unit, e.g. ``"12.3 MB"``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


MAY_FAIL = "leave them out or raise max_failed_fraction, then resume=true"
"""What to do where too many files failed."""


def failure_table(failed: Sequence[FailedFile], most: int = 20, indent: int = 2) -> str:
    """Lay failed files out as lines: file, reason, message."""
    lines = [f"{'':{indent}}{file.source_file}: {file.reason}: {file.message}" for file in failed[:most]]
    if len(failed) > most:
        lines.append(f"{'':{indent}}… and {len(failed) - most:,} more")
    return "\n".join(lines)


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
