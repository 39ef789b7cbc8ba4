"""One input file in; sorted runs of its kept cells, gene sums and an account of every cell out.

The file is decoded once. Every value is checked, every cell measured and
judged, and the kept rows are laid out in the universe's gene order, sorted
by their order key and spooled. A file whose first choice of counts holds
other values is scanned slot by slot, until one holds counts.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.processing.engine.workers import release_memory
from scvae_data.processing.facts import FileScan, InputFacts, SlotFacts
from scvae_data.processing.scan.cells import read_cells
from scvae_data.processing.scan.experiments import Experiments
from scvae_data.processing.scan.job import MappedGenes, ScanJob, table_genes
from scvae_data.processing.scan.metrics import NotCounts, add_columns, cell_metrics, checked, species_share
from scvae_data.processing.scan.qc_filter import OutlierBounds, QcFilter, find_bounds
from scvae_data.processing.scan.rows import SortedRuns
from scvae_data.processing.scan.stored import stored_cells
from scvae_data.processing.settings.gene_classes import GENE_CLASSES
from scvae_data.processing.settings.qc import SCORE, SPECIES_METRIC, Metrics
from scvae_data.processing.sort.gene_sums import save_sums
from scvae_data.processing.sort.obs_schema import our_columns
from scvae_data.processing.survey.file import fingerprint
from scvae_data.readers.base import CsrBlock, LayeredReader, Reader
from scvae_data.readers.recognise import open_reader
from scvae_data.remote.fetched import fetched
from scvae_data.remote.location import is_remote, location
from scvae_data.store import FORMAT_VERSION
from scvae_data.store.files import read_note, write_note

if TYPE_CHECKING:
    from scvae_data.processing.scan.doublets import Doublets

__all__ = ["SlotScan", "scan_file"]

# Raised where what a scan leaves changes: results of another version are made again.
SPOOL_VERSION = 10


def scan_file(job: ScanJob, file: InputFacts, number: int, rank: int, meanings: Sequence[str]) -> FileScan:
    """Scan one file, or return the result of an earlier scan with the same key.

    Parameters
    ----------
    number
        Position of the file among the inputs.
    rank
        Position among the files of its accession: tells their cells' names apart.
    meanings
        For each slot of the file a hash of what its columns are in the universe.

    Raises
    ------
    InputError
        No slot holds counts; names the first offending value of each.
    """
    folder = job.work.scan(number)
    key = scan_key(file, job, rank, meanings)
    earlier = read_note(folder.done)
    if earlier.get("key") == key:
        return FileScan(**earlier["result"])
    shutil.rmtree(folder.path, ignore_errors=True)
    folder.path.mkdir(parents=True)
    started = time.perf_counter()
    evidence: list[str] = []
    with on_this_machine(job, file) as here, open_reader(here, job.opening) as reader:
        wanted = "counts in X, raw.X or layers['counts']" if isinstance(reader, LayeredReader) else "raw counts"
        for slot in sorted(file.slots, key=lambda slot: slot != file.slot):
            genes = table_genes(job.work, slot.table, meanings[file.slots.index(slot)])
            try:
                scan = SlotScan(job, file, reader, slot, genes, number, rank).run()
            except NotCounts as fault:
                evidence.append(f"{slot.name}: {fault}")
                reason = fault.reason
                continue
            scan = replace(scan, evidence=evidence, seconds=time.perf_counter() - started)
            # Not synced: that would wait for what others write.
            write_note(folder.done, {"key": key, "result": asdict(scan)}, sorted(folder.path.iterdir()))
            return scan
    raise InputError(
        file.path,
        reason,
        f"no raw counts: {'; '.join([*evidence, *filter(None, [file.others])])}. Give a file with {wanted}",
    )


@contextmanager
def on_this_machine(job: ScanJob, file: InputFacts) -> Iterator[Path]:
    """The input, or a copy of a remote one; refuses one that is not what the survey saw."""
    if job.scratch is None or not is_remote(file.path):
        refuse_changed(Path(file.path), file)
        yield Path(file.path)
        return
    with fetched(location(file.path), job.scratch) as here:
        refuse_changed(here, file)
        yield here


def refuse_changed(here: Path, file: InputFacts) -> None:
    """Refuse a file that is not what the survey saw: its columns would be counted as other genes."""
    if fingerprint(here) != file.fingerprint:
        raise InputError(here, "changed", "was changed since its headers were read; resume=true reads it anew")


def scan_key(file: InputFacts, job: ScanJob, rank: int, meanings: Sequence[str]) -> str:
    """Hash everything a scan's result depends on."""
    parts = [
        SPOOL_VERSION, FORMAT_VERSION, asdict(file), job.qc, job.control, job.order, job.obs_columns, job.run_entries,
        job.count_tolerance, job.numeric_columns, job.missing_labels, job.obs_table, job.cell_metadata, job.obs_names,
        job.where, job.origins, meanings, rank,
        [(column.name, column.dtype) for column in our_columns("scan")],
        [(one.name, one.prefixes, sorted(one.symbols), sorted(one.ids)) for one in GENE_CLASSES],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps([repr(part) for part in parts]).encode()).hexdigest()


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
        file: InputFacts,
        reader: Reader,
        slot: SlotFacts,
        genes: MappedGenes,
        number: int,
        rank: int,
    ) -> None:
        self.job, self.file, self.reader, self.slot, self.genes, self.number = job, file, reader, slot, genes, number
        self.tops = sorted(set(job.qc.percent_top))
        self.cells = stored_cells(job, file, reader) if file.is_chunk else read_cells(job, file, reader, number, rank)
        self.filter = QcFilter(job.qc, self.cells, job.work.scan(number).dropped)
        self.runs = SortedRuns(job, self.cells, genes.gene_map, number, file.path)
        release_memory()  # what reading names and obs left, before the rows come on top

    def run(self) -> FileScan:
        """Stream the slot's rows; raises `NotCounts` at the first value that is none."""
        if self.job.qc.outlier_metrics:
            self.filter.bounds = self._find_bounds()
        doublets = self._find_doublets()
        # Those of a chunk go on in others: what is known of them is in the directory that it is of.
        experiments = None if self.file.is_chunk else Experiments(self.cells, self.genes.gene_map, self.job.n_genes)
        totals = np.zeros((2, len(self.genes.names)), np.int64)
        for whole in self._checked_blocks():
            block, metrics = self._measured(whole)
            if doublets:
                rows = slice(block.first_row, block.first_row + block.n_rows)
                metrics = doublets.join(metrics, rows, self.cells)
            keep = self.filter.keep(block.first_row, metrics)
            add_columns(whole.indptr, whole.indices, whole.data, keep, totals)
            self.runs.append(block, metrics, keep)
            if experiments:
                experiments.append(whole, block, metrics, keep)
        self.runs.close(totals[1, self.genes.kept.keep])
        self.filter.close()
        folder = self.job.work.scan(self.number)
        if experiments:
            experiments.save_empty(folder.empty)
        save_sums(folder.column_totals, counts=totals.sum(axis=0))
        return FileScan(
            number=self.number,
            source_file=self.file.source_file,
            slot=self.slot.name,
            table=self.slot.table,
            n_obs=self.reader.n_obs,
            n_kept=self.runs.n_kept,
            lost=self.filter.lost,
            obs_kinds=self.cells.obs.kinds,
            unmatched=self.cells.unmatched,
            written_missing=self.cells.obs.written_missing,
            n_renamed=self.cells.n_renamed,
            runs=self.runs.paths,
            experiments=experiments.facts(self.filter.lost_by_experiment, doublets) if experiments else [],
            bounds=[asdict(bound) for bound in self.filter.bounds if bound.metric != SCORE],
        )

    def _find_doublets(self) -> Doublets | None:
        """Score the cells that pass all other rules, and make the thresholds bounds of the filter."""
        job = self.job
        if job.qc.doublets == "none":
            return None
        from scvae_data.processing.scan.doublets import find_doublets  # here: scipy takes long to import

        others = QcFilter(replace(job.qc, doublets="none"), self.cells, self.filter.dropped.path)
        others.bounds = self.filter.bounds

        def kept_rows() -> Iterator[tuple[CsrBlock, NDArray[np.bool_]]]:
            for block, metrics in map(self._measured, self._checked_blocks()):
                yield block, others.judge(block.first_row, metrics)[1] == 0

        doublets = find_doublets(self.cells, kept_rows, job.order.seed)
        self.filter.bounds = [*self.filter.bounds, *doublets.bounds]
        return doublets

    def _checked_blocks(self) -> Iterator[CsrBlock]:
        """Return the slot's rows, checked, block by block."""
        blocks = self.reader.blocks(self.slot.name, max_elements=self.job.block_entries)
        return map(partial(checked, genes=self.genes, tolerance=self.job.count_tolerance), blocks)

    def _measured(self, whole: CsrBlock) -> tuple[CsrBlock, Metrics]:
        """Return rows without the columns that are no genes, and their metrics."""
        block = self.genes.kept.apply(whole)
        if self.cells.metrics is not None:
            rows = slice(block.first_row, block.first_row + block.n_rows)
            return block, {name: values[rows] for name, values in self.cells.metrics.items()}
        metrics = cell_metrics(block, self.genes, self.tops)
        if self.job.qc.species:
            metrics[SPECIES_METRIC] = species_share(whole, self.genes.species)
        return block, metrics

    def _find_bounds(self) -> list[OutlierBounds]:
        """Measure all rows before any is judged, and return the bounds of each accession."""
        qc, measured = self.job.qc, []
        for block, metrics in map(self._measured, self._checked_blocks()):
            cells = np.flatnonzero(qc.passes_minima(metrics))
            of_cells = {metric: metrics[metric][cells] for metric in qc.outlier_metrics}
            measured.append(pd.DataFrame(of_cells, index=block.first_row + cells))
        together = pd.concat(measured)
        accessions = self.cells.accessions[together.index.to_numpy()]
        return find_bounds(together, accessions, qc.outlier_metrics, qc.mad_scale)
