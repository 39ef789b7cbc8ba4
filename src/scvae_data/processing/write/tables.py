"""All that was found and decided in; the tables for people out, and what ``chunk_summary.json`` says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from scvae_data.processing.decide.stage import WritePlan
from scvae_data.processing.engine.task import Task
from scvae_data.processing.evidence.table import EXPERIMENTS_FILE, experiment_tasks, write_experiments
from scvae_data.processing.genes.report import REPORT_FILE, report_task
from scvae_data.processing.run.context import Context
from scvae_data.processing.write.dropped import DROPPED_FILE, dropped_task

__all__ = ["TABLES", "table_tasks", "write_tables"]

TABLES = frozenset({DROPPED_FILE, EXPERIMENTS_FILE, REPORT_FILE})


def table_tasks(context: Context, plan: WritePlan) -> list[Task]:
    """Return the tables of dropped cells and of genes, and what that of experiments asks of each file, as tasks."""
    scans, decided = plan.compared.scans, plan.decided
    names = [decided.genes.names[at] if at >= 0 else None for at in decided.decision.gene_map]
    return [
        dropped_task(context, scans),
        report_task(context.directory, context.work, plan.surveyed.universe, names, scans),
        *experiment_tasks(context.work, plan),
    ]


def write_tables(
    context: Context, plan: WritePlan, results: Iterable[Any], sync: Callable[[Path], None]
) -> dict[str, dict[str, Any]]:
    """Write the table that is left, of experiments; return name, size, checksum and more of all three.

    Parameters
    ----------
    results
        Of `table_tasks`.
    sync
        Makes the file of each survive a power cut.
    """
    dropped, genes, *kept = results
    tables = {"dropped_cells": dropped, "experiments": write_experiments(context, plan, kept), "gene_report": genes}
    for table in tables.values():
        sync(context.directory / table["file"])
    return tables
