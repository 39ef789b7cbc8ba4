"""TODO scvae_data.processing.write.dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scvae_data.processing.facts import ScanResult
from scvae_data.processing.scan.dropped import COPIES, SCANNED, dropped_schema, table_of_obs
from scvae_data.processing.sort.sorted_run import Run
from scvae_data.store.files import atomic_file, sha256_file

__all__ = ["DROPPED_FILE", "LATE_RULE", "write_dropped"]

DROPPED_FILE = "dropped_cells.parquet"
LATE_RULE = "zero_counts_in_kept_genes"
ROW_GROUP = 65_536


def write_dropped(directory: Path, work: Path, results: Sequence[ScanResult], metrics: Sequence[str]) -> dict[str, Any]:
    """Write ``dropped_cells.parquet``; return its name, size, checksum and number of cells.

    Parameters
    ----------
    results
        All scanned files in order of their names, with the runs whose totals over the kept genes are known.
    metrics
        Names of the measured columns.
    """
    schema = dropped_schema(metrics).insert(1, pa.field("source_file", pa.string()))
    n_obs = 0
    with atomic_file(directory / DROPPED_FILE) as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for group in regrouped(of_files(work, results, schema, metrics)):
                writer.write_table(group, row_group_size=ROW_GROUP)
                n_obs += len(group)
        file.flush()
        size, digest = file.seek(0, 2), sha256_file(file)
    return {"file": DROPPED_FILE, "n_obs": n_obs, "bytes": size, "sha256": digest}


def of_files(
    work: Path, results: Sequence[ScanResult], schema: pa.Schema, metrics: Sequence[str]
) -> Iterator[pa.Table]:
    """Yield each file's dropped cells in order of its rows."""
    for result in results:
        folder = work / "scan" / f"{result.number:06d}"
        parts = [read(folder / name) for name in (SCANNED, COPIES) if (folder / name).exists()]
        parts += [late for path in result.runs if (late := late_rows(work / path, metrics)) is not None]
        if not parts:
            continue
        table = pa.concat_tables(parts).sort_by("source_row")
        names = pa.array([result.source_file], pa.string()).take(pa.array(np.zeros(len(table), np.int32)))
        yield table.add_column(1, "source_file", names).cast(schema)


def read(path: Path) -> pa.Table:
    """Read a table that `DroppedWriter` wrote."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def late_rows(path: Path, metrics: Sequence[str]) -> pa.Table | None:
    """Return the cells of a run that have no count in a kept gene; None where there are none."""
    with Run(path) as run:
        rows = np.flatnonzero(run.totals()[0] == 0)
        if not len(rows):
            return None
        obs = run.obs().take(pa.array(rows))
    n = len(rows)
    return table_of_obs(obs, metrics, LATE_RULE, value=np.zeros(n), threshold=np.ones(n))


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
