"""Cell tables: one file's obs in, columns of one schema for the whole directory out.

Three steps: `input_obs` reads a file's own columns into four kinds of values,
`measured_obs` puts ours before them for a run, and an `ObsSchema`, decided
over all files, turns slices of runs into the obs of a chunk.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["ARROW", "RESERVED", "ObsSchema", "cast", "choose_categories", "decide_schema", "distinct_values"]

log = logging.getLogger(__name__)

ARROW = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "string": pa.string()}
RESERVED = (
    "obs_name", "SRX_accession", "source_file", "source_row", "total_counts", "n_genes_by_counts", "log1p_total_counts",
    "log1p_n_genes_by_counts", "pct_counts_mt", "pct_counts_ribo", "pct_counts_hb", "size_factor", "gene_set",
    "split_hash", "file_number",
)  # fmt: skip
# A text column is categorical up to this many values, and unless most values are unique.
MAX_CATEGORIES = 100_000
FEW_CATEGORIES = 50


@dataclass(frozen=True)
class ObsSchema:
    """The obs columns of a directory.

    Parameters
    ----------
    metrics
        Our measured columns, in order.
    kinds
        Kind of each input column, with ``?`` where some cell has no value; sorted by name.
    categories
        Sorted values of each categorical column.
    """

    metrics: tuple[str, ...]
    kinds: dict[str, str]
    categories: dict[str, list[str]] = field(default_factory=dict)

    def slice(self, table: pa.Table) -> pa.Table:
        """Return a run's obs in this schema: input columns cast to their kind, absent ones null."""
        columns = {
            name: table.column(name)
            for name in ("obs_name", "SRX_accession", "file_number", "source_row", *self.metrics, "split_hash")
        }
        for name, kind in self.kinds.items():
            target = ARROW[kind.rstrip("?")]
            present = name in table.column_names
            columns[name] = cast(table.column(name), target) if present else pa.nulls(len(table), target)
        return pa.table(columns)

    def frame(
        self, table: pa.Table, files: Sequence[str], size_factor: Any, gene_set: NDArray[np.int32]
    ) -> pd.DataFrame:
        """Return the obs of a chunk.

        Parameters
        ----------
        table
            Rows in this schema, in the chunk's order.
        files
            ``source_file`` by file number.
        size_factor, gene_set
            Per row, float64; and per file number, int32.
        """
        numbers = table.column("file_number").to_numpy()
        columns: dict[str, Any] = {
            "SRX_accession": categorical(table.column("SRX_accession").to_numpy(zero_copy_only=False)),
            "source_file": categorical(np.array(files, object)[numbers]),
            "source_row": table.column("source_row").to_numpy(),
            **{name: table.column(name).to_numpy() for name in self.metrics},
            "size_factor": size_factor,
            "gene_set": gene_set[numbers],
            "split_hash": table.column("split_hash").to_numpy(),
        }
        for name, kind in self.kinds.items():
            columns[name] = self._values(name, kind, table.column(name))
        names = pd.Index(table.column("obs_name").to_numpy(zero_copy_only=False), name=None)
        return pd.DataFrame(columns, index=names)

    def _values(self, name: str, kind: str, column: pa.ChunkedArray) -> Any:
        if kind == "int?":
            return pd.array(column.to_pylist(), dtype="Int64")
        if kind == "bool?":
            return pd.array(column.to_pylist(), dtype="boolean")
        values = column.to_numpy(zero_copy_only=False)
        if kind.startswith("string"):
            return categorical(values) if name in self.categories else values.astype(object)
        return values.astype(bool) if kind == "bool" else values


def categorical(values: NDArray[np.object_]) -> pd.Categorical:
    """Return text as a categorical whose categories are the sorted values that occur."""
    codes, distinct = pd.factorize(values, sort=True)
    return pd.Categorical.from_codes(codes, categories=pd.Index(distinct, dtype=object))


def cast(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    """Cast a column; booleans become ``True`` and ``False`` as text."""
    if column.type == target:
        return column
    if target == pa.string() and column.type == pa.bool_():
        return pc.if_else(column, "True", "False")
    return column.cast(target)


def decide_schema(metrics: Sequence[str], kinds_of_files: Sequence[Mapping[str, str]]) -> ObsSchema:
    """Choose one kind for every input column over all files.

    Whole and fractional numbers together are float, and so is a column
    without any value; any other mixture becomes text, with a warning.
    """
    names = sorted({name for kinds in kinds_of_files for name in kinds})
    unified: dict[str, str] = {}
    for name in names:
        present = [kinds[name] for kinds in kinds_of_files if name in kinds]
        bases = {kind.rstrip("?") for kind in present} - {"none"}
        if len(bases) == 1:
            base = bases.pop()
        elif bases <= {"int", "float"}:
            base = "float"
        else:
            base = "string"
            log.warning(
                "obs column %s is %s in different files; it is stored as text", name, " and ".join(sorted(bases))
            )
        missing = len(present) < len(kinds_of_files) or any(kind.endswith("?") for kind in present)
        unified[name] = base + ("?" if missing and base != "float" else "")
    return ObsSchema(tuple(metrics), unified)


def distinct_values(obs: pa.Table, name: str) -> list[str]:
    """Return the distinct texts of a column, at most one more than `MAX_CATEGORIES`."""
    if name not in obs.column_names:
        return []
    column = obs.column(name)
    if column.type == pa.bool_():
        column = pc.if_else(column, "True", "False")
    values = pc.drop_null(pc.unique(column.cast(pa.string()))).to_pylist()
    return sorted(values)[: MAX_CATEGORIES + 1]


def choose_categories(values: Mapping[str, set[str]], n_obs: int) -> dict[str, list[str]]:
    """Return the sorted categories of the text columns that are worth it: near-unique ones stay text."""
    limit = min(MAX_CATEGORIES, max(FEW_CATEGORIES, n_obs // 2))
    always = ("SRX_accession", "source_file")
    return {name: sorted(found) for name, found in values.items() if name in always or len(found) <= limit}
