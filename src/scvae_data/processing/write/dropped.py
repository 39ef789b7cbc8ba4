"""The scans of all files in; one table of the cells that are not kept, each with the rule that dropped it, out.

The table lies beside the chunks, in order of source file and row; equal
inputs and settings give equal bytes. One file's cells are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scvae_data.processing.decide.duplicates import DUPLICATE_RULE
from scvae_data.processing.decide.stage import LATE_RULE
from scvae_data.processing.engine.task import Task
from scvae_data.processing.facts import FileScan, SpooledRun
from scvae_data.processing.run.context import Context
from scvae_data.processing.scan.dropped import dropped_schema, table_of_obs
from scvae_data.processing.sort.sorted_run import SortedRun
from scvae_data.processing.sort.totals import copies_in
from scvae_data.processing.work import WorkFolder
from scvae_data.store.files import atomic_file, sha256_file

__all__ = ["DROPPED_FILE", "dropped_task", "write_dropped"]

DROPPED_FILE = "dropped_cells.parquet"
ROW_GROUP = 65_536


def dropped_task(context: Context, scans: Sequence[FileScan]) -> Task:
    """Return the writing of the table as a task, with what it needs of scans, which are in order of their names."""
    files = {scan.number: scan.source_file for scan in scans}
    runs = [run for scan in scans for run in scan.sorted_runs]
    standing = () if context.standing is None else context.standing.columns["source_file"].categories or ()
    return Task(write_dropped, (context.directory, context.work, files, runs, standing, context.settings.qc.columns))


def write_dropped(
    directory: Path,
    work: WorkFolder,
    files: Mapping[int, str],
    runs: Sequence[SpooledRun],
    standing: Sequence[str],
    metrics: Sequence[str],
) -> dict[str, Any]:
    """Write ``dropped_cells.parquet``, not synced; return its name, size, checksum and number of cells.

    Parameters
    ----------
    files
        Name of each file by its number, in order of the names.
    runs
        Their sorted runs, whose totals over the kept genes are known.
    standing
        Files of the directory that grows.
    metrics
        Columns of the table.
    """
    schema = dropped_schema(metrics).insert(1, pa.field("source_file", pa.string()))
    n_obs = 0
    of_each: dict[int, list[SpooledRun]] = {number: [] for number in files}
    for run in runs:
        of_each[run.file].append(run)
    names = dict(files) | {-1 - code: name for code, name in enumerate(standing)}
    with atomic_file(directory / DROPPED_FILE, synced=False) as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for group in regrouped(of_files(work, of_each, names, schema, metrics)):
                writer.write_table(group, row_group_size=ROW_GROUP)
                n_obs += len(group)
        file.flush()
        size, digest = file.seek(0, 2), sha256_file(file)
    return {"file": DROPPED_FILE, "n_obs": n_obs, "bytes": size, "sha256": digest}


def of_files(
    work: WorkFolder,
    runs: Mapping[int, Sequence[SpooledRun]],
    names: Mapping[int, str],
    schema: pa.Schema,
    metrics: Sequence[str],
) -> Iterator[pa.Table]:
    """Yield each file's dropped cells in order of its rows."""
    for number, of_file in runs.items():
        scanned = work.scan(number).dropped
        parts = [pa.ipc.open_file(pa.memory_map(str(scanned))).read_all()] if scanned.exists() else []
        for spooled in of_file:
            parts += rows_left_out(work, spooled, names, metrics)
        if not parts:
            continue
        table = pa.concat_tables(parts).sort_by("source_row")
        file = pa.array([names[number]], pa.string()).take(pa.array(np.zeros(len(table), np.int32)))
        yield table.add_column(1, "source_file", file).cast(schema)


def rows_left_out(
    work: WorkFolder, spooled: SpooledRun, names: Mapping[int, str], metrics: Sequence[str]
) -> Iterator[pa.Table]:
    """Yield the rows of a sorted run that are copies, and those that have no count in a kept gene."""
    with SortedRun(work.path / spooled.path) as run:
        rows = np.flatnonzero(run.totals()[0] == 0)
        if not len(rows):
            return
        obs = run.obs().take(pa.array(rows))
    copies = copies_in(work, spooled, obs)
    late = obs.filter(pa.array(~copies))
    n_late = len(late)
    yield table_of_obs(late, metrics, LATE_RULE, value=np.zeros(n_late), threshold=np.ones(n_late))
    if copies.any():
        dropped = obs.filter(pa.array(copies))
        table = np.load(work.scan(spooled.file).copies)
        place = np.searchsorted(table[:, 0], dropped.column("source_row").to_numpy())
        copy_of = [f"{names[file]} row {row}" for file, row in table[place, 1:].tolist()]
        yield table_of_obs(dropped, metrics, DUPLICATE_RULE, copy_of=copy_of)


def regrouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Cut tables into groups of one size, so that the bytes do not depend on how the cells came."""
    left: list[pa.Table] = []
    n_left = 0
    for table in tables:
        left.append(table)
        n_left += len(table)
        if n_left >= ROW_GROUP:
            together = pa.concat_tables(left)
            whole = n_left - n_left % ROW_GROUP
            for start in range(0, whole, ROW_GROUP):
                yield together.slice(start, ROW_GROUP).combine_chunks()
            left, n_left = [together.slice(whole)], n_left - whole
    if n_left:
        yield pa.concat_tables(left).combine_chunks()
