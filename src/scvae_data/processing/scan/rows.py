"""The kept rows of one file in; runs sorted by order key, sums per gene and the cells' hashes out.

Rows are laid out in the universe's gene order.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from scvae_data.processing.scan.cell_hash import LEAST_GENES, hash_rows
from scvae_data.processing.scan.cells import FileCells, spooled_obs
from scvae_data.processing.scan.job import ScanJob
from scvae_data.processing.sort.buffer import RowBuffer
from scvae_data.processing.sort.obs_schema import ScannedCells
from scvae_data.processing.sort.sorted_run import SortedRunWriter
from scvae_data.readers.base import CsrBlock

__all__ = ["SortedRuns"]

PIECE_ENTRIES = 1_000_000


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
        self.job, self.cells, self.gene_map, self.number, self.source = job, cells, gene_map, number, source
        self.paths: list[str] = []
        self.n_kept = 0
        self._folder = job.work.scan(number)
        self._key_hashes = np.load(job.work.universe("hashes"))
        self._hashes: list[NDArray[np.uint64]] = []
        self._buffer = RowBuffer(job.run_entries, job.n_genes)
        self._pending: list[pd.DataFrame] = []
        self._gene_cells = np.zeros(job.n_genes, np.int64)
        self._gene_totals = np.zeros(job.n_genes, np.int64)

    def append(self, block: CsrBlock, metrics: pd.DataFrame, keep: NDArray[np.bool_]) -> None:
        """Append the kept rows of a block."""
        for rows in self._buffer.pieces(block.indptr, keep):
            if not self._buffer.fits(int(block.indptr[rows.stop] - block.indptr[rows.start])):
                self._flush()
            part = keep[rows]
            self._buffer.append(block, rows, part, self.gene_map, self._gene_cells, self._gene_totals, self.source)
            kept = metrics.iloc[rows][part]
            self._pending.append(kept.set_index(block.first_row + rows.start + np.flatnonzero(part)))
            self.n_kept += len(kept)

    def close(self) -> None:
        """Write the last run, the hashes and the gene sums."""
        self._flush()
        np.save(self._folder.hashes, np.concatenate(self._hashes) if self._hashes else np.empty((0, 3), np.uint64))
        sums = self._folder.gene_sums(without_copies=False)
        np.savez_compressed(sums, cells=self._gene_cells, totals=self._gene_totals)

    def _flush(self) -> None:
        """Sort what is buffered by order key and write it as a run."""
        if not self._pending:
            return
        metrics = pd.concat(self._pending)
        self._hashes.append(self._hash(metrics.index.to_numpy()))
        self._write(metrics)
        self._pending.clear()
        self._buffer.clear()

    def _hash(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return both halves of the hash, and the source row, of those buffered cells that are compared; (n, 3)."""
        starts, indices, data = self._buffer.rows()
        hashes = np.empty((len(rows), 2), np.uint64)
        hash_rows(starts, indices, data, self._key_hashes, hashes)
        deep = np.diff(starts) >= LEAST_GENES
        return np.column_stack([hashes[deep], rows[deep].astype(np.uint64)])

    def _write(self, metrics: pd.DataFrame) -> None:
        """Write the buffered cells in order of their keys."""
        rows, order = metrics.index.to_numpy(), self.job.order
        accessions, names = self.cells.accessions[rows], self.cells.names(rows)
        origins = self.cells.origins
        numbers = np.full(len(rows), self.number) if origins is None else origins[rows, 0]
        # A cell keeps its place and its side of a split, whatever directory it goes through.
        hashes = order.hashes(accessions, rows if origins is None else origins[rows, 1], names)
        keys = order.keys(hashes, self.number, rows, self.cells.groups(order.group_column, rows))
        sorting = np.lexsort((hashes[:, 1], keys))
        cells = ScannedCells(metrics, accessions, hashes[:, 1])
        obs = spooled_obs(cells, names, numbers.astype(np.int32), self.cells.obs.take(rows))
        path = self._folder.sorted_run(len(self.paths))
        writer = SortedRunWriter(path, obs.schema, self.job.n_genes)
        for part in np.array_split(sorting, max(1, -(-self._buffer.n_entries // PIECE_ENTRIES))):
            starts, indices, data = self._buffer.take(part)
            writer.append(
                np.column_stack([keys[part], hashes[part, 1]]), starts, indices, data, obs.take(pa.array(part))
            )
        writer.close()
        self.paths.append(path.relative_to(self.job.work.path).as_posix())
