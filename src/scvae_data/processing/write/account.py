"""The records of all stages in; what the run did, for people and as ``chunk_summary.json``, out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scvae_data.processing.decide.stage import LATE_RULE, WritePlan
from scvae_data.processing.facts import FileScan
from scvae_data.processing.genes.species import OTHER
from scvae_data.processing.run.context import Context
from scvae_data.processing.run.losses import total_lost, worst_files
from scvae_data.processing.run.rules import unapplied_rules
from scvae_data.processing.run.summary import Summary
from scvae_data.processing.survey.overview import (
    columns_alike,
    named_otherwise,
    sources_of_counts,
    tell_alike,
    tell_missing,
)
from scvae_data.store import ChunkEntry

__all__ = ["size_statistics", "storage_statistics", "summarise", "summed_labels"]


def summarise(
    context: Context, plan: WritePlan, entries: Sequence[ChunkEntry], n_bytes: int, seconds: Mapping[str, float],
    tables: Mapping[str, Mapping[str, Any]], peak_rss: int = 0,
) -> Summary:  # fmt: skip
    """Bring together what every stage found.

    Parameters
    ----------
    n_bytes
        Size of the chunks, obs table and gene list.
    seconds
        Wall time per stage.
    tables
        Of `write_tables`.
    peak_rss
        Peak memory of the largest process, bytes.
    """
    scans, decided = plan.compared.scans, plan.decided
    of_files = {scan.source_file: scan.table for scan in scans}
    written = summed_labels(scan.written_missing for scan in scans)
    alike = columns_alike(plan.surveyed.files, context.settings.input.obs_names, context.settings.input.obs_columns)
    return Summary(
        context.target,
        n_files=plan.surveyed.n_files,
        failed=plan.scanned.failed,
        n_obs_in=sum(scan.n_obs for scan in scans),
        n_obs=sum(entry.n_obs for entry in entries),
        lost=total_lost(scans) | {LATE_RULE: decided.n_late},
        worst=worst_files(scans) if len(scans) > 1 else [],
        n_genes_in=decided.account.n_genes,
        n_vars=decided.genes.n_vars,
        nnz=sum(entry.nnz for entry in entries),
        n_chunks=len(entries),
        chunk_size=context.settings.chunking.chunk_size,
        bytes=n_bytes,
        seconds=dict(seconds),
        peak_rss=peak_rss,
        simulated=context.settings.input.simulated,
        duplicates=plan.compared.account,
        experiments=dict(tables["experiments"]),
        columns_alike=alike,
        written_missing=written,
        unapplied={
            one.rule: one.files for one in unapplied_rules(context.settings.qc, plan.surveyed.universe, of_files)
        },
        genes_lost=decided.account.lost,
        genes_absent=decided.genes.n_vars - int((decided.decision.gene_map >= 0).sum()),
        genes_of_others=max(
            (int((codes == OTHER).sum()) for codes in plan.surveyed.universe.species.values()), default=0
        ),
        genes_apart=decided.genes_apart,
        genes_crossed=decided.genes_crossed,
        overview=[
            *named_otherwise(plan.surveyed.files),
            *sources_of_counts(scan.slot for scan in scans),
            *tell_alike(alike),
            *tell_missing(written, context.settings.input.missing_labels),
        ],
        species=context.settings.genes.species,
        left_out=[file.source_file for file in plan.surveyed.left_out],
    )


def storage_statistics(
    summary: Summary,
    plan: WritePlan,
    entries: Sequence[ChunkEntry],
    tables: Mapping[str, Mapping[str, Any]],
    accessions: Mapping[str, int],
) -> dict[str, Any]:
    """Return the content of ``chunk_summary.json``, in columns: short at 10,000 chunks and 61,000 files.

    Parameters
    ----------
    tables
        Of `write_tables`.
    accessions
        Cells per accession.
    """
    scans, decided = plan.compared.scans, plan.decided
    rules = list(dict.fromkeys(rule for scan in scans for rule in scan.lost))
    return {
        "format": "scvae-data chunk summary",
        "format_version": 1,
        "n_obs": summary.n_obs,
        "n_vars": summary.n_vars,
        "nnz": summary.nnz,
        **size_statistics(entries, summary.bytes),
        "cells_per_accession": dict(accessions),
        "attrition": {
            "source_file": [scan.source_file for scan in scans],
            "slot": [scan.slot for scan in scans],
            "passed_over": [scan.evidence for scan in scans],
            "n_obs_in": [scan.n_obs for scan in scans],
            "n_obs_kept": [scan.n_kept for scan in scans],
            "lost": {rule: [scan.lost.get(rule, 0) for scan in scans] for rule in rules},
            "seconds": [round(scan.seconds, 3) for scan in scans],
        },
        **obs_table_account(scans),
        **{name: dict(table) for name, table in tables.items()},
        "genes_lost": summary.genes_lost,
        **({"genes_apart": summary.genes_apart} if summary.genes_apart else {}),
        **({"genes_crossed": summary.genes_crossed} if summary.genes_crossed else {}),
        **({"species": {"kept": summary.species, "files_left_out": list(summary.left_out)}} if summary.species else {}),
        "duplicates": plan.compared.account,
        **({"columns_alike": list(summary.columns_alike)} if summary.columns_alike else {}),
        **({"written_missing": summary.written_missing} if summary.written_missing else {}),
        "unapplied_rules": summary.unapplied,
        "genes_classed": plan.surveyed.universe.classed,
        "outlier_bounds": outlier_bounds(scans),
        "gene_choice": decided.choice,
        "gene_statistics": decided.statistics,
        "gene_mapping": decided.account.files,
        "gene_synonyms": decided.account.synonyms,
        "dropped_genes": decided.account.dropped,
        "failed_files": [vars(file) for file in summary.failed],
        "seconds": {name: round(seconds, 3) for name, seconds in summary.seconds.items()},
        "peak_rss_bytes": summary.peak_rss,
    }


def size_statistics(entries: Sequence[ChunkEntry], n_bytes: int) -> dict[str, Any]:
    """Return what counts and chunks take, beside what they would take in memory."""
    n_obs, nnz = sum(entry.n_obs for entry in entries), sum(entry.nnz for entry in entries)
    in_memory = 8 * nnz + 8 * (n_obs + len(entries))
    arrays = sorted({name for entry in entries for name in entry.stored_bytes})
    return {
        "bytes": n_bytes,
        "bytes_per_count": n_bytes / max(nnz, 1),
        "compression_ratio": in_memory / max(n_bytes, 1),
        "chunks": {
            "file": [entry.file for entry in entries],
            "n_obs": [entry.n_obs for entry in entries],
            "nnz": [entry.nnz for entry in entries],
            "bytes": [entry.bytes for entry in entries],
            **{f"{name}_bytes": [entry.stored_bytes.get(name, 0) for entry in entries] for name in arrays},
        },
    }


def summed_labels(counts: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """Add up how many cells have which texts: column → text → cells."""
    together: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for of_columns in counts:
        for column, of_texts in of_columns.items():
            together[column].update(of_texts)
    return {column: dict(sorted(of_texts.items())) for column, of_texts in sorted(together.items())}


def obs_table_account(scans: Sequence[FileScan]) -> dict[str, Any]:
    """Return, per file, what did not match between its cells and the table of cells; empty without a table."""
    joined = [scan for scan in scans if scan.unmatched]
    if not joined:
        return {}
    return {
        "obs_table": {
            "source_file": [scan.source_file for scan in joined],
            "cells_without_row": [scan.unmatched["cells"] for scan in joined],
            "rows_without_cell": [scan.unmatched["rows"] for scan in joined],
        }
    }


def outlier_bounds(scans: Sequence[FileScan]) -> dict[str, list[Any]]:
    """Return the outlier bounds of all files in columns; empty without outlier rules."""
    rows = [{"source_file": scan.source_file} | bound for scan in scans for bound in scan.bounds]
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
