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
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from scvae_data.errors import InputError
from scvae_data.processing.measure import NotCounts
from scvae_data.processing.scan_job import ScanJob, table_genes
from scvae_data.processing.scan_result import ScanResult
from scvae_data.processing.slot_scan import SlotScan
from scvae_data.processing.survey import FileFacts
from scvae_data.readers import open_reader
from scvae_data.store import FORMAT_VERSION
from scvae_data.store.files import read_json, write_json

__all__ = ["scan_file"]

# Raised where what a scan leaves changes: results of another version are made again.
SPOOL_VERSION = 2


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


def scan_key(file: FileFacts, job: ScanJob, rank: int, meanings: Sequence[str]) -> str:
    """Hash everything a scan's result depends on."""
    parts = [
        SPOOL_VERSION, FORMAT_VERSION, file.to_dict(), job.qc, job.control, job.order, job.obs_columns, job.run_entries,
        job.count_tolerance, meanings, rank,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps([repr(part) for part in parts]).encode()).hexdigest()
