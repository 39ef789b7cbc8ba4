"""The rules for genes and the sums of all files in, the columns of the directory out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from scvae_data.errors import ConfigError
from scvae_data.processing.genes.columns import Columns
from scvae_data.processing.genes.hvg.rank import Scaling, rank_genes
from scvae_data.processing.genes.sums import GeneSums, select_genes
from scvae_data.processing.genes.universe import Universe
from scvae_data.processing.genes.wanted import WantedGenes
from scvae_data.processing.settings.genes import GeneRules, HvgRules
from scvae_data.processing.settings.normalization import Normalization
from scvae_data.processing.sort.totals import SpooledRows, median_total
from scvae_data.store import SRX_COLUMN
from scvae_data.store.files import write_atomic
from scvae_data.wording import counted

__all__ = ["STATISTICS_FILE", "Choice", "choose_genes", "list_choice", "write_statistics"]

log = logging.getLogger(__name__)

STATISTICS_FILE = "gene_statistics.parquet"


@dataclass(frozen=True)
class Choice:
    """The columns of a directory, and how they came about.

    Parameters
    ----------
    account
        For the summary, plain values.
    statistics
        What genes were ranked by, a row per ranked gene; None where none were.
    """

    columns: Columns
    account: dict[str, Any] = field(default_factory=dict)
    statistics: pd.DataFrame | None = None


def list_choice(columns: Columns, wanted: WantedGenes) -> Choice:
    """Return the listed genes, and say which of them no file has."""
    missing = columns.missing.tolist()
    if missing:
        log.warning(
            "%s of the %s genes of %s are in no file; their columns hold zeros that count as not measured: %s%s",
            f"{len(missing):,}", f"{columns.n_vars:,}", wanted.source,
            ", ".join(missing[:10]), ", …" if len(missing) > 10 else "",
        )  # fmt: skip
    return Choice(columns, {"listed": columns.n_vars, "missing": missing})


def choose_genes(
    rules: GeneRules,
    universe: Universe,
    sums: GeneSums,
    rows: SpooledRows,
    normalization: Normalization,
    *,
    n_files: int,
    few_cells: str,
) -> Choice:
    """Choose the columns by rule.

    Parameters
    ----------
    normalization
        Log-normalised values are scaled as recorded here, by totals over the
        genes that pass the base rules: before the ranking there are no others.
    n_files
        How many files there are.
    few_cells
        Why hardly a cell is kept; empty where many are.

    Raises
    ------
    ConfigError
        No gene is left, or genes cannot be ranked.
    """
    kept = select_genes(rules, sums, n_files, few_cells)
    if not isinstance(rules, HvgRules):
        return Choice(Columns.of(universe, kept))
    over_all = normalization.size_factor_genes == "all"
    target_sum = normalization.target_sum
    if target_sum is None and not rules.on_counts:
        np.save(rows.work.genes("ranked"), kept)
        found = rows.totals("total", rows.work.genes("ranked"), {}, over_all_genes=over_all)
        histograms = [total.totals for total in found]
        target_sum = median_total(histograms) if any(histograms) else None
    content = hashlib.sha256(rows.identity.encode() + sums.n_cells.tobytes() + sums.totals.tobytes()).hexdigest()
    scaling = Scaling(target_sum or 1.0, over_all)
    table, left_out = rank_genes(replace(rows, identity=content), kept, rules, batch_kind(rules, rows.kinds), scaling)
    chosen = table["highly_variable"].to_numpy(bool)
    if rules.n_top_genes > len(table):
        log.warning(
            "genes.n_top_genes=%d, but only %s pass the other rules", rules.n_top_genes, counted(len(table), "gene")
        )
    ranked = np.flatnonzero(kept)
    statistics = pd.DataFrame(
        {
            "gene": universe.keys[ranked],
            "symbol": universe.symbols[ranked],
            "n_cells": sums.n_cells[ranked],
            "total_counts": sums.totals[ranked],
        }
    )
    account = {"ranked": len(ranked), "highly_variable": int(chosen.sum()), "batches_left_out": left_out}
    final = np.zeros(len(kept), bool)
    final[ranked[chosen]] = True
    return Choice(Columns.of(universe, final), account, pd.concat([statistics, table], axis=1))


def write_statistics(directory: Path, statistics: pd.DataFrame | None) -> dict[str, Any]:
    """Write what genes were ranked by beside the chunks; return the file's name, size and checksum.

    Where none were ranked, an earlier table is removed and nothing returned.
    """
    path = directory / STATISTICS_FILE
    if statistics is None:
        path.unlink(missing_ok=True)
        return {}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(statistics, preserve_index=False), sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    write_atomic(path, content)
    return {"file": STATISTICS_FILE, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def batch_kind(rules: HvgRules, kinds: Mapping[str, str]) -> str:
    """Return the kind of the batch column; one that does not exist or holds fractions is an error."""
    if rules.batch_key is None or rules.batch_key == SRX_COLUMN:
        return "string"
    kind = kinds.get(rules.batch_key)
    if kind is None:
        names = ", ".join([SRX_COLUMN, *sorted(kinds)])
        raise ConfigError(
            f"genes.batch_key={rules.batch_key}: no such obs column, there are: {names}; "
            "input.obs_columns may leave it out"
        )
    if kind.startswith("float"):
        raise ConfigError(f"genes.batch_key={rules.batch_key} holds fractional numbers; name a column of labels")
    return kind
