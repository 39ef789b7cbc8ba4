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
from scvae_data.processing.genes.hvg.kernels import sum_clipped, sum_counts, sum_values
from scvae_data.processing.genes.hvg.statistics import Unfit, dispersions, fit_variance, normalized_variance
from scvae_data.processing.settings.genes import HvgRules
from scvae_data.processing.sort.kernels import row_totals
from scvae_data.processing.sort.obs_schema import ARROW, cast
from scvae_data.processing.sort.sorted_run import Run, RunBlock
from scvae_data.store.files import read_json, write_json

__all__ = ["Batch", "HvgJob", "batch_file", "batch_sums", "batch_variances", "clip_run", "fit_batch", "sum_run"]

MAX_BATCHES_IN_RUN = 1000


@dataclass(frozen=True)
class HvgJob:
    """What the passes over any run need.

    Parameters
    ----------
    folder
        Where the passes leave their sums; named by everything they depend on.
    kind
        Kind of the batch column, as `ObsSchema.kinds` has it.
    target_sum
        Total of every cell after scaling; unused by flavors that rank counts.
    over_all_genes
        Whether a cell's total runs over all genes of its file, or over those that are ranked.
    """

    work: Path
    folder: Path
    rules: HvgRules
    kind: str
    target_sum: float
    over_all_genes: bool


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


def sum_run(job: HvgJob, path: str, number: int) -> dict[str, int]:
    """Sum a run per batch and gene, store the sums, and return the number of cells of each of its batches."""
    note = job.folder / f"{number:06d}.json"
    if note.exists():
        return {str(label): int(n_cells) for label, n_cells in read_json(note)["n_cells"].items()}
    gene_map = np.load(job.folder / "gene_map.npy")
    with Run(job.work / path) as run:
        obs = run.obs()
        codes, labels = batch_codes(job, obs)
        of_file = obs.column("total_counts").to_numpy()
        kind = np.int64 if job.rules.on_counts else np.float64
        sums: NDArray[Any] = np.zeros((len(labels), int(gene_map.max()) + 1), kind)
        squares = np.zeros(sums.shape)
        for block in run.blocks(0, run.n_rows):
            rows = slice(block.first_row, block.first_row + len(block.row_starts) - 1)
            totals = ranked_totals(block, gene_map >= 0)
            codes[rows][totals == 0] = -1
            if job.rules.on_counts:
                sum_counts(block.row_starts, block.indices, block.data, codes[rows], gene_map, sums, squares)
            else:
                values = normalised(job, block, of_file[rows] if job.over_all_genes else totals)
                sum_values(block.row_starts, block.indices, values, codes[rows], gene_map, sums, squares)
    n_cells = np.bincount(codes[codes >= 0], minlength=len(labels))
    found = {label: int(n) for label, n in zip(labels, n_cells, strict=True)}
    np.save(job.folder / f"{number:06d}.sums.npy", sums)
    np.save(job.folder / f"{number:06d}.squares.npy", squares)
    np.save(job.folder / f"{number:06d}.codes.npy", codes)
    write_json(note, {"n_cells": found})
    return found


def ranked_totals(block: RunBlock, ranked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return every row's total over the ranked genes, int64; a row of total 0 is in no batch."""
    n_rows = len(block.row_starts) - 1
    totals, lengths = np.zeros(n_rows, np.int64), np.zeros(n_rows, np.int32)
    row_totals(block.row_starts, block.indices, block.data, ranked, totals, lengths)
    return totals


def batch_codes(job: HvgJob, obs: pa.Table) -> tuple[NDArray[np.int64], list[str]]:
    """Return each row's batch number, and the sorted labels of the run's batches."""
    key = job.rules.batch_key
    if key is None:
        return np.zeros(len(obs), np.int64), [""]
    column = obs.column(key) if key in obs.column_names else pa.nulls(len(obs), pa.string())
    labels = cast(cast(column, ARROW[job.kind.rstrip("?")]), pa.string()).to_numpy(zero_copy_only=False)
    missing = pd.isna(labels)
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


def normalised(job: HvgJob, block: RunBlock, totals: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return a block's log-normalised values in scanpy's arithmetic (float32); without the logarithm for seurat."""
    size = totals.astype(np.float32) / np.float32(job.target_sum)
    size[size == 0] = 1
    values: NDArray[Any] = block.data.astype(np.float32) / np.repeat(size, np.diff(block.row_starts))
    np.log1p(values, out=values)
    if job.rules.flavor == "seurat":
        np.expm1(values, out=values)
    return values


def batch_sums(job: HvgJob, batch: Batch) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Add up a batch's sums and sums of squares in the order of the runs."""
    added: list[NDArray[Any]] = []
    for name in ("sums", "squares"):
        arrays = (np.load(job.folder / f"{run:06d}.{name}.npy", mmap_mode="r")[row] for run, row in batch.parts)
        total = np.array(next(arrays))
        for array in arrays:
            total += array
        added.append(total)
    return added[0], added[1]


def batch_file(job: HvgJob, batch: Batch) -> Path:
    """Return where a batch's fit is."""
    return job.folder / f"batch{batch.number:06d}.npz"


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
    np.savez(batch_file(job, batch), **found)  # type: ignore[arg-type]
    return None


def clip_run(job: HvgJob, path: str, number: int, members: tuple[tuple[int, Batch], ...]) -> None:
    """Sum the counts of a run above the limit of their batch and gene; store them as columns."""
    gene_map = np.load(job.folder / "gene_map.npy")
    codes = np.load(job.folder / f"{number:06d}.codes.npy")
    limits = np.full((int(codes.max()) + 1, int(gene_map.max()) + 1), np.inf)
    for position, batch in members:
        with np.load(batch_file(job, batch)) as fit:
            limits[position] = fit["deviation"] * np.sqrt(batch.n_cells) + fit["mean"]
    numbers, sums = np.zeros(limits.shape, np.int64), np.zeros(limits.shape, np.int64)
    squares = np.zeros(limits.shape)
    with Run(job.work / path) as run:
        for block in run.blocks(0, run.n_rows):
            rows = slice(block.first_row, block.first_row + len(block.row_starts) - 1)
            sum_clipped(
                block.row_starts, block.indices, block.data, codes[rows], gene_map, limits, numbers, sums, squares
            )
    rows_hit, genes_hit = np.nonzero(numbers)
    hit = (rows_hit, genes_hit)
    np.savez(
        job.folder / f"{number:06d}.clipped.npz",
        row=rows_hit, gene=genes_hit, numbers=numbers[hit], sums=sums[hit], squares=squares[hit],
    )  # fmt: skip


def batch_variances(job: HvgJob, batch: Batch) -> NDArray[np.float64]:
    """Return a batch's normalised variances: counts above the limit count as the limit."""
    with np.load(batch_file(job, batch)) as fit:
        mean, deviation = fit["mean"], fit["deviation"]
    limit = deviation * np.sqrt(batch.n_cells) + mean
    sums, squares = batch_sums(job, batch)
    numbers = np.zeros(len(mean), np.int64)
    for run, position in batch.parts:
        with np.load(job.folder / f"{run:06d}.clipped.npz") as clipped:
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
