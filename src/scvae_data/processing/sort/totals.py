"""One run and the kept genes in; the total of every row beside the run, and sums over its rows out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from scvae_data.processing.sort.kernels import row_totals
from scvae_data.processing.sort.obs_schema import distinct_values
from scvae_data.processing.sort.sorted_run import Run

__all__ = ["RunTotals", "median_total", "total_run"]


@dataclass(frozen=True)
class RunTotals:
    """What one pass over a run says about its rows and the kept genes.

    Parameters
    ----------
    n_rows, n_dropped
        Rows; those without a count in a kept gene.
    totals
        How many rows have which total (over the genes that the size factor runs over).
    values
        Distinct texts of each text column over the rows that stay, up to `MAX_CATEGORIES`.
    files
        Numbers of the files that some row which stays came from.
    """

    path: str
    n_rows: int
    nnz: int
    n_dropped: dict[int, int]
    max_count: int
    totals: dict[int, int]
    values: dict[str, list[str]]
    files: list[int]

    @property
    def n_staying(self) -> int:
        """Number of rows with a count in a kept gene."""
        return self.n_rows - sum(self.n_dropped.values())


def total_run(work: Path, path: str, kept_file: str, text_columns: Sequence[str], over_all_genes: bool) -> RunTotals:
    """Compute every row's total over the kept genes, store it beside the run, and sum up."""
    kept = np.load(work / kept_file)
    with Run(work / path) as run:
        totals, lengths = np.zeros(run.n_rows, np.int64), np.zeros(run.n_rows, np.int32)
        largest = 0
        for block in run.blocks(0, run.n_rows):
            rows = slice(block.first_row, block.first_row + len(block.row_starts) - 1)
            largest = max(
                largest, row_totals(block.row_starts, block.indices, block.data, kept, totals[rows], lengths[rows])
            )
        run.write_totals(totals, lengths)
        obs = run.obs()
        live = pa.array(totals > 0)
        staying = obs.filter(live)
        dropped = obs.column("file_number").to_numpy()[totals == 0]
        basis = staying.column("total_counts").to_numpy() if over_all_genes else totals[totals > 0]
        distinct, counts = np.unique(basis, return_counts=True)
        return RunTotals(
            path=path,
            n_rows=run.n_rows,
            nnz=int(lengths.sum()),
            n_dropped=dict(Counter(dropped.tolist())),
            max_count=largest,
            totals=dict(zip(distinct.tolist(), counts.tolist(), strict=True)),
            values={name: distinct_values(staying, name) for name in text_columns},
            files=np.unique(staying.column("file_number").to_numpy()).tolist(),
        )


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
