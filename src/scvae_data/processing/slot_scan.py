"""One slot of one file in; sorted runs of its kept cells, gene sums and an account of every cell out.

Outlier rules need all metrics of a file before any cell is judged: the file
is then decoded twice. Spooling first and judging later would save that
decode, but runs would hold cells that are not kept, and every later stage
would have to know; the second decode costs nothing to those who do not ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

import numpy as np
import pandas as pd

from scvae_data.processing.cells import read_cells
from scvae_data.processing.judge import Judge
from scvae_data.processing.measure import checked, measure
from scvae_data.processing.memory import release_memory
from scvae_data.processing.outliers import OutlierBounds, find_bounds
from scvae_data.processing.scan_job import ScanJob, TableGenes
from scvae_data.processing.scan_result import ScanResult
from scvae_data.processing.sorted_runs import SortedRuns
from scvae_data.processing.survey import FileFacts, SlotFacts
from scvae_data.readers import CsrBlock, Reader

__all__ = ["SlotScan"]


class SlotScan:
    """The scan of one slot of one file.

    Parameters
    ----------
    genes
        What is known about the slot's columns.
    number
        Position of the file among the inputs.
    rank
        Position among the files of its accession.
    """

    def __init__(
        self,
        job: ScanJob,
        file: FileFacts,
        reader: Reader,
        slot: SlotFacts,
        genes: TableGenes,
        number: int,
        rank: int,
    ) -> None:
        self.job, self.file, self.reader, self.slot, self.genes, self.number = job, file, reader, slot, genes, number
        self.tops = sorted(set(job.qc.percent_top))
        self.cells = read_cells(job, file, reader, rank)
        self.judge = Judge(job.qc, self.cells, job.target(number))
        self.runs = SortedRuns(job, self.cells, genes.gene_map, number, file.path)
        release_memory()  # what reading names and obs left, before the rows come on top

    def run(self) -> ScanResult:
        """Stream the slot's rows; raises `NotCounts` at the first value that is none."""
        if self.job.qc.outlier_metrics:
            self.judge.bounds = self._find_bounds()
        for block in self._blocks():
            metrics = measure(block, self.genes, self.tops)
            self.runs.append(block, metrics, self.judge.keep(block.first_row, metrics))
        self.runs.close()
        self.judge.close()
        return ScanResult(
            number=self.number,
            source_file=self.file.source_file,
            slot=self.slot.name,
            table=self.slot.table,
            species=list(self.slot.species),
            evidence=[],
            n_obs=self.reader.n_obs,
            n_kept=self.runs.n_kept,
            nnz=self.runs.nnz,
            lost=self.judge.lost,
            obs_kinds=self.cells.obs.kinds,
            runs=self.runs.paths,
            bounds=[asdict(bound) for bound in self.judge.bounds],
        )

    def _blocks(self) -> Iterator[CsrBlock]:
        """Return the slot's rows, checked, block by block."""
        blocks = self.reader.blocks(self.slot.name, max_elements=self.job.block_entries)
        return map(partial(checked, genes=self.genes, tolerance=self.job.count_tolerance), blocks)

    def _find_bounds(self) -> list[OutlierBounds]:
        """Measure all rows before any is judged, and return the bounds of each accession."""
        qc, measured = self.job.qc, []
        for block in self._blocks():
            metrics = measure(block, self.genes, self.tops).set_index(block.first_row + np.arange(block.n_rows))
            measured.append(metrics.loc[qc.passes_minima(metrics), list(qc.outlier_metrics)])
        together = pd.concat(measured)
        accessions = self.cells.accessions[together.index.to_numpy()]
        return find_bounds(together, accessions, qc.outlier_metrics, qc.mad_scale)
