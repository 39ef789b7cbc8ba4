"""The kept rows of one file in; runs sorted by order key, sums per gene and the cells' hashes out.

Rows are laid out in the universe's gene order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scvae_data.processing.scan.buffer import RowBuffer
from scvae_data.processing.scan.cell_hash import LEAST_GENES
from scvae_data.processing.scan.cells import FileCells, spooled_obs
from scvae_data.processing.scan.job import ScanJob
from scvae_data.processing.scan.metrics import join_metrics
from scvae_data.processing.settings.qc import Metrics
from scvae_data.processing.sort.gene_sums import save_sums
from scvae_data.processing.sort.obs_schema import ScannedCells
from scvae_data.processing.sort.packed import take_rows
from scvae_data.processing.sort.sorted_run import SortedRunWriter
from scvae_data.readers.base import CsrBlock

__all__ = ["SortedRuns"]

PIECE_ROWS = 1_000
"""Rows that are written at once."""


class SortedRuns:
    """The kept cells of one file: a run for every ``job.run_entries`` entries.

    Parameters
    ----------
    cells
        What the file says of its cells.
    gene_map
        Positions of the columns in the universe, int32, shape (n_vars,).
    number
        Position of the file among the inputs.
    source
        The file's path, for errors.
    """

    def __init__(self, job: ScanJob, cells: FileCells, gene_map: NDArray[np.int32], number: int, source: str) -> None:
        self.job, self.cells, self.gene_map, self.number = job, cells, gene_map, number
        self.paths: list[str] = []
        self.n_kept = 0
        self._folder = job.work.scan(number)
        self._hashes: list[NDArray[np.uint64]] = []
        self._buffer = RowBuffer(np.load(job.work.universe("hashes")), source)
        self._pending: list[Metrics] = []
        self._rows: list[NDArray[np.int64]] = []

    def append(self, block: CsrBlock, metrics: Metrics, keep: NDArray[np.bool_]) -> None:
        """Append the kept rows of a block."""
        if not keep.any():
            return
        lengths, hashes = self._buffer.append(block, keep, self.gene_map)
        kept = np.flatnonzero(keep)
        rows = block.first_row + kept
        deep = lengths >= LEAST_GENES
        self._hashes.append(np.column_stack([hashes[deep], rows[deep].astype(np.uint64)]))
        self._rows.append(rows)
        self._pending.append({name: values[kept] for name, values in metrics.items()})
        self.n_kept += len(rows)
        if self._buffer.n_entries >= self.job.run_entries:
            self._flush()

    def close(self, totals: NDArray[np.int64]) -> None:
        """Write the last run, the hashes and the gene sums, of which ``totals`` has the counts of each column."""
        self._flush()
        np.save(self._folder.hashes, np.concatenate(self._hashes) if self._hashes else np.empty((0, 3), np.uint64))
        of_genes = np.zeros(self.job.n_genes, np.int64)
        np.add.at(of_genes, self.gene_map, totals)
        sums = self._folder.gene_sums(without_copies=False)
        save_sums(sums, cells=self._buffer.cells.astype(np.int64), totals=of_genes)
        np.save(self._folder.rare, self._buffer.rare_rows())

    def _flush(self) -> None:
        """Sort what is buffered by order key and write it as a run."""
        if not self._pending:
            return
        self._write(np.concatenate(self._rows), join_metrics(self._pending))
        self._rows.clear()
        self._pending.clear()
        self._buffer.clear()

    def _write(self, rows: NDArray[np.int64], metrics: Metrics) -> None:
        """Write the buffered cells in order of their keys."""
        order = self.job.order
        accessions, names = self.cells.accessions[rows], self.cells.names(rows)
        origins = self.cells.origins
        numbers = np.full(len(rows), self.number) if origins is None else origins[rows, 0]
        # A cell keeps its place and its side of a split, whatever directory it goes through.
        hashes = order.hashes(accessions, rows if origins is None else origins[rows, 1], names)
        keys = order.keys(hashes, self.number, rows, self.cells.groups(order.group_column, rows))
        sorting = np.lexsort((hashes[:, 1], keys))
        row_keys = np.column_stack([keys, hashes[:, 1]])[sorting]
        rows, metrics = rows[sorting], {name: values[sorting] for name, values in metrics.items()}
        cells = ScannedCells(rows, metrics, accessions[sorting], row_keys[:, 1])
        own = self.cells.obs.take(rows)
        obs = spooled_obs(cells, names[sorting], numbers[sorting].astype(np.int32), own)
        path = self._folder.sorted_run(len(self.paths))
        writer = SortedRunWriter(path, obs.schema, self.job.n_genes)
        (starts, packed), sums = self._buffer.packed(), self._buffer.row_sums()
        for first in range(0, len(sorting), PIECE_ROWS):
            part = slice(first, first + PIECE_ROWS)
            rows_of = sorting[part]
            writer.append(row_keys[part], *take_rows(starts, packed, rows_of), obs[part], sums=sums[rows_of])
        writer.close()
        self.paths.append(path.relative_to(self.job.work.path).as_posix())
