"""The kept cells of new files in; those that equal a cell of the directory that grows, out.

Equal cells have equal metrics: only cells of the directory whose totals,
numbers of genes and mitochondrial shares are those of a new cell are decoded
and compared, gene by gene of the directory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.processing.decide.duplicates import Compared, groups_of, leave_copies_out, n_parts, pairs_of
from scvae_data.processing.engine.task import Task
from scvae_data.processing.facts import FileScan
from scvae_data.processing.run.context import Context
from scvae_data.processing.scan.cell_hash import LEAST_GENES, hash_rows
from scvae_data.processing.scan.stage import Scanned
from scvae_data.processing.sort.sorted_run import SortedRun
from scvae_data.processing.survey.stage import Surveyed
from scvae_data.store import DatasetIndex
from scvae_data.wording import counted

__all__ = ["compare_standing"]

log = logging.getLogger(__name__)

METRICS = ("total_counts", "n_genes_by_counts", "pct_counts_mt")
KEPT = (
    "; added all the same, as the directory was made with keep_duplicates=all; to be without such cells, give files "
    "that lack them, or process all inputs anew with keep_duplicates=first"
)
MIX = np.uint64(0x9E3779B97F4A7C15)


def compare_standing(context: Context, surveyed: Surveyed, scanned: Scanned, compared: Compared) -> Compared:
    """Find new cells that equal one of the directory, and leave them out unless all are kept.

    Raises
    ------
    ConfigError
        No cell is left.
    """
    assert context.standing is not None and surveyed.listed is not None
    index, keep = context.standing.index, context.settings.keep_duplicates
    found = equal_cells(context, surveyed, scanned, index)
    files = index.obs_columns["source_file"].categories or ()
    pairs = [(files[-1 - first], scanned_name(scanned, other), n) for first, other, n, _, _ in pairs_of(found)]
    account = compared.account | {
        "of_directory": {
            "n_copies": len(found),
            "first_file": [first for first, _, _ in pairs],
            "file": [other for _, other, _ in pairs],
            "n_copies_of_files": [n for _, _, n in pairs],
        }
    }
    if not len(found):
        return replace(compared, account=account)
    first, other, _ = pairs[0]
    log.warning(
        "%s %s a cell of the directory (e.g. of %s and %s)%s", counted(len(found), "new cell"),
        "equals" if len(found) == 1 else "equal", other, first,
        KEPT if keep == "all" else ": left out",
    )  # fmt: skip
    if keep == "all":
        return replace(compared, account=account)
    parts = n_parts(sum(scan.n_kept for scan in scanned.scans))
    np.save(context.work.copies(parts), np.ascontiguousarray(found[np.lexsort((found[:, 1], found[:, 0]))].T))
    tasks = [Task(leave_copies_out, (context.work, group, parts + 1)) for group in groups_of(scanned.scans)]
    left: list[FileScan] = [scan for group in context.collect("drop copies", tasks, unit="group") for scan in group]
    if not any(scan.n_kept for scan in left):
        raise ConfigError(f"keep_duplicates={keep} leaves no cell: every new cell equals one of {index.path}")
    return Compared(left, account)


def scanned_name(scanned: Scanned, number: int) -> str:
    """Return what an input is called."""
    return next(scan.source_file for scan in scanned.scans if scan.number == number)


def equal_cells(context: Context, surveyed: Surveyed, scanned: Scanned, index: DatasetIndex) -> NDArray[np.int64]:
    """Return a row for each new cell that equals one of the directory: file, row, and those of the other; (n, 4).

    A file of the directory is called by ``-1 - code``.
    """
    runs = [(scan.number, spooled.path) for scan in scanned.scans for spooled in scan.sorted_runs]
    marks: list[NDArray[np.uint64]] = []
    for _, path in runs:
        with SortedRun(context.work.path / path) as run:
            marks.append(marks_of(run.obs()))
    every = np.unique(np.concatenate([np.zeros(0, np.uint64), *marks]))
    names = index.genes.names
    key_hashes = np.stack(
        [np.arange(len(names), dtype=np.uint64) * MIX + k for k in np.array([1, 2], np.uint64)], axis=1
    )
    of_directory = dict(standing_cells(index, every, key_hashes))
    if not of_directory:
        return np.zeros((0, 4), np.int64)
    assert surveyed.listed is not None
    column_of = surveyed.listed.columns.gene_map(len(surveyed.universe.keys))
    seen = np.unique(np.array([cell[2] for cell in of_directory.values()], np.uint64))
    found = []
    for (number, path), mark in zip(runs, marks, strict=True):
        with SortedRun(context.work.path / path) as run:
            source_rows = run.obs().column("source_row").to_numpy()
            for row, key in hashed_rows(run, np.flatnonzero(np.isin(mark, seen)), column_of, key_hashes):
                if (other := of_directory.get(key)) is not None:
                    found.append((number, int(source_rows[row]), *other[:2]))
    return np.array(found, np.int64).reshape(-1, 4)


def marks_of(obs: pa.Table) -> NDArray[np.uint64]:
    """One number for the metrics of each row, 0 for rows of too few genes to be compared."""
    total, n_genes, share = (obs.column(name).to_numpy() for name in METRICS)
    return mark(total, n_genes, share)


def mark(total: NDArray[np.int64], n_genes: NDArray[np.int32], share: NDArray[np.float32]) -> NDArray[np.uint64]:
    """One number for the metrics of each cell, 0 for cells of too few genes to be compared."""
    bits = np.ascontiguousarray(share, np.float32).view(np.uint32).astype(np.uint64)
    mixed = (total.astype(np.uint64) * MIX) ^ (n_genes.astype(np.uint64) << np.uint64(32)) ^ bits
    return np.where(n_genes >= LEAST_GENES, mixed | np.uint64(1), np.uint64(0))


def standing_cells(
    index: DatasetIndex, marks: NDArray[np.uint64], key_hashes: NDArray[np.uint64]
) -> Iterator[tuple[tuple[int, int], tuple[int, int, int]]]:
    """Yield hash, file, row and mark of the cells of the directory that have one of the marks; the last comes first."""
    wanted = marks[marks > 0]
    for chunk_id in reversed(range(len(index.chunks))):
        values = index.cells.arrays(chunk_id, [*METRICS, "source_file", "source_row"])
        mine = mark(*(values[name] for name in METRICS))
        rows = np.flatnonzero(np.isin(mine, wanted))
        if not rows.size:
            continue
        breaks = np.flatnonzero(np.diff(rows) > 1) + 1
        with index.reader(chunk_id) as reader:
            counts = reader.read_spans([(int(run[0]), int(run[-1]) + 1) for run in np.split(rows, breaks)])
        hashes = np.empty((rows.size, 2), np.uint64)
        hash_rows(counts.indptr, counts.indices, counts.data.astype(np.uint32), key_hashes, hashes)
        for row, (first, second) in zip(rows.tolist(), hashes.tolist(), strict=True):
            place = (-1 - int(values["source_file"][row]), int(values["source_row"][row]), int(mine[row]))
            yield (first, second), place


def hashed_rows(
    run: SortedRun, rows: NDArray[np.int64], column_of: NDArray[np.int32], key_hashes: NDArray[np.uint64]
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield the hash over the genes of the directory of some rows of a sorted run."""
    if not rows.size:
        return
    for block in run.blocks(int(rows[0]), int(rows[-1]) + 1):
        for row in rows[(rows >= block.first_row) & (rows < block.first_row + block.n_rows)].tolist():
            entries = slice(*block.indptr[row - block.first_row : row - block.first_row + 2].tolist())
            columns = column_of[block.indices[entries]]
            kept = columns >= 0
            hashes, indptr = np.empty((1, 2), np.uint64), np.array([0, int(kept.sum())])
            counts = block.data[entries][kept].astype(np.uint32)
            hash_rows(
                indptr,
                columns[kept].astype(np.uint16 if column_of.size < 1 << 16 else np.uint32),
                counts,
                key_hashes,
                hashes,
            )
            yield row, (int(hashes[0, 0]), int(hashes[0, 1]))
