"""The obs columns of a directory: those that processing adds, and one kind for each column of the inputs.

`OUR_COLUMNS` says what is added. An `ObsSchema`, decided over all files, turns
slices of sorted runs into the obs of a chunk.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scvae_data.calling import override
from scvae_data.errors import ConfigError
from scvae_data.processing.labels import as_label, spelling
from scvae_data.processing.settings.qc import SPECIES_METRIC, Metrics, QcRules
from scvae_data.store import SRX_COLUMN, ObsColumn

__all__ = [
    "ARROW",
    "OUR_COLUMNS",
    "ChunkCells",
    "ObsSchema",
    "OurColumn",
    "ScannedCells",
    "cast",
    "choose_categories",
    "decide_schema",
    "distinct_values",
    "fitted_categories",
    "fitted_schema",
    "is_ours",
    "is_text",
    "our_columns",
]

log = logging.getLogger(__name__)

ARROW = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "long": pa.int64(),
    "float": pa.float64(),
    "string": pa.string(),
    "label": pa.string(),
}
"""Type of each kind of column: ``long`` has whole numbers that a float cannot hold, ``label`` text beside numbers."""
IN_WORDS = {"long": "int beyond 2^53", "label": "categories of numbers"}
# A text column is categorical up to this many values, and unless most values are unique.
MAX_CATEGORIES = 100_000
FEW_CATEGORIES = 50


@dataclass(frozen=True)
class ScannedCells:
    """Kept cells of one file.

    Parameters
    ----------
    rows
        Their rows in the file, int64, shape (n,).
    metrics
        Their QC metrics.
    accessions
        Their accessions, shape (n,).
    hashes
        Their second hash, uint64, shape (n,).
    """

    rows: NDArray[np.int64]
    metrics: Metrics
    accessions: NDArray[np.object_]
    hashes: NDArray[np.uint64]


@dataclass(frozen=True)
class ChunkCells:
    """The cells of one chunk, in its order, when everything about the directory is decided.

    Parameters
    ----------
    table
        Their obs in the directory's schema, without what is added after the decision.
    source_files
        The file of each, shape (n,).
    size_factor
        float64, shape (n,).
    gene_set
        Code of the measured genes of each, int32, shape (n,).
    """

    table: pa.Table
    source_files: NDArray[np.object_]
    size_factor: NDArray[np.float64]
    gene_set: NDArray[np.int32]


@dataclass(frozen=True)
class OurColumn:
    """An obs column that processing adds to those of the inputs.

    Parameters
    ----------
    name
        Its name; a column of the inputs that is called so becomes ``orig_…``.
    dtype
        A NumPy type, or ``"category"`` for text.
    after
        ``"scan"``: computed from `ScannedCells` of a file and kept in its sorted runs. ``"decide"``: computed from
        `ChunkCells` when a chunk is written; text must be known after the scan, where its categories are collected.
    values
        Function from the cells to their values, shape (n,).
    """

    name: str
    dtype: str
    after: Literal["scan", "decide"]
    values: Callable[[Any], Any]

    @property
    def arrow_type(self) -> pa.DataType:
        """Type of the column in a sorted run."""
        return pa.string() if self.dtype == "category" else pa.from_numpy_dtype(np.dtype(self.dtype))


ORIGIN_ROW = "origin_row"
"""Of cells that come from a dataset directory: the row that they had in its input, which is their ``source_row``."""
OUR_COLUMNS = [
    OurColumn(SRX_COLUMN, "category", "scan", lambda cells: cells.accessions),
    OurColumn("source_file", "category", "decide", lambda cells: cells.source_files),
    OurColumn("source_row", "int64", "scan", lambda cells: cells.rows),
    OurColumn("size_factor", "float64", "decide", lambda cells: cells.size_factor),
    OurColumn("gene_set", "int32", "decide", lambda cells: cells.gene_set),
    OurColumn("split_hash", "uint32", "scan", lambda cells: cells.hashes >> np.uint64(32)),
]
"""In the order of the columns of a chunk, where the QC metrics stand behind ``source_row``."""


def our_columns(after: Literal["scan", "decide"]) -> list[OurColumn]:
    """Return the added columns that are computed after a stage."""
    return [column for column in OUR_COLUMNS if column.after == after]


def is_ours(name: str) -> bool:
    """Whether a column of the inputs cannot keep its name, because one that processing adds may have it."""
    taken = {
        "obs_name",
        "file_number",
        ORIGIN_ROW,
        *(column.name for column in OUR_COLUMNS),
        *QcRules(percent_top=()).metrics,
        SPECIES_METRIC,
    }
    return name in taken or (name.startswith("pct_counts_in_top_") and name.endswith("_genes"))


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
        """Return a sorted run's obs in this schema: input columns cast to their kind, absent ones null."""
        ours = ["obs_name", "file_number", *(column.name for column in our_columns("scan")), *self.metrics]
        columns = {name: table.column(name) for name in ours}
        for name, kind in self.kinds.items():
            present = name in table.column_names
            columns[name] = cast(table.column(name), kind) if present else pa.nulls(len(table), ARROW[kind.rstrip("?")])
        return pa.table(columns)

    def frame(self, cells: ChunkCells) -> pd.DataFrame:
        """Return the obs of a chunk."""
        columns: dict[str, Any] = {}
        for column in OUR_COLUMNS:
            scanned = column.after == "scan"
            values = cells.table.column(column.name).to_numpy() if scanned else np.asarray(column.values(cells))
            columns[column.name] = categorical(values) if column.dtype == "category" else values.astype(column.dtype)
            if column.name == "source_row":
                columns |= {name: self._metric(cells.table.column(name)) for name in self.metrics}
        for name, kind in self.kinds.items():
            called = "source_row" if name == ORIGIN_ROW else name
            columns[called] = self._values(name, kind, cells.table.column(name))
        names = pd.Index(cells.table.column("obs_name").to_numpy(zero_copy_only=False), name=None)
        return pd.DataFrame(columns, index=names)

    def _metric(self, column: pa.ChunkedArray) -> Any:
        return pd.array(column.to_pylist(), dtype="boolean") if pa.types.is_boolean(column.type) else column.to_numpy()

    def _values(self, name: str, kind: str, column: pa.ChunkedArray) -> Any:
        if kind == "int?":
            return pd.array(column.to_pylist(), dtype="Int64")
        if kind == "bool?":
            return pd.array(column.to_pylist(), dtype="boolean")
        values = column.to_numpy(zero_copy_only=False)
        if is_text(kind):
            return categorical(values) if name in self.categories else values.astype(object)
        return values.astype(bool) if kind == "bool" else values


def categorical(values: NDArray[np.object_]) -> pd.Categorical:
    """Return text as a categorical whose categories are the sorted values that occur."""
    codes, distinct = pd.factorize(values, sort=True)
    return pd.Categorical.from_codes(codes, categories=pd.Index(distinct, dtype=object))


def is_text(kind: str) -> bool:
    """Whether a column of this kind is stored as text."""
    return kind.rstrip("?") in ("string", "label")


def cast(column: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    """Cast a column of a sorted run to its kind in the directory."""
    if kind.rstrip("?") == "label":
        return as_labels(column)
    target = ARROW[kind.rstrip("?")]
    return column if column.type == target else column.cast(target)


def as_labels(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of any type as text, each value as `as_label` writes it; NaN becomes null."""
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    parts = []
    for chunk in column.chunks:
        values = chunk.dictionary_encode()
        distinct = values.dictionary.to_numpy(zero_copy_only=False)  # a float32 stays one: 0.1, not 0.10000000149
        texts = [None if pd.isna(value) else as_label(value) for value in distinct]
        parts.append(pa.array(texts, pa.string()).take(values.indices))
    return pa.chunked_array(parts, pa.string())


def decide_schema(metrics: Sequence[str], kinds_of_files: Sequence[Mapping[str, str]]) -> ObsSchema:
    """Choose one kind for every input column over all files.

    Whole and fractional numbers together are float, and so is a column
    without any value. Any other mixture becomes text, with a warning; so does
    float beside whole numbers that it cannot hold. In such a column a label
    is one text however a file stores it, see `as_label`.
    """
    names = sorted({name for kinds in kinds_of_files for name in kinds})
    unified: dict[str, str] = {}
    for name in names:
        present = [kinds[name] for kinds in kinds_of_files if name in kinds]
        base = unify(name, {kind.rstrip("?") for kind in present} - {"none"})
        missing = len(present) < len(kinds_of_files) or any(kind.endswith("?") for kind in present)
        unified[name] = base + ("?" if missing and base != "float" else "")
    return ObsSchema(tuple(metrics), unified)


def unify(name: str, kinds: set[str]) -> str:
    """Return the kind of a column that has these kinds in the files."""
    if len(kinds) == 1:
        return "int" if kinds == {"long"} else next(iter(kinds))
    if kinds == {"int", "long"}:
        return "int"
    if kinds <= {"int", "float"}:
        return "float"
    words = " and ".join(sorted(IN_WORDS.get(kind, kind) for kind in kinds))
    log.warning("obs column %s is %s in different files; it is stored as text", name, words)
    return "label"


def fitted_schema(schema: ObsSchema, columns: Mapping[str, ObsColumn]) -> ObsSchema:
    """Return the schema that the obs columns of a directory ask for, of what the new files have.

    A column that the new files lack has no value there, and one that the
    directory lacks is left out, with a warning.

    Raises
    ------
    ConfigError
        A column cannot be of the type that it has in the directory.
    """
    wanted = {name: column.dtype for name, column in columns.items() if not (is_ours(name) or name in schema.metrics)}
    if left_out := sorted(schema.kinds.keys() - wanted.keys()):
        meant = meant_by(left_out, wanted.keys() - schema.kinds.keys())
        log.warning("obs columns that the directory does not have are left out: %s%s", ", ".join(left_out), meant)
    return ObsSchema(schema.metrics, {name: _fitted(name, schema.kinds.get(name), wanted[name]) for name in wanted})


def meant_by(names: Sequence[str], absent: Collection[str]) -> str:
    """Say which columns of a directory, absent from the files, some of theirs may be, and what makes them so."""
    known = {spelling(name): name for name in absent}
    joined = {known[key]: [name] for name in names if (key := spelling(name)) in known}
    if not joined:
        return ""
    return f"; {shlex.quote(override('input.join_columns', joined))} keeps those that it has under another name"


def _fitted(name: str, kind: str | None, dtype: str) -> str:
    """Return the kind that gives a column its type in the directory, of the kind in the files; None if they lack it."""
    base = None if kind is None else kind.rstrip("?")
    whole = kind is not None and not kind.endswith("?")
    if dtype in ("categorical", "string"):
        return "string?" if base in (None, "string") else "label?"
    fits = {
        "float64": ("float", base in (None, "int", "float")),
        "Int64": ("int?", base in (None, "int")),
        "boolean": ("bool?", base in (None, "bool")),
        "int64": ("int", base == "int" and whole),
        "bool": ("bool", base == "bool" and whole),
    }
    fitted, possible = fits.get(dtype, ("", False))
    if not possible:
        found = "not there" if kind is None else f"{base}{'' if whole else ' with missing values'}"
        raise ConfigError(
            f"obs column {name} is {dtype} in the directory and {found} in the new inputs; correct it there, or "
            "process all inputs anew without it (input.obs_columns)"
        )
    return fitted


def fitted_categories(values: Mapping[str, set[str]], columns: Mapping[str, ObsColumn]) -> dict[str, list[str]]:
    """Return the sorted categories of the text columns that are categorical in a directory.

    Raises
    ------
    ConfigError
        One has too many new values.
    """
    found = {name: sorted(of_column) for name, of_column in values.items() if columns[name].categories is not None}
    if many := [name for name, of_column in found.items() if len(of_column) > MAX_CATEGORIES and not is_ours(name)]:
        raise ConfigError(
            f"obs column {many[0]} is categorical in the directory and has more than {MAX_CATEGORIES:,} values in the "
            "new inputs; process all inputs anew"
        )
    return found


def distinct_values(obs: pa.Table, name: str, kind: str) -> list[str]:
    """Return the distinct texts of a column, at most one more than `MAX_CATEGORIES`."""
    if name not in obs.column_names:
        return []
    values = pc.drop_null(pc.unique(cast(obs.column(name), kind))).to_pylist()
    return sorted(values)[: MAX_CATEGORIES + 1]


def choose_categories(values: Mapping[str, set[str]], n_obs: int) -> dict[str, list[str]]:
    """Return the sorted categories of the text columns that are worth it: near-unique ones stay text."""
    limit = min(MAX_CATEGORIES, max(FEW_CATEGORIES, n_obs // 2))
    ours = {column.name for column in OUR_COLUMNS}
    return {name: sorted(found) for name, found in values.items() if name in ours or len(found) <= limit}
