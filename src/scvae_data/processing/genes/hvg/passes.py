"""One sorted run or one batch in, stored sums or a stored fit out: the pieces of ranking genes that workers do.

A worker holds O(genes × batches of one run). Sums of counts are whole
numbers; sums of normalised values are added in the order of the rows of a
run, then of the runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.processing.facts import SpooledRun
from scvae_data.processing.genes.hvg.kernels import sum_clipped, sum_values
from scvae_data.processing.genes.hvg.statistics import Unfit, dispersions, fit_variance, normalized_variance
from scvae_data.processing.settings.genes import HvgRules
from scvae_data.processing.sort.obs_schema import cast, is_text
from scvae_data.processing.sort.sorted_run import SortedRun
from scvae_data.processing.sort.totals import copies_in
from scvae_data.processing.work import WorkFolder
from scvae_data.readers.base import CsrBlock
from scvae_data.store.files import read_json, write_json

__all__ = ["Batch", "HvgJob", "Scaling", "batch_sums", "batch_variances", "clip_run", "fit_batch", "sum_run"]

MAX_BATCHES_IN_RUN = 1000


@dataclass(frozen=True)
class Scaling:
    """How counts are normalised before they are ranked; unused by flavors that rank counts.

    Parameters
    ----------
    target_sum
        Total of every cell after scaling.
    over_all_genes
        Whether a cell's total runs over all genes of its file, or over those that are ranked.
    """

    target_sum: float
    over_all_genes: bool


@dataclass(frozen=True)
class HvgJob:
    """What the passes over any sorted run need.

    Parameters
    ----------
    folder
        Where the passes leave their sums; named by everything they depend on.
    kind
        Kind of the batch column, as `ObsSchema.kinds` has it.
    """

    work: WorkFolder
    folder: Path
    rules: HvgRules
    kind: str
    scaling: Scaling

    @property
    def gene_map(self) -> Path:
        """Number of each gene of the universe among those that are ranked."""
        return self.folder / "gene_map.npy"

    def of_run(self, number: int, what: str) -> Path:
        """``sums``, ``squares``, ``codes`` or ``clipped`` of a sorted run, or its ``batches``, written last."""
        suffix = {"batches": ".json", "clipped": ".npz"}.get(what, ".npy")
        return self.folder / f"{number:06d}.{what}{suffix}"

    def fit(self, batch: int) -> Path:
        """What ranks the genes of a batch."""
        return self.folder / f"batch{batch:06d}.npz"


@dataclass(frozen=True)
class Batch:
    """The cells of one batch.

    Parameters
    ----------
    parts
        Numbers of the runs that hold some of them, and the batch's position in the sums of each.
    """

    number: int
    label: str
    n_cells: int
    parts: tuple[tuple[int, int], ...]


def sum_run(job: HvgJob, spooled: SpooledRun, number: int) -> dict[str, int]:
    """Sum a run per batch and gene, store the sums, and return the number of cells of each of its batches."""
    note = job.of_run(number, "batches")
    if note.exists():
        return {str(label): int(n_cells) for label, n_cells in read_json(note)["n_cells"].items()}
    gene_map = np.load(job.gene_map)
    with SortedRun(job.work.path / spooled.path) as run:
        obs = run.obs()
        codes, labels = batch_codes(job, obs, copies_in(job.work, spooled, obs))
        of_file = obs.column("total_counts").to_numpy()
        kind = np.int64 if job.rules.on_counts else np.float64
        sums: NDArray[Any] = np.zeros((len(labels), int(gene_map.max()) + 1), kind)
        squares = np.zeros(sums.shape)
        for block in run.blocks(0, run.n_rows):
            rows = slice(block.first_row, block.first_row + block.n_rows)
            totals = ranked_totals(block, gene_map >= 0)
            codes[rows][totals == 0] = -1
            values = block.data
            if not job.rules.on_counts:
                values = normalised(job, block, of_file[rows] if job.scaling.over_all_genes else totals)
            sum_values(block.indptr, block.indices, values, codes[rows], gene_map, sums, squares)
    n_cells = np.bincount(codes[codes >= 0], minlength=len(labels))
    found = {label: int(n) for label, n in zip(labels, n_cells, strict=True)}
    np.save(job.of_run(number, "sums"), sums)
    np.save(job.of_run(number, "squares"), squares)
    np.save(job.of_run(number, "codes"), codes)
    write_json(note, {"n_cells": found})
    return found


def ranked_totals(block: CsrBlock, ranked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return every row's total over the ranked genes, int64; a row of total 0 is in no batch."""
    ends = np.cumsum(block.data * ranked[block.indices], dtype=np.int64)
    return np.diff(np.concatenate([[0], ends])[block.indptr])


def batch_codes(job: HvgJob, obs: pa.Table, copies: NDArray[np.bool_]) -> tuple[NDArray[np.int64], list[str]]:
    """Return each row's batch number, -1 for copies, and the sorted labels of the run's batches."""
    key = job.rules.batch_key
    if key is None:
        return np.where(copies, -1, 0), [""]
    column = obs.column(key) if key in obs.column_names else pa.chunked_array([pa.nulls(len(obs), pa.string())])
    column = cast(column, job.kind)
    labels = (column if is_text(job.kind) else cast(column, "label")).to_numpy(zero_copy_only=False)
    labels[copies] = None
    missing = pd.isna(labels) & ~copies
    if missing.any():
        name = obs.column("obs_name")[int(np.flatnonzero(missing)[0])].as_py()
        raise ConfigError(
            f"genes.batch_key={key}: cell {name} has no value; name a column that every kept cell has, "
            "e.g. SRX_accession, or null"
        )
    codes, distinct = pd.factorize(labels, sort=True)
    if len(distinct) > MAX_BATCHES_IN_RUN:
        raise ConfigError(
            f"genes.batch_key={key} has {len(distinct)} values among {len(obs)} cells; name a column of fewer batches"
        )
    return codes.astype(np.int64), [str(label) for label in distinct]


def normalised(job: HvgJob, block: CsrBlock, totals: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return a block's log-normalised values in scanpy's arithmetic (float32); without the logarithm for seurat."""
    size = totals.astype(np.float32) / np.float32(job.scaling.target_sum)
    size[size == 0] = 1
    values: NDArray[Any] = block.data.astype(np.float32) / np.repeat(size, np.diff(block.indptr))
    np.log1p(values, out=values)
    if job.rules.flavor == "seurat":
        np.expm1(values, out=values)
    return values


def batch_sums(job: HvgJob, batch: Batch) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Add up a batch's sums and sums of squares in the order of the runs."""
    added: list[NDArray[Any]] = []
    for name in ("sums", "squares"):
        arrays = (np.load(job.of_run(run, name), mmap_mode="r")[row] for run, row in batch.parts)
        total = np.array(next(arrays))
        for array in arrays:
            total += array
        added.append(total)
    return added[0], added[1]


def fit_batch(job: HvgJob, batch: Batch) -> str | None:
    """Fit one batch and store what ranks it; return why it cannot be ranked, or None."""
    sums, squares = batch_sums(job, batch)
    try:
        if job.rules.on_counts:
            mean, deviation = fit_variance(job.rules, batch.n_cells, sums, squares)
            found = {"mean": mean, "deviation": deviation}
        else:
            found = dispersions(job.rules, batch.n_cells, sums, squares)
    except Unfit as fault:
        return str(fault)
    np.savez(job.fit(batch.number), **found)  # type: ignore[arg-type]
    return None


def clip_run(job: HvgJob, spooled: SpooledRun, number: int, members: tuple[tuple[int, Batch], ...]) -> None:
    """Sum the counts of a run above the limit of their batch and gene; store them as columns."""
    gene_map = np.load(job.gene_map)
    codes = np.load(job.of_run(number, "codes"))
    limits = np.full((int(codes.max()) + 1, int(gene_map.max()) + 1), np.inf)
    for position, batch in members:
        with np.load(job.fit(batch.number)) as fit:
            limits[position] = fit["deviation"] * np.sqrt(batch.n_cells) + fit["mean"]
    numbers, sums = np.zeros(limits.shape, np.int64), np.zeros(limits.shape, np.int64)
    squares = np.zeros(limits.shape)
    with SortedRun(job.work.path / spooled.path) as run:
        for block in run.blocks(0, run.n_rows):
            rows = slice(block.first_row, block.first_row + block.n_rows)
            sum_clipped(block.indptr, block.indices, block.data, codes[rows], gene_map, limits, numbers, sums, squares)
    rows_hit, genes_hit = np.nonzero(numbers)
    hit = (rows_hit, genes_hit)
    np.savez(
        job.of_run(number, "clipped"),
        row=rows_hit, gene=genes_hit, numbers=numbers[hit], sums=sums[hit], squares=squares[hit],
    )  # fmt: skip


def batch_variances(job: HvgJob, batch: Batch) -> NDArray[np.float64]:
    """Return a batch's normalised variances: counts above the limit count as the limit."""
    with np.load(job.fit(batch.number)) as fit:
        mean, deviation = fit["mean"], fit["deviation"]
    limit = deviation * np.sqrt(batch.n_cells) + mean
    sums, squares = batch_sums(job, batch)
    numbers = np.zeros(len(mean), np.int64)
    for run, position in batch.parts:
        with np.load(job.of_run(run, "clipped")) as clipped:
            mine = clipped["row"] == position
            genes = clipped["gene"][mine]
            numbers[genes] += clipped["numbers"][mine]
            sums[genes] -= clipped["sums"][mine]
            squares[genes] -= clipped["squares"][mine]
    above = numbers > 0
    kept_sums, kept_squares = sums.astype(np.float64), squares
    kept_sums[above] += numbers[above] * limit[above]
    kept_squares[above] += numbers[above] * limit[above] ** 2
    return normalized_variance(batch.n_cells, mean, deviation, kept_sums, kept_squares)
