"""Hashes of all kept cells in, the cells that equal another out; and, where asked for, runs without them.

Only cells with `LEAST_GENES` genes or more are compared: shallow cells are
equal by chance. Hashes are compared in parts of bounded size, so memory does
not grow with the number of cells.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.processing.engine.task import Task
from scvae_data.processing.facts import FileFacts, ScanResult
from scvae_data.processing.run.context import Context
from scvae_data.processing.run.records import total_lost
from scvae_data.processing.scan.cell_hash import HASHES, LEAST_GENES
from scvae_data.processing.scan.dropped import COPIES, DroppedWriter, table_of_obs
from scvae_data.processing.sort.sorted_run import Run, RunWriter

__all__ = ["DUPLICATE_RULE", "compare", "find_copies", "n_parts", "remove_copies", "report_copies", "restore_scan"]

DUPLICATE_RULE = "duplicate"
SCANNED_SUMS = "genes-scanned.npz"
PART_CELLS = 2_000_000
MAX_PAIRS = 10_000
FLUSH_ENTRIES = 1_000_000


def n_parts(n_obs: int) -> int:
    """Return in how many parts so many cells are compared."""
    return n_obs // PART_CELLS + 1


def find_copies(work: Path, numbers: Sequence[int], part: int, parts: int, keep: str) -> dict[str, Any]:
    """Find the equal cells among those whose hash falls into one part.

    The first of equal cells is the one with the lowest file number and row;
    each other is a copy of it. Stores which cells ``keep`` drops.

    Parameters
    ----------
    numbers
        Numbers of the scanned files.
    keep
        ``"all"``, ``"first"`` or ``"none"`` of equal cells.

    Returns
    -------
    How many first cells and copies there are; per pair of files (of the
    first cell and of the copy) the number of copies and the rows of one.
    """
    chosen = [hashes_of(work, number, part, parts) for number in numbers]
    table = np.concatenate(chosen) if chosen else np.empty((0, 3), np.uint64)
    files = np.repeat(np.array(numbers, np.int64), [len(one) for one in chosen])
    rows = table[:, 2].astype(np.int64)
    order = np.lexsort((rows, files, table[:, 1], table[:, 0]))
    table, files, rows = table[order], files[order], rows[order]
    starts = np.ones(len(table), bool)
    starts[1:] = (table[1:, :2] != table[:-1, :2]).any(axis=1)
    first = np.flatnonzero(starts)[np.cumsum(starts) - 1] if len(table) else np.empty(0, np.int64)
    copies = np.flatnonzero(~starts)
    found = np.column_stack([files[copies], rows[copies], files[first[copies]], rows[first[copies]]])
    drop = found
    if keep == "none":
        # A first cell is named with its first copy.
        _, where = np.unique(first[copies], return_index=True)
        drop = np.concatenate([found, found[where][:, [2, 3, 0, 1]]])
    np.save(work / f"copies-{part:04d}.npy", drop[np.lexsort((drop[:, 1], drop[:, 0]))])
    return {"n_first": len(np.unique(first[copies])), "n_copies": len(copies), "pairs": pairs_of(found)}


def hashes_of(work: Path, number: int, part: int, parts: int) -> NDArray[np.uint64]:
    """Return a file's hashes that fall into one part."""
    hashes: NDArray[np.uint64] = np.load(work / "scan" / f"{number:06d}" / HASHES, mmap_mode="r")
    return np.asarray(hashes if parts == 1 else hashes[hashes[:, 0] % np.uint64(parts) == part])


def pairs_of(found: NDArray[np.int64]) -> list[tuple[int, int, int, int, int]]:
    """Return per pair of files (first, copy): number of copies, and the rows (first, copy) of the lowest."""
    ordered = found[np.lexsort((found[:, 1], found[:, 3], found[:, 0], found[:, 2]))]
    _, where, counts = np.unique(ordered[:, [2, 0]], axis=0, return_index=True, return_counts=True)
    return [
        (int(ordered[at, 2]), int(ordered[at, 0]), int(count), int(ordered[at, 3]), int(ordered[at, 1]))
        for at, count in zip(where, counts, strict=True)
    ]


def report_copies(parts: Sequence[Mapping[str, Any]], names: Mapping[int, str], keep: str) -> dict[str, Any]:
    """Sum up all parts: what ``chunk_summary.json`` says about equal cells, most frequent pairs of files first."""
    count: Counter[tuple[int, int]] = Counter()
    example: dict[tuple[int, int], tuple[int, int]] = {}
    for part in parts:
        for first, other, n, first_row, row in part["pairs"]:
            pair = (first, other)
            count[pair] += n
            example[pair] = min(example.get(pair, (first_row, row)), (first_row, row))
    pairs = sorted(count, key=lambda pair: (-count[pair], pair))
    listed = pairs[:MAX_PAIRS]
    return {
        "keep": keep,
        "least_genes": LEAST_GENES,
        "n_cells_with_copies": sum(part["n_first"] for part in parts),
        "n_copies": sum(part["n_copies"] for part in parts),
        "n_pairs_of_files": len(pairs),
        "pairs": {
            "first_file": [names[first] for first, _ in listed],
            "file": [names[other] for _, other in listed],
            "n_copies": [count[pair] for pair in listed],
            "example_first_row": [example[pair][0] for pair in listed],
            "example_row": [example[pair][1] for pair in listed],
        },
    }


def remove_copies(work: Path, result: ScanResult, parts: int, metrics: Sequence[str]) -> ScanResult:
    """Drop a file's share of equal cells: rewrite the runs that hold one, correct the gene sums, list the cells.

    What the scan left stays as it is, so that the outcome is the same
    however often and with whatever settings this is done.
    """
    folder = work / "scan" / f"{result.number:06d}"
    restore_scan(work, result.number)
    doomed = cells_to_drop(work, result.number, parts)
    if not len(doomed):
        return result
    names = np.load(work / "source_files.npy")
    with np.load(scanned_sums(folder)) as arrays:
        cells, totals = arrays["cells"], arrays["totals"]
    writer = DroppedWriter(folder, COPIES)
    runs, nnz = [], result.nnz
    for path in result.runs:
        with Run(work / path) as run:
            obs = run.obs()
            place = np.searchsorted(doomed[:, 1], obs.column("source_row").to_numpy())
            place = np.minimum(place, len(doomed) - 1)
            gone = doomed[place, 1] == obs.column("source_row").to_numpy()
            if gone.any():
                copy_of = [f"{names[file]} row {row}" for file, row in doomed[place[gone]][:, 2:].tolist()]
                left_out = obs.filter(pa.array(gone))
                writer.append(table_of_obs(left_out, metrics, DUPLICATE_RULE, copy_of=copy_of))
                target = Path(path).parent / "unique" / Path(path).name
                nnz -= rewrite(run, ~gone, work / target, cells, totals)
                path = target.as_posix()
            if not gone.all():
                runs.append(path)
    writer.close()
    part = folder / "genes.part.npz"
    np.savez_compressed(part, cells=cells, totals=totals)
    part.replace(folder / "genes.npz")
    lost = result.lost | {DUPLICATE_RULE: len(doomed)}
    return replace(result, runs=runs, nnz=nnz, n_kept=result.n_kept - len(doomed), lost=lost)


def restore_scan(work: Path, number: int) -> None:
    """Undo an earlier removal of a file's copies."""
    folder = work / "scan" / f"{number:06d}"
    (folder / COPIES).unlink(missing_ok=True)
    if (folder / SCANNED_SUMS).exists():
        (folder / SCANNED_SUMS).replace(folder / "genes.npz")


def cells_to_drop(work: Path, number: int, parts: int) -> NDArray[np.int64]:
    """Return a file's cells to drop, by row: file number, row, and file number and row of an equal cell."""
    doomed = []
    for part in range(parts):
        drop = np.load(work / f"copies-{part:04d}.npy", mmap_mode="r")
        low, high = np.searchsorted(drop[:, 0], [number, number + 1])
        doomed.append(np.asarray(drop[low:high]))
    together = np.concatenate(doomed)
    return together[np.argsort(together[:, 1])]


def scanned_sums(folder: Path) -> Path:
    """Keep the scan's gene sums under another name; return it."""
    kept = folder / SCANNED_SUMS
    os.link(folder / "genes.npz", kept)
    return kept


def rewrite(
    run: Run, keep: NDArray[np.bool_], target: Path, cells: NDArray[np.int64], totals: NDArray[np.int64]
) -> int:
    """Write the kept rows of a run as another, in the same order; return how many entries were left out.

    The gene sums, ``cells`` and ``totals``, lose what the other rows had.
    """
    target.parent.mkdir(exist_ok=True)
    obs = run.obs()
    keys = np.column_stack([run.array("order"), run.array("hash")])
    writer = RunWriter(target, obs.schema)
    first, n_out, pending = 0, 0, []
    for block in run.blocks(0, run.n_rows):
        stop = block.first_row + len(block.row_starts) - 1
        lengths = np.diff(block.row_starts)
        kept = keep[block.first_row : stop]
        entries = np.repeat(kept, lengths)
        cells -= np.bincount(block.indices[~entries], minlength=len(cells))
        np.subtract.at(totals, block.indices[~entries], block.data[~entries].astype(np.int64))
        n_out += int((~entries).sum())
        pending.append((lengths[kept], block.indices[entries], block.data[entries].astype(np.uint32)))
        if stop == run.n_rows or sum(len(part[1]) for part in pending) >= FLUSH_ENTRIES:
            lengths, indices, data = (np.concatenate(parts) for parts in zip(*pending, strict=True))
            rows = first + np.flatnonzero(keep[first:stop])
            starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            writer.append(keys[rows], starts, indices, data, obs.take(pa.array(rows)))
            first, pending = stop, []
    writer.close()
    return n_out


def compare(context: Context, files: Sequence[FileFacts], results: Sequence[ScanResult]) -> list[ScanResult]:
    """Find cells that equal another one, and drop those that shall not be kept.

    Raises
    ------
    ConfigError
        No cell is left.
    """
    keep, work = context.keep_duplicates, context.work
    names = {number: file.source_file for number, file in enumerate(files)}
    np.save(work / "source_files.npy", np.array(list(names.values()), str))
    numbers, parts = [result.number for result in results], n_parts(sum(result.n_kept for result in results))
    tasks = [Task(find_copies, (work, numbers, part, parts, keep)) for part in range(parts)]
    context.summary.duplicates = report_copies(context.collect("compare", tasks, unit="part"), names, keep)
    if keep == "all" or not context.summary.duplicates["n_copies"]:
        for number in numbers:
            restore_scan(work, number)
        return list(results)
    return drop_copies(context, results, parts)


def drop_copies(context: Context, results: Sequence[ScanResult], parts: int) -> list[ScanResult]:
    """Make the runs of all files anew without the cells that shall not be kept."""
    tasks = [Task(remove_copies, (context.work, result, parts, context.qc.metrics)) for result in results]
    kept: list[ScanResult] = context.collect("drop copies", tasks, unit="file")
    context.summary.lost = total_lost(kept)
    if not any(result.n_kept for result in kept):
        raise ConfigError(f"keep_duplicates={context.keep_duplicates} leaves no cell: every cell equals another one")
    return kept
