"""Sorted runs in, highly variable genes out: streaming passes over the spooled counts.

First every run is summed per batch, then every batch is fitted;
``seurat_v3`` reads the runs once more for the counts above each batch's
limit. Everything is brought together in the order of runs and batches, so
the genes do not depend on who did which piece when. The process that brings
it together holds O(genes), and ``n_top_genes`` ranks a batch.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.processing.engine.task import Task
from scvae_data.processing.genes.hvg.passes import (
    Batch,
    HvgJob,
    Scaling,
    batch_sums,
    batch_variances,
    clip_run,
    fit_batch,
    sum_run,
)
from scvae_data.processing.genes.hvg.statistics import mean_variance
from scvae_data.processing.settings.genes import HvgRules
from scvae_data.processing.sort.totals import SpooledRows
from scvae_data.wording import counted

__all__ = ["DispersionRanking", "RunningMean", "Scaling", "VarianceRanking", "rank_genes"]

log = logging.getLogger(__name__)


def rank_genes(
    rows: SpooledRows, ranked: NDArray[np.bool_], rules: HvgRules, kind: str, scaling: Scaling
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Rank genes by how variable they are.

    Parameters
    ----------
    ranked
        Which genes of the universe take part.
    kind
        Kind of the batch column, as `ObsSchema.kinds` has it.

    Returns
    -------
    A row per ranked gene in universe order, with ``highly_variable``; and the batches that could not be ranked.

    Raises
    ------
    ConfigError
        No batch could be ranked, or a cell is in none.
    """
    runs, collect = rows.runs, rows.collect
    parts = [list(runs), asdict(rules), kind, asdict(scaling), rows.identity]
    digest = hashlib.sha256(json.dumps(parts).encode() + ranked.tobytes()).hexdigest()[:16]
    job = HvgJob(rows.work, rows.work.ranking(digest), rules, kind, scaling)
    job.folder.mkdir(parents=True, exist_ok=True)
    gene_map = np.where(ranked, np.cumsum(ranked) - 1, -1).astype(np.int32)
    np.save(job.gene_map, gene_map)
    summed = collect("rank genes", [Task(sum_run, (job, run, number)) for number, run in enumerate(runs)], "run")
    batches = gather_batches(summed)
    faults = collect("fit batches", [Task(fit_batch, (job, batch)) for batch in batches], "fit")
    left_out = [
        {"batch": batch.label, "n_cells": batch.n_cells, "reason": fault}
        for batch, fault in zip(batches, faults, strict=True)
        if fault
    ]
    fitted = [batch for batch, fault in zip(batches, faults, strict=True) if not fault]
    if not fitted:
        what = f"no batch of genes.batch_key={rules.batch_key}" if rules.batch_key else "the genes"
        reason = left_out[0]["reason"] if left_out else "no cell has a count"
        raise ConfigError(
            f"{what} can be ranked with genes.flavor={rules.flavor}: {reason}; "
            "choose another flavor, genes.batch_key=null or genes=all"
        )
    if left_out:
        named = ", ".join(f"{batch['batch']} ({batch['n_cells']} cells: {batch['reason']})" for batch in left_out[:5])
        log.warning("%d of %s take no part in ranking genes: %s", len(left_out), counted(len(batches), "batch"), named)
    n_genes = int(ranked.sum())
    if rules.on_counts:
        return rank_variances(rows, job, batches, fitted, n_genes), left_out
    ranking = DispersionRanking(rules, n_genes)
    for batch in fitted:
        with np.load(job.fit(batch.number)) as arrays:
            ranking.add({name: arrays[name] for name in arrays.files})
    return ranking.result(), left_out


def rank_variances(
    rows: SpooledRows, job: HvgJob, batches: Sequence[Batch], fitted: Sequence[Batch], n_genes: int
) -> pd.DataFrame:
    """Read the runs for clipped counts and rank the standardised variances."""
    of_run: defaultdict[int, list[tuple[int, Batch]]] = defaultdict(list)
    for batch in fitted:
        for run, position in batch.parts:
            of_run[run].append((position, batch))
    tasks = [Task(clip_run, (job, rows.runs[run], run, tuple(members))) for run, members in sorted(of_run.items())]
    rows.collect("clip counts", tasks, "run")
    ranking = VarianceRanking(job.rules, n_genes)
    for batch in fitted:
        ranking.add(batch_variances(job, batch))
    sums, squares = np.zeros(n_genes, np.int64), np.zeros(n_genes, np.float64)
    for batch in batches:
        of_batch = batch_sums(job, batch)
        sums += of_batch[0]
        squares += of_batch[1]
    mean, variance = mean_variance(sum(batch.n_cells for batch in batches), sums, squares)
    return pd.concat([pd.DataFrame({"means": mean, "variances": variance}), ranking.result()], axis=1)


def gather_batches(summed: Sequence[dict[str, int]]) -> list[Batch]:
    """Bring the batches of all runs together, sorted by label."""
    parts: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    n_cells: defaultdict[str, int] = defaultdict(int)
    for run, of_run in enumerate(summed):
        for position, (label, n) in enumerate(of_run.items()):
            if n:
                parts[label].append((run, position))
                n_cells[label] += n
    return [Batch(number, label, n_cells[label], tuple(parts[label])) for number, label in enumerate(sorted(parts))]


class DispersionRanking:
    """Combine the batches of `dispersions`, one at a time, in memory for one.

    Parameters
    ----------
    n_genes
        Number of genes that are ranked.
    """

    def __init__(self, rules: HvgRules, n_genes: int) -> None:
        self.rules = rules
        self._means = {name: RunningMean(n_genes) for name in ("means", "dispersions", "dispersions_norm")}
        self._n_batches = np.zeros(n_genes, np.int64)
        self._chosen = np.zeros(n_genes, bool)

    def add(self, batch: dict[str, NDArray[np.float64]]) -> None:
        """Add a batch."""
        for name, mean in self._means.items():
            mean.add(batch[name])
        self._chosen = batch["highly_variable"] > 0
        self._n_batches += self._chosen

    def result(self) -> pd.DataFrame:
        """Return means over the batches, and ``highly_variable``, per gene."""
        table = pd.DataFrame({name: mean.value() for name, mean in self._means.items()})
        if self.rules.batch_key is None:
            table["highly_variable"] = self._chosen
            return table
        table["highly_variable_nbatches"] = self._n_batches
        return top(table, ["highly_variable_nbatches", "dispersions_norm"], [False, False], self.rules.n_top_genes)


class RunningMean:
    """Mean per gene over values that come one array at a time; NaN is left out.

    Summed with compensation, as pandas sums groups: the order of genes with
    almost equal means hangs on the last bits.
    """

    def __init__(self, n_genes: int) -> None:
        self._sum, self._lost, self._n = np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes, np.int64)

    def add(self, values: NDArray[np.float64]) -> None:
        """Add one value per gene."""
        valid = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            added = values - self._lost
            total = self._sum + added
            lost = total - self._sum - added
        self._lost = np.where(valid, np.where(np.isnan(lost), 0.0, lost), self._lost)
        self._sum = np.where(valid, total, self._sum)
        self._n += valid

    def value(self) -> NDArray[np.float64]:
        """Return the means; NaN for a gene without a value."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self._sum / self._n)


class VarianceRanking:
    """Combine the batches of ``seurat_v3``, one at a time; memory for ``n_top_genes`` ranks of each."""

    def __init__(self, rules: HvgRules, n_genes: int) -> None:
        self.rules = rules
        self._genes: list[NDArray[np.int64]] = []
        self._ranks: list[NDArray[np.int64]] = []
        self._sum = np.zeros(n_genes)

    def add(self, variances: NDArray[np.float64]) -> None:
        """Add a batch's normalised variances."""
        # NumPy's default sort, as in scanpy: it settles which of several equal genes comes first.
        rank = np.argsort(np.argsort(-variances))
        genes = np.flatnonzero(rank < self.rules.n_top_genes)
        self._genes.append(genes)
        self._ranks.append(rank[genes])
        self._sum += variances

    def result(self) -> pd.DataFrame:
        """Return the median rank, number of batches and mean normalised variance, and ``highly_variable``, per gene."""
        genes, ranks = np.concatenate(self._genes), np.concatenate(self._ranks)
        ranks = ranks[np.lexsort((ranks, genes))]
        n_batches = np.bincount(genes, minlength=len(self._sum))
        first = np.cumsum(n_batches) - n_batches
        median = np.full(len(self._sum), np.nan)
        ranked = n_batches > 0
        low, high = first + (n_batches - 1) // 2, first + n_batches // 2
        median[ranked] = (ranks[low[ranked]] + ranks[high[ranked]]) / 2
        table = pd.DataFrame(
            {
                "variances_norm": self._sum / len(self._genes),
                "highly_variable_rank": median,
                "highly_variable_nbatches": n_batches,
            }
        )
        table = top(table, ["highly_variable_rank", "highly_variable_nbatches"], [True, False], self.rules.n_top_genes)
        return table if self.rules.batch_key is not None else table.drop(columns="highly_variable_nbatches")


def top(table: pd.DataFrame, columns: list[str], ascending: list[bool], n: int) -> pd.DataFrame:
    """Mark the first ``n`` genes in the order of some columns; ties keep the table's order, NaN is last."""
    best = table[columns].sort_values(columns, ascending=ascending, na_position="last").index[:n]
    return table.assign(highly_variable=table.index.isin(best))
