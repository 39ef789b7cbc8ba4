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

from scvae_data.processing.survey import FileFacts
from scvae_data.readers import Reader

__all__ = ["InputObs", "ObsSchema", "decide_schema", "input_obs", "measured_obs"]

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
class InputObs:
    """A file's own obs columns, under names that ours do not take.

    Parameters
    ----------
    frame
        One row per cell of the file; columns of the kinds bool, int, float, string.
    kinds
        Kind of each column, with ``?`` appended where values are missing.
    """

    frame: pd.DataFrame
    kinds: dict[str, str]

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """Return some rows as an Arrow table."""
        part = self.frame.iloc[rows]
        arrays = {name: to_arrow(part[name], kind.rstrip("?")) for name, kind in self.kinds.items()}
        return pa.table(arrays) if arrays else pa.table({})


def input_obs(reader: Reader, file: FileFacts, columns: Sequence[str] | None) -> InputObs:
    """Read the wanted obs columns of a file; manifest values stand before columns of the file."""
    wanted = [name for name in file.obs_columns if columns is None or name in columns]
    wanted = [name for name in wanted if name != file.accession_column]
    frame = reader.obs(wanted)
    extra = {name: value for name, value in file.obs_values.items() if columns is None or name in columns}
    taken: dict[str, pd.Series] = {}
    for name, value in extra.items():
        taken[free_name(name, taken)] = pd.Series([value] * reader.n_obs)
    for name in wanted:
        taken[free_name(name, taken)] = frame[name].reset_index(drop=True)
    kinds = {name: kind_of(series) for name, series in taken.items()}
    return InputObs(pd.DataFrame(taken, index=pd.RangeIndex(reader.n_obs)), kinds)


def free_name(name: str, taken: Mapping[str, Any]) -> str:
    """Return the column's name, with ``orig_`` before it while it is one of ours or taken; HDF5 forbids slashes."""
    name = name.replace("/", "_") or "unnamed"
    while name in RESERVED or name in taken or (name.startswith("pct_counts_in_top_") and name.endswith("_genes")):
        name = f"orig_{name}"
    return name


def kind_of(series: pd.Series) -> str:
    """Return the kind of a column: bool, int, float, string, or none without a value; ``?`` marks missing values."""
    if series.isna().all():
        return "none?"
    missing = "?" if series.isna().any() else ""
    values = series.dtype.categories if isinstance(series.dtype, pd.CategoricalDtype) else series
    if isinstance(series.dtype, pd.CategoricalDtype) or pd.api.types.is_object_dtype(values):
        distinct = {type(value) for value in pd.Series(values).dropna().unique()}
        kind = "bool" if distinct <= {bool, np.bool_} else "string"
    elif pd.api.types.is_bool_dtype(values):
        kind = "bool"
    elif pd.api.types.is_integer_dtype(values):
        kind = "int" if values.max() <= np.iinfo(np.int64).max else "string"
    elif pd.api.types.is_float_dtype(values):
        return "float"
    else:
        kind = "string"
    return kind + missing


def to_arrow(series: pd.Series, kind: str) -> pa.Array:
    """Return a column as an Arrow array of its kind; missing values become null."""
    if kind == "none":
        return pa.nulls(len(series), pa.float64())
    if kind == "string":
        codes, distinct = pd.factorize(series)
        names = pa.array([str(value) for value in distinct], pa.string())
        return names.take(pa.array(codes, mask=codes < 0))
    if kind == "bool":
        return pa.array([None if pd.isna(value) else bool(value) for value in series.tolist()], pa.bool_())
    return pa.array(series, ARROW[kind], from_pandas=True)


def measured_obs(
    metrics: pd.DataFrame,
    accessions: NDArray[np.object_],
    names: NDArray[np.object_],
    file_number: int,
    hashes: NDArray[np.uint64],
    own: pa.Table,
) -> pa.Table:
    """Return the obs of a run's rows: identity, metrics (indexed by source row), then the file's own columns."""
    columns: dict[str, pa.Array] = {
        "obs_name": pa.array(names, pa.string()),
        "SRX_accession": pa.array(accessions, pa.string()),
        "file_number": pa.array(np.full(len(metrics), file_number, np.int32)),
        "source_row": pa.array(metrics.index.to_numpy(np.int64)),
        **{name: pa.array(metrics[name].to_numpy()) for name in metrics.columns},
        "split_hash": pa.array((hashes >> np.uint64(32)).astype(np.uint32)),
        **{name: own.column(name) for name in own.column_names},
    }
    return pa.table(columns)


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
