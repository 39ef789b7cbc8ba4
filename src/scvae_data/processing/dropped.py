"""Cells that are not kept, each with the rule that dropped it: per file while scanning, then one table.

The table lies beside the chunks, in order of source file and row; equal
inputs and settings give equal bytes. One file's cells are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scvae_data.processing.scan_result import ScanResult
from scvae_data.processing.spool import Run
from scvae_data.store.files import atomic_file, sha256_file

__all__ = ["DROPPED_FILE", "LATE_RULE", "DroppedWriter", "dropped_table", "write_dropped"]

DROPPED_FILE = "dropped_cells.parquet"
SCANNED = "dropped.arrow"
COPIES = "copies.arrow"
LATE_RULE = "zero_counts_in_kept_genes"
ROW_GROUP = 65_536
INTEGERS = {"total_counts": pa.int64(), "n_genes_by_counts": pa.int32()}


def dropped_schema(metrics: Sequence[str]) -> pa.Schema:
    """Return the columns of a table of dropped cells of one file.

    ``value`` is what the rule looked at, ``threshold`` what it asked for;
    null where the rule has none. ``copy_of`` names the cell that a dropped
    copy equals.
    """
    fields = [
        ("source_row", pa.int64()),
        ("accession", pa.string()),
        ("barcode", pa.string()),
        ("rule", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("copy_of", pa.string()),
    ]
    return pa.schema([*fields, *((name, INTEGERS.get(name, pa.float64())) for name in metrics)])


def dropped_table(
    rows: NDArray[np.int64],
    names: Sequence[str],
    accessions: Sequence[str],
    rule: Sequence[str],
    metrics: pd.DataFrame,
    *,
    value: NDArray[np.float64] | None = None,
    threshold: NDArray[np.float64] | None = None,
    copy_of: Sequence[str] | None = None,
) -> pa.Table:
    """Lay dropped cells of one file out as a table.

    Parameters
    ----------
    names
        What the cells would be called in the directory: ``ACCESSION:barcode``.
    metrics
        Their metrics, n rows.
    """
    absent = [None] * len(rows)
    schema = dropped_schema([str(name) for name in metrics.columns])
    columns: list[Any] = [
        rows, accessions, [name.split(":", 1)[1] for name in names], rule,
        absent if value is None else value, absent if threshold is None else threshold,
        absent if copy_of is None else copy_of, *(metrics[name].to_numpy() for name in metrics.columns),
    ]  # fmt: skip
    arrays = [
        pa.array(column, field.type, from_pandas=field.name in ("value", "threshold"))
        if not isinstance(column, np.ndarray)
        else pa.array(column, from_pandas=field.name in ("value", "threshold")).cast(field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


class DroppedWriter:
    """Append dropped cells to a file's table block by block; a file without any has no table."""

    def __init__(self, folder: Path, name: str = SCANNED) -> None:
        self._path = folder / name
        # A slot that turned out to hold no counts may have left its own.
        self._path.unlink(missing_ok=True)
        self._writer: Any = None

    def append(self, table: pa.Table) -> None:
        """Append cells."""
        if self._writer is None:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self._writer = pa.ipc.new_file(str(self._path), table.schema, options=options)
        self._writer.write_table(table)

    def close(self) -> None:
        """Finish the table."""
        if self._writer is not None:
            self._writer.close()


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


def table_of_obs(obs: pa.Table, metrics: Sequence[str], rule: str, **columns: Any) -> pa.Table:
    """Lay out cells of a run as dropped by one rule."""
    return dropped_table(
        obs.column("source_row").to_numpy(), obs.column("obs_name").to_pylist(),
        obs.column("SRX_accession").to_pylist(), [rule] * len(obs),
        pd.DataFrame({name: obs.column(name).to_numpy() for name in metrics}), **columns,
    )  # fmt: skip


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
