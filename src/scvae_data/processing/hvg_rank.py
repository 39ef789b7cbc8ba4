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
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.processing.hvg import HvgRules, mean_variance
from scvae_data.processing.hvg_passes import (
    Batch,
    HvgJob,
    batch_file,
    batch_sums,
    batch_variances,
    clip_run,
    fit_batch,
    sum_run,
)
from scvae_data.processing.hvg_ranking import DispersionRanking, VarianceRanking
from scvae_data.processing.task import Task

__all__ = ["rank_genes"]

log = logging.getLogger(__name__)


def rank_genes(
    work: Path,
    runs: Sequence[str],
    ranked: NDArray[np.bool_],
    rules: HvgRules,
    *,
    kind: str,
    target_sum: float,
    over_all_genes: bool,
    identity: str,
    collect: Callable[[str, Sequence[Task], str], list[Any]],
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Rank genes by how variable they are.

    Parameters
    ----------
    ranked
        Which genes of the universe take part.
    kind, target_sum, over_all_genes
        See `HvgJob`.
    identity
        Hash of everything the runs depend on.
    collect
        Runs tasks and returns their results in order.

    Returns
    -------
    A row per ranked gene in universe order, with ``highly_variable``; and the batches that could not be ranked.

    Raises
    ------
    ConfigError
        No batch could be ranked, or a cell is in none.
    """
    parts = [list(runs), asdict(rules), kind, target_sum, over_all_genes, identity]
    digest = hashlib.sha256(json.dumps(parts).encode() + ranked.tobytes()).hexdigest()[:16]
    job = HvgJob(work, work / "hvg" / digest, rules, kind, target_sum, over_all_genes)
    job.folder.mkdir(parents=True, exist_ok=True)
    gene_map = np.where(ranked, np.cumsum(ranked) - 1, -1).astype(np.int32)
    np.save(job.folder / "gene_map.npy", gene_map)
    summed = collect("rank genes", [Task(sum_run, (job, path, number)) for number, path in enumerate(runs)], "run")
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
        log.warning("%d of %d batches take no part in ranking genes: %s", len(left_out), len(batches), named)
    n_genes = int(ranked.sum())
    if rules.on_counts:
        return rank_variances(job, runs, batches, fitted, n_genes, collect), left_out
    ranking = DispersionRanking(rules, n_genes)
    for batch in fitted:
        with np.load(batch_file(job, batch)) as arrays:
            ranking.add({name: arrays[name] for name in arrays.files})
    return ranking.result(), left_out


def rank_variances(
    job: HvgJob,
    runs: Sequence[str],
    batches: Sequence[Batch],
    fitted: Sequence[Batch],
    n_genes: int,
    collect: Callable[[str, Sequence[Task], str], list[Any]],
) -> pd.DataFrame:
    """Read the runs for clipped counts and rank the standardised variances."""
    of_run: defaultdict[int, list[tuple[int, Batch]]] = defaultdict(list)
    for batch in fitted:
        for run, position in batch.parts:
            of_run[run].append((position, batch))
    tasks = [Task(clip_run, (job, runs[run], run, tuple(members))) for run, members in sorted(of_run.items())]
    collect("clip counts", tasks, "run")
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
