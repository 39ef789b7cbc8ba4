"""One input file in; sorted runs of its kept cells, gene sums and an account of every cell out.

The file is decoded once. Every value is checked, every cell measured and
judged, and the kept rows are laid out in the universe's gene order, sorted
by their order key and spooled.

Outlier rules need all metrics of a file before any cell is judged: the file
is then decoded twice. Spooling first and judging later would save that
decode, but runs would hold cells that are not kept, and every later stage
would have to know; the second decode costs nothing to those who do not ask.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.hdf5_guard import DEFAULT_LIMITS, Limits
from scvae_data.processing.control import ControlSubset
from scvae_data.processing.dropped import DroppedWriter, dropped_table
from scvae_data.processing.duplicates import LEAST_GENES, save_hashes
from scvae_data.processing.kernels import FAULTS, first_fault, row_sums
from scvae_data.processing.memory import release_memory
from scvae_data.processing.names import cell_names
from scvae_data.processing.obs import input_obs, measured_obs
from scvae_data.processing.order import OrderKey
from scvae_data.processing.outliers import OutlierBounds, bounds_of_rows, find_bounds
from scvae_data.processing.qc import GENE_CLASSES, QcRules, RowSums, gene_class_flags, qc_metrics
from scvae_data.processing.row_buffer import RowBuffer
from scvae_data.processing.row_hash import hash_rows
from scvae_data.processing.scan_result import ScanResult
from scvae_data.processing.spool import RunWriter
from scvae_data.processing.survey import ACCESSION_COLUMNS, FileFacts, SlotFacts, load_table
from scvae_data.readers import CsrBlock, Reader, open_reader
from scvae_data.store import FORMAT_VERSION
from scvae_data.store.files import read_json, write_json

__all__ = ["ScanJob", "ScanResult", "scan_file"]

# Raised where what a scan leaves changes: results of another version are made again.
SPOOL_VERSION = 2


@dataclass(frozen=True)
class ScanJob:
    """What a scan needs besides the file.

    Parameters
    ----------
    work
        The run's work folder; holds gene tables and their maps.
    n_genes
        Size of the universe.
    obs_columns
        Input obs columns to keep; None keeps all.
    count_tolerance
        How far a value may be from a whole number and still be rounded to it.
    limits
        What one file may ask for.
    run_entries
        A run is flushed at this many entries: what a scan holds in memory.
    """

    work: Path
    n_genes: int
    qc: QcRules
    control: ControlSubset | None
    order: OrderKey
    obs_columns: Sequence[str] | None
    count_tolerance: float = 0.0
    limits: Limits = DEFAULT_LIMITS
    run_entries: int = 6_000_000
    block_entries: int = 1_500_000

    def target(self, number: int) -> Path:
        """Folder of the results for file ``number``."""
        return self.work / "scan" / f"{number:06d}"


@dataclass(frozen=True)
class TableGenes:
    """What a scan knows about the columns of one gene table.

    Parameters
    ----------
    names
        Their names, str, shape (n_vars,).
    gene_map
        Their positions in the universe, int32, shape (n_vars,).
    flags
        Their gene classes, one bit each, uint8, shape (n_vars,).
    """

    names: NDArray[np.object_]
    gene_map: NDArray[np.int32]
    flags: NDArray[np.uint8]


@lru_cache(maxsize=8)
def table_genes(work: Path, key: str, _meaning: str) -> TableGenes:
    """Load what is known about a gene table, once per process: most files of a corpus share a few tables."""
    table = load_table(work / "tables", key)
    gene_map = np.load(work / "maps" / f"{key}.npy")
    symbols, keys = (np.load(work / f"universe_{name}.npy", allow_pickle=False) for name in ("symbols", "keys"))
    named = table.symbols if table.symbols is not None else symbols[gene_map].astype(object)
    return TableGenes(table.names, gene_map, gene_class_flags(named, keys[gene_map].astype(object)))


class NotCounts(Exception):
    """A slot holds a value that is no count."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def scan_file(job: ScanJob, file: FileFacts, number: int, rank: int, meanings: Sequence[str]) -> ScanResult:
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
    target = job.target(number)
    key = scan_key(file, job, rank, meanings)
    done = target / "done.json"
    if done.exists():
        earlier = read_json(done)
        if earlier.get("key") == key:
            return ScanResult(**earlier["result"])
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    started = time.perf_counter()
    evidence: list[str] = []
    with open_reader(Path(file.path), job.limits) as reader:
        for slot in sorted(file.slots, key=lambda slot: slot != file.slot):
            genes = table_genes(job.work, slot.table, meanings[file.slots.index(slot)])
            try:
                result = SlotScan(job, file, reader, slot, genes, number, rank).run()
            except NotCounts as fault:
                evidence.append(f"{slot.name}: {fault}")
                reason = fault.reason
                continue
            result.evidence = evidence
            result.seconds = time.perf_counter() - started
            write_json(done, {"key": key, "result": asdict(result)})
            return result
    raise InputError(
        file.path,
        reason,
        f"no raw counts: {'; '.join(evidence)}. Give a file with counts in X, raw.X or layers['counts']",
    )


class SlotScan:
    """The scan of one slot of one file."""

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
        self.job, self.file, self.reader, self.slot, self.number = job, file, reader, slot, number
        self.genes = genes
        self.measured = [bool((self.genes.flags & (1 << bit)).any()) for bit in range(len(GENE_CLASSES))]
        self.tops = np.sort(np.array(sorted(set(job.qc.percent_top)), np.int64))
        self.obs = input_obs(reader, file, job.obs_columns)
        self.accessions, self.names = cell_names(reader, file, rank)
        self.control = control_mask(job.control, file, reader)
        self.key_hashes = np.load(job.work / "universe_hashes.npy")
        self.hashes: list[NDArray[np.uint64]] = []
        self.dropped = DroppedWriter(job.target(number))
        self.buffer = RowBuffer(job.run_entries, job.n_genes)
        self.gene_cells = np.zeros(job.n_genes, np.int64)
        self.gene_totals = np.zeros(job.n_genes, np.int64)
        self.rules = (["not_control"] if job.control is not None else []) + job.qc.rules
        self.lost = dict.fromkeys(self.rules, 0)
        self.bounds: list[OutlierBounds] = []
        self.runs: list[str] = []
        self.pending: list[pd.DataFrame] = []
        self.nnz = 0
        self.n_kept = 0
        release_memory()  # what reading names and obs left, before the rows come on top

    def run(self) -> ScanResult:
        """Stream the slot's rows; raises `NotCounts` at the first value that is none."""
        if self.job.qc.outlier_metrics:
            self.bounds = self._find_bounds()
        for block in self.reader.blocks(self.slot.name, max_elements=self.job.block_entries):
            block = self._counts(block)
            metrics = self._measure(block)
            keep = self._judge(block.first_row, metrics)
            self._append(block, metrics, keep)
        self._flush()
        self.dropped.close()
        folder = self.job.target(self.number)
        save_hashes(folder, self.hashes)
        np.savez_compressed(folder / "genes.npz", cells=self.gene_cells, totals=self.gene_totals)
        return ScanResult(
            number=self.number,
            source_file=self.file.source_file,
            slot=self.slot.name,
            table=self.slot.table,
            species=list(self.slot.species),
            evidence=[],
            n_obs=self.reader.n_obs,
            n_kept=self.n_kept,
            nnz=self.nnz,
            lost=self.lost,
            obs_kinds=self.obs.kinds,
            runs=self.runs,
            bounds=[asdict(bound) for bound in self.bounds],
        )

    def _find_bounds(self) -> list[OutlierBounds]:
        """Measure all rows before any is judged, and return the bounds of each accession."""
        qc, measured = self.job.qc, []
        for block in self.reader.blocks(self.slot.name, max_elements=self.job.block_entries):
            block = self._counts(block)
            metrics = self._measure(block).set_index(block.first_row + np.arange(block.n_rows))
            measured.append(metrics.loc[qc.passes_minima(metrics), list(qc.outlier_metrics)])
        together = pd.concat(measured)
        return find_bounds(together, self.accessions[together.index.to_numpy()], qc.outlier_metrics, qc.mad_scale)

    def _counts(self, block: CsrBlock) -> CsrBlock:
        """Return the block, rounded where that is allowed; `NotCounts` names the first value that is no count."""
        if self.job.count_tolerance and block.data.dtype.kind == "f":
            whole = np.rint(block.data)
            near = np.abs(block.data - whole) <= self.job.count_tolerance
            block = replace(block, data=np.where(near, whole, block.data))
        data = block.data
        if data.dtype.kind in "ub" and data.dtype.itemsize <= 4:
            return block
        if data.dtype.kind in "iu":
            bad = np.flatnonzero((data < 0) | (data > 2**32 - 1))
            position, fault = (int(bad[0]), 2 if data[bad[0]] < 0 else 4) if bad.size else (-1, 0)
        else:
            position, fault = first_fault(data if data.dtype.itemsize >= 4 else data.astype(np.float32))
        if fault:
            row = block.first_row + int(np.searchsorted(block.indptr, position, side="right")) - 1
            column = int(block.indices[position])
            raise NotCounts(
                FAULTS[fault],
                f"{FAULTS[fault].replace('_', ' ')} value {data[position]:g} in row {row}, column {column} "
                f"({self.genes.names[column]})",
            )
        return block

    def _measure(self, block: CsrBlock) -> pd.DataFrame:
        n_rows = len(block.indptr) - 1
        sums = RowSums(
            np.zeros(n_rows, np.int64),
            np.zeros(n_rows, np.int64),
            np.zeros((n_rows, len(GENE_CLASSES)), np.int64),
            np.zeros((n_rows, len(self.tops)), np.int64),
        )
        row_sums(
            block.indptr,
            block.indices,
            block.data,
            self.genes.flags,
            self.tops,
            sums.total,
            sums.n_genes,
            sums.by_class,
            sums.top,
        )
        return qc_metrics(sums, self.measured, self.tops.tolist())

    def _judge(self, first_row: int, metrics: pd.DataFrame) -> NDArray[np.bool_]:
        """Return which rows are kept; count and list the others by the first rule they break."""
        rows = slice(first_row, first_row + len(metrics))
        bounds = bounds_of_rows(self.bounds, self.accessions[rows]) if self.bounds else None
        judged = self.job.qc.judge(metrics, bounds)
        verdict = judged.verdict.astype(np.int64)
        if self.control is not None:
            other = ~self.control[rows]
            verdict = np.where(verdict > 0, verdict + 1, 0)
            verdict[other] = 1
            judged.value[other] = judged.threshold[other] = np.nan
        for number, count in enumerate(np.bincount(verdict, minlength=len(self.rules) + 1)[1:]):
            self.lost[self.rules[number]] += int(count)
        out = np.flatnonzero(verdict)
        if len(out):
            at = first_row + out
            rules = np.array(self.rules, object)[verdict[out] - 1]
            table = dropped_table(
                at, self.names(at), self.accessions[at].tolist(), rules.tolist(), metrics.iloc[out],
                value=judged.value[out], threshold=judged.threshold[out],
            )  # fmt: skip
            self.dropped.append(table)
        return np.asarray(verdict == 0)

    def _append(self, block: CsrBlock, metrics: pd.DataFrame, keep: NDArray[np.bool_]) -> None:
        for rows in self.buffer.pieces(block.indptr, keep):
            if not self.buffer.fits(int(block.indptr[rows.stop] - block.indptr[rows.start])):
                self._flush()
            part = keep[rows]
            before = self.buffer.n_entries
            self.buffer.append(
                block, rows, part, self.genes.gene_map, self.gene_cells, self.gene_totals, self.file.path
            )
            self.nnz += self.buffer.n_entries - before
            kept = metrics.iloc[rows][part]
            self.pending.append(kept.set_index(block.first_row + rows.start + np.flatnonzero(part)))
            self.n_kept += len(kept)

    def _hash(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return hash and source row of those buffered cells that are deep enough to be compared."""
        starts, indices, data = self.buffer.rows()
        hashes = np.empty((len(rows), 2), np.uint64)
        hash_rows(starts, indices, data, self.key_hashes, hashes)
        deep = np.diff(starts) >= LEAST_GENES
        return np.column_stack([hashes[deep], rows[deep].astype(np.uint64)])

    def _groups(self, rows: NDArray[np.int64]) -> NDArray[np.object_]:
        """Return what cells are grouped by in group order; a file without the column is a group."""
        column = self.job.order.group_column
        if column in ACCESSION_COLUMNS:
            return self.accessions[rows]
        if column not in self.obs.frame:
            return np.full(len(rows), "", object)
        groups: NDArray[np.object_] = self.obs.frame[column].iloc[rows].astype(str).to_numpy(object)
        return groups

    def _flush(self) -> None:
        """Sort what is buffered by order key and write it as a run."""
        if not self.pending:
            return
        metrics = pd.concat(self.pending)
        rows = metrics.index.to_numpy()
        self.hashes.append(self._hash(rows))
        accessions, names = self.accessions[rows], self.names(rows)
        hashes = self.job.order.hashes(accessions, rows, names)
        keys = self.job.order.keys(hashes, self.number, rows, self._groups(rows))
        sorting = np.lexsort((hashes[:, 1], keys))
        obs = measured_obs(metrics, accessions, names, self.number, hashes[:, 1], self.obs.take(rows))
        path = self.job.target(self.number) / f"run{len(self.runs):04d}"
        writer = RunWriter(path, obs.schema)
        for part in np.array_split(sorting, max(1, -(-self.buffer.n_entries // 1_000_000))):
            starts, indices, data = self.buffer.take(part)
            writer.append(
                np.column_stack([keys[part], hashes[part, 1]]), starts, indices, data, obs.take(pa.array(part))
            )
        writer.close()
        self.runs.append(path.relative_to(self.job.work).as_posix())
        self.pending.clear()
        self.buffer.clear()


def control_mask(control: ControlSubset | None, file: FileFacts, reader: Reader) -> NDArray[np.bool_] | None:
    """Return which cells of the file are controls; None where all cells are wanted."""
    if control is None:
        return None
    column = control.find_column((*file.obs_columns, *file.obs_values))
    if column is None:
        raise InputError(
            file.path, "no_control_column",
            f"has no obs column {' or '.join(control.columns)}; "
            "name it in control.column, or set control.missing=drop_file",
        )  # fmt: skip
    if column in file.obs_values:
        return control.mask(pd.Series([file.obs_values[column]] * reader.n_obs, dtype=object))
    return control.mask(reader.obs([column])[column].astype(object))


def scan_key(file: FileFacts, job: ScanJob, rank: int, meanings: Sequence[str]) -> str:
    """Hash everything a scan's result depends on."""
    parts = [
        SPOOL_VERSION, FORMAT_VERSION, file.to_dict(), job.qc, job.control, job.order, job.obs_columns, job.run_entries,
        job.count_tolerance, meanings, rank,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps([repr(part) for part in parts]).encode()).hexdigest()
