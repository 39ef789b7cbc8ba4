"""All that was found and decided in; the tables for people out, and what ``chunk_summary.json`` says of them."""

from __future__ import annotations

from typing import Any

from scvae_data.processing.decide.stage import WritePlan
from scvae_data.processing.evidence.table import EXPERIMENTS_FILE, write_experiments
from scvae_data.processing.genes.report import REPORT_FILE, count_tables, write_report
from scvae_data.processing.run.context import Context
from scvae_data.processing.write.dropped import DROPPED_FILE, write_dropped

__all__ = ["TABLES", "write_tables"]

TABLES = frozenset({DROPPED_FILE, EXPERIMENTS_FILE, REPORT_FILE})


def write_tables(context: Context, plan: WritePlan) -> dict[str, dict[str, Any]]:
    """Write the tables of dropped cells, experiments and genes; return name, size, checksum and more of each."""
    scans, decided = plan.compared.scans, plan.decided
    names = [decided.genes.names[at] if at >= 0 else None for at in decided.decision.gene_map]
    counted = count_tables(context.work, scans)
    return {
        "dropped_cells": write_dropped(context, scans),
        "experiments": write_experiments(context, plan),
        "gene_report": write_report(context.directory, context.work, plan.surveyed.universe, names, counted),
    }
