"""Hashes of all kept cells in; the cells that equal another, and which of them are dropped, out.

Only cells with `LEAST_GENES` genes or more are compared: shallow cells are
equal by chance. The hashes of all files are brought into one order once, a
group of files at a time, and compared in parts, each a range of them: neither
memory nor what is read for a cell grows with the number of cells. What the
scans left stays as it is: cells to drop are listed beside it, and left out
wherever rows are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.processing.engine.task import Task
from scvae_data.processing.facts import FileScan
from scvae_data.processing.run.context import Context
from scvae_data.processing.scan.cell_hash import LEAST_GENES
from scvae_data.processing.scan.stage import Scanned
from scvae_data.processing.sort.gene_sums import load_sums, save_sums
from scvae_data.processing.sort.sorted_run import SortedRun
from scvae_data.processing.sort.totals import copies_in
from scvae_data.processing.work import WorkFolder

__all__ = [
    "DUPLICATE_RULE",
    "Compared",
    "compare_cells",
    "deal_hashes",
    "find_copies",
    "groups_of",
    "leave_copies_out",
    "n_parts",
    "pairs_of",
]

DUPLICATE_RULE = "duplicate"
PART_CELLS = 2_000_000
GROUP_CELLS = 500_000
HASHES = 2**64
MAX_PAIRS = 10_000


@dataclass(frozen=True)
class Compared:
    """What is known once all cells are compared.

    Parameters
    ----------
    scans
        Of all files, without the cells that are dropped as copies.
    account
        What ``chunk_summary.json`` says about equal cells.
    """

    scans: list[FileScan]
    account: dict[str, Any]


def compare_cells(context: Context, scanned: Scanned) -> Compared:
    """Find cells that equal another one, and leave those out that shall not be kept.

    Raises
    ------
    ConfigError
        No cell is left.
    """
    keep, work, scans = context.settings.keep_duplicates, context.work, scanned.scans
    groups, parts = groups_of(scans), n_parts(sum(scan.n_kept for scan in scans))
    tasks = [Task(deal_hashes, (work, number, [scan.number for scan in group])) for number, group in enumerate(groups)]
    context.collect("sort hashes", tasks, unit="group")
    tasks = [Task(find_copies, (work, len(groups), part, parts, keep)) for part in range(parts)]
    names = {scan.number: scan.source_file for scan in scans}
    account = report_copies(context.collect("compare", tasks, unit="part"), names, keep)
    if keep == "all" or not account["n_copies"]:
        return Compared(list(scans), account)
    tasks = [Task(leave_copies_out, (work, group, parts)) for group in groups]
    left: list[FileScan] = [scan for group in context.collect("drop copies", tasks, unit="group") for scan in group]
    if not any(scan.n_kept for scan in left):
        raise ConfigError(f"keep_duplicates={keep} leaves no cell: every cell equals another one")
    return Compared(left, account)


def groups_of(scans: Sequence[FileScan]) -> list[list[FileScan]]:
    """Cut the files, in their order, into groups that hold at least `GROUP_CELLS` kept cells, all but the last."""
    groups: list[list[FileScan]] = [[]]
    n_cells = 0
    for scan in scans:
        if n_cells >= GROUP_CELLS:
            groups.append([])
            n_cells = 0
        groups[-1].append(scan)
        n_cells += scan.n_kept
    return groups


def n_parts(n_obs: int) -> int:
    """Return in how many parts so many cells are compared."""
    return n_obs // PART_CELLS + 1


def deal_hashes(work: WorkFolder, group: int, numbers: Sequence[int]) -> None:
    """Store the hashes of a group of files in order: both halves, file number and row of each cell; uint64, (4, n)."""
    tables = [np.load(work.scan(number).hashes) for number in numbers]
    files = np.repeat(np.array(numbers, np.uint64), [len(table) for table in tables])
    first, second, rows = np.concatenate(tables).T
    order = np.argsort(first)
    work.hashes(group).parent.mkdir(exist_ok=True)
    np.save(work.hashes(group), np.stack([column[order] for column in (first, second, files, rows)]))


def find_copies(work: WorkFolder, n_groups: int, part: int, parts: int, keep: str) -> dict[str, Any]:
    """Find the equal cells among those whose hash falls into one part.

    The first of equal cells is the one with the lowest file number and row;
    each other is a copy of it. Stores which cells ``keep`` drops.

    Parameters
    ----------
    n_groups
        How many groups of files `deal_hashes` brought into order.
    keep
        ``"all"``, ``"first"`` or ``"none"`` of equal cells.

    Returns
    -------
    How many first cells and copies there are; per pair of files (of the
    first cell and of the copy) the number of copies and the rows of one.
    """
    table = np.concatenate([hashes_of(work, group, part, parts) for group in range(n_groups)], axis=1).T
    files, rows = table[:, 2].astype(np.int64), table[:, 3].astype(np.int64)
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
    np.save(work.copies(part), np.ascontiguousarray(drop[np.lexsort((drop[:, 1], drop[:, 0]))].T))
    return {"n_first": len(np.unique(first[copies])), "n_copies": len(copies), "pairs": pairs_of(found)}


def hashes_of(work: WorkFolder, group: int, part: int, parts: int) -> NDArray[np.uint64]:
    """Return what `deal_hashes` stored of a group in one of equal ranges of hashes."""
    dealt: NDArray[np.uint64] = np.load(work.hashes(group), mmap_mode="r")
    low = np.searchsorted(dealt[0], np.uint64(HASHES * part // parts))
    high = None if part + 1 == parts else np.searchsorted(dealt[0], np.uint64(HASHES * (part + 1) // parts))
    return np.array(dealt[:, low:high])  # not a view: pages of the file that were looked at go with the mapping


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


def leave_copies_out(work: WorkFolder, scans: Sequence[FileScan], parts: int) -> list[FileScan]:
    """List the cells to drop of each file of a group, and take their counts out of the file's gene sums."""
    numbers = [scan.number for scan in scans]
    doomed = cells_to_drop(work, numbers[0], numbers[-1], parts)
    borders = np.searchsorted(doomed[:, 0], np.add.outer([0, 1], numbers))
    return [without_copies(work, scan, doomed[low:high, 1:]) for scan, low, high in zip(scans, *borders, strict=True)]


def cells_to_drop(work: WorkFolder, first: int, last: int, parts: int) -> NDArray[np.int64]:
    """Return the cells to drop of files by number, in order: file, row, and file and row of an equal cell; (n, 4).

    A cell that equals several is named with the first.
    """
    doomed = []
    for part in range(parts):
        drop = np.load(work.copies(part), mmap_mode="r")
        low, high = np.searchsorted(drop[0], [first, last + 1])
        doomed.append(np.asarray(drop[:, low:high]))
    together: NDArray[np.int64] = np.concatenate(doomed, axis=1).T
    together = together[np.lexsort((together[:, 1], together[:, 0]))]
    return together[np.diff(together[:, :2], axis=0, prepend=-1).any(axis=1)]


def without_copies(work: WorkFolder, scan: FileScan, doomed: NDArray[np.int64]) -> FileScan:
    """List a file's cells to drop, and take their counts out of its gene sums."""
    if not len(doomed):
        return scan
    folder = work.scan(scan.number)
    np.save(folder.copies, doomed)
    left = replace(
        scan, n_copies=len(doomed), n_kept=scan.n_kept - len(doomed), lost=scan.lost | {DUPLICATE_RULE: len(doomed)}
    )
    cells, totals = load_sums(folder.gene_sums(without_copies=False), "cells", "totals")
    for spooled in left.sorted_runs:
        with SortedRun(work.path / spooled.path) as run:
            gone = copies_in(work, spooled, run.obs())
            where = np.flatnonzero(gone)
            for block in run.blocks(int(where[0]), int(where[-1]) + 1) if len(where) else ():
                entries = np.repeat(gone[block.first_row : block.first_row + block.n_rows], np.diff(block.indptr))
                cells -= np.bincount(block.indices[entries], minlength=len(cells))
                np.subtract.at(totals, block.indices[entries], block.data[entries].astype(np.int64))
    save_sums(folder.gene_sums(without_copies=True), cells=cells, totals=totals)
    return left
