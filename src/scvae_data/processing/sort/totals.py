"""One sorted run and the kept genes in; the total of every row beside the run, and sums over its rows out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scvae_data.processing.engine.task import Task
from scvae_data.processing.facts import SpooledRun
from scvae_data.processing.sort.gene_sums import load_sums
from scvae_data.processing.sort.obs_schema import distinct_values
from scvae_data.processing.sort.packed import total_rows
from scvae_data.processing.sort.sorted_run import RARE_CELLS, SUMS, SortedRun
from scvae_data.processing.work import WorkFolder

__all__ = ["RunTotals", "SpooledRows", "copies_in", "median_total", "total_run"]

FAR_ROWS = 50
"""So many rows are passed over sooner than read."""


@dataclass(frozen=True)
class SpooledRows:
    """The kept rows of all files, and who passes over them.

    Parameters
    ----------
    kinds
        Kind of each of the inputs' obs columns, as in `ObsSchema`.
    identity
        Hash of the settings and inputs.
    collect
        Runs tasks and returns their results in order.
    """

    work: WorkFolder
    runs: Sequence[SpooledRun]
    kinds: Mapping[str, str]
    identity: str
    collect: Callable[[str, Sequence[Task], str], list[Any]]

    def totals(
        self, desc: str, genes: Path, text_columns: Mapping[str, str], *, over_all_genes: bool
    ) -> list[RunTotals]:
        """Compute the totals of all rows over some genes, see `total_run`."""
        tasks = [Task(total_run, (self.work, run, genes, text_columns, over_all_genes)) for run in self.runs]
        return self.collect(desc, tasks, "run")


@dataclass(frozen=True)
class RunTotals:
    """What one pass over a sorted run says about its rows and the kept genes; copies that are dropped do not count.

    Parameters
    ----------
    n_rows, n_staying
        Rows; those with a count in a kept gene.
    max_count
        Largest count of a kept gene.
    totals
        How many rows have which total (over the genes that the size factor runs over).
    values
        Distinct texts of each text column over the rows that stay, up to `MAX_CATEGORIES`.
    files
        Numbers of the files that some row which stays came from.
    """

    path: str
    n_rows: int
    n_staying: int
    max_count: int
    totals: dict[int, int]
    values: dict[str, list[str]]
    files: list[int]


def total_run(
    work: WorkFolder, spooled: SpooledRun, genes: Path, text_columns: Mapping[str, str], over_all_genes: bool
) -> RunTotals:
    """Find every row's total over the kept genes, store it beside the run, and sum up.

    The scan knows the totals over all genes; rows that have others than the kept ones are added up again. A row of
    total 0 is not written out: it has no count in a kept gene, or is a copy that is dropped.

    Parameters
    ----------
    text_columns
        The columns whose distinct texts are wanted, and their kinds in the directory.
    """
    kept = np.load(genes)
    with SortedRun(work.path / spooled.path) as run:
        obs = run.obs()
        alive = ~copies_in(work, spooled, obs)
        totals, lengths, largest = (run.array(name) * alive for name in SUMS)
        wanted = alive & has_others(work, spooled, obs, kept)
        for span in spans(wanted):
            for first, starts, packed in run.packed(span.start, span.stop):
                rows = slice(first, first + len(starts) - 1)
                total_rows(starts, packed, wanted[rows], kept, totals[rows], lengths[rows], largest[rows])
        run.write_totals(totals, lengths)
    staying = obs.filter(pa.array(totals > 0))
    basis = staying.column("total_counts").to_numpy() if over_all_genes else totals[totals > 0]
    distinct, counts = np.unique(basis, return_counts=True)
    return RunTotals(
        path=spooled.path,
        n_rows=int(alive.sum()),
        n_staying=len(staying),
        max_count=int(largest.max(initial=0)),
        totals=dict(zip(distinct.tolist(), counts.tolist(), strict=True)),
        values={name: distinct_values(staying, name, kind) for name, kind in text_columns.items()},
        files=np.unique(staying.column("file_number").to_numpy()).tolist(),
    )


def has_others(work: WorkFolder, spooled: SpooledRun, obs: pa.Table, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which rows of a sorted run have a gene that is not kept; all of them where such a gene is not rare."""
    folder = work.scan(spooled.file)
    (cells,) = load_sums(folder.gene_sums(without_copies=False), "cells")
    if (cells[~kept] > RARE_CELLS).any():
        return np.ones(len(obs), bool)
    rare = (cells > 0) & (cells <= RARE_CELLS)
    rows = np.load(folder.rare)[np.repeat(~kept[rare], cells[rare])]
    return np.isin(obs.column("source_row").to_numpy(), rows)


def spans(wanted: NDArray[np.bool_]) -> list[slice]:
    """Return where the wanted rows lie, those with few others between them together."""
    rows = np.flatnonzero(wanted)
    parts = np.split(rows, np.flatnonzero(np.diff(rows) > FAR_ROWS) + 1) if len(rows) else []
    return [slice(int(part[0]), int(part[-1]) + 1) for part in parts]


def copies_in(work: WorkFolder, spooled: SpooledRun, obs: pa.Table) -> NDArray[np.bool_]:
    """Return which rows of a sorted run are copies that are dropped, shape (n_rows,)."""
    if not spooled.has_copies:
        return np.zeros(len(obs), bool)
    return np.isin(obs.column("source_row").to_numpy(), np.load(work.scan(spooled.file).copies)[:, 0])


def median_total(histograms: Sequence[Mapping[int, int]]) -> float:
    """Return the exact median of totals from how often each occurs; the mean of the middle two where even."""
    merged: Counter[int] = Counter()
    for histogram in histograms:
        merged.update(histogram)
    values = np.array(sorted(merged), np.int64)
    ends = np.cumsum([merged[int(value)] for value in values])
    n = int(ends[-1])
    low, high = (values[np.searchsorted(ends, position, side="right")] for position in ((n - 1) // 2, n // 2))
    return float((int(low) + int(high)) / 2)
