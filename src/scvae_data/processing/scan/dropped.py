"""Cells of one file that are not kept, in; a table of them, each with the rule that dropped it, out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scvae_data.processing.settings.qc import Metrics
from scvae_data.store import SRX_COLUMN

__all__ = ["DroppedWriter", "dropped_schema", "dropped_table", "table_of_obs"]

TYPES = {"total_counts": pa.int64(), "n_genes_by_counts": pa.int32(), "predicted_doublet": pa.bool_()}
NULLABLE = ("value", "threshold", "predicted_doublet")


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
    return pa.schema([*fields, *((name, TYPES.get(name, pa.float64())) for name in metrics)])


def dropped_table(
    rows: NDArray[np.int64],
    names: Sequence[str],
    accessions: Sequence[str],
    rule: Sequence[str],
    metrics: Metrics,
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
        Their metrics.
    """
    absent = [None] * len(rows)
    schema = dropped_schema(list(metrics))
    columns: list[Any] = [
        rows, accessions, [name.split(":", 1)[1] for name in names], rule,
        absent if value is None else value, absent if threshold is None else threshold,
        absent if copy_of is None else copy_of, *map(np.asarray, metrics.values()),
    ]  # fmt: skip
    arrays = [
        pa.array(column, field.type, from_pandas=field.name in NULLABLE)
        if not isinstance(column, np.ndarray)
        else pa.array(column, from_pandas=field.name in NULLABLE).cast(field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


class DroppedWriter:
    """Append dropped cells to a file's table block by block; a file without any has no table."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # A slot that turned out to hold no counts may have left its own.
        self.path.unlink(missing_ok=True)
        self._writer: Any = None

    def append(self, table: pa.Table) -> None:
        """Append cells."""
        if self._writer is None:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self._writer = pa.ipc.new_file(str(self.path), table.schema, options=options)
        self._writer.write_table(table)

    def close(self) -> None:
        """Finish the table."""
        if self._writer is not None:
            self._writer.close()


def table_of_obs(obs: pa.Table, metrics: Sequence[str], rule: str, **columns: Any) -> pa.Table:
    """Lay out cells of a run as dropped by one rule."""
    return dropped_table(
        obs.column("source_row").to_numpy(), obs.column("obs_name").to_pylist(),
        obs.column(SRX_COLUMN).to_pylist(), [rule] * len(obs),
        {name: obs.column(name).to_numpy() for name in metrics}, **columns,
    )  # fmt: skip
