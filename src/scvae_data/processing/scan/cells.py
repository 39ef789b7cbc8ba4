"""The reader of one file in; its cells' names, accessions and obs, and what of them is kept in sorted runs, out."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.processing.facts import InputFacts
from scvae_data.processing.labels import check_texts, label
from scvae_data.processing.scan.beside import rows_beside
from scvae_data.processing.scan.job import ScanJob
from scvae_data.processing.scan.joined import Joined, join
from scvae_data.processing.settings.inputs import ACCESSION_COLUMNS
from scvae_data.processing.settings.qc import Metrics
from scvae_data.processing.sort.obs_kinds import kind_of, numbers, to_arrow, without_labels
from scvae_data.processing.sort.obs_schema import ScannedCells, is_ours, our_columns
from scvae_data.readers.base import Reader
from scvae_data.readers.features import NO_CELL

__all__ = [
    "FileCells",
    "InputObs",
    "by_final_name",
    "cell_names",
    "control_mask",
    "input_obs",
    "one_column",
    "read_cells",
    "spooled_obs",
    "unique_names",
]


@dataclass(frozen=True)
class InputObs:
    """A file's own obs columns, under names that ours do not take.

    Parameters
    ----------
    frame
        One row per cell of the file.
    kinds
        Kind of each column, see `kind_of`.
    written_missing
        Of columns with texts that may mean a missing value, how many cells have which, see `without_labels`.
    """

    frame: pd.DataFrame
    kinds: dict[str, str]
    written_missing: dict[str, dict[str, int]]

    @classmethod
    def of(cls, columns: Mapping[str, pd.Series], job: ScanJob, n_obs: int, path: str) -> InputObs:
        """Make it of columns in the order of the cells; refuses texts that cannot be written."""
        found = {name: without_labels(series, job.missing_labels) for name, series in columns.items()}
        frame = pd.DataFrame({name: series for name, (series, _) in found.items()}, index=pd.RangeIndex(n_obs))
        kinds = {name: kind_of(series) for name, (series, _) in found.items()}
        for name, kind in kinds.items():
            if kind.rstrip("?") == "string":
                check_texts(path, f"values of obs column {name}", frame[name].dropna().unique().tolist())
        return cls(frame, kinds, {name: counts for name, (_, counts) in found.items() if counts})

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """Return some rows as an Arrow table."""
        part = self.frame.iloc[rows]
        arrays = {name: to_arrow(part[name], kind.rstrip("?")) for name, kind in self.kinds.items()}
        return pa.table(arrays) if arrays else pa.table({})


@dataclass(frozen=True)
class FileCells:
    """All cells of a file.

    Parameters
    ----------
    obs
        The file's own obs columns.
    accessions
        Accession of each cell, shape (n_obs,).
    experiments
        The distinct accessions, sorted.
    codes
        Position of each cell's accession among them, shape (n_obs,).
    names
        Function from row numbers to names that are unique in the directory.
    control
        Which cells are controls, shape (n_obs,); None where all cells are wanted.
    unmatched
        Between the file and the table of cells, see `Joined`; empty without a table.
    n_renamed
        Cells whose barcode another cell of the file has before them.
    control_rule
        What cells that are no controls are dropped by.
    metrics
        Of each cell, where they are known and not to be measured; else None.
    origins
        Number of the input, and row there, that each cell came from, where that is not this file; (n_obs, 2).
    """

    obs: InputObs
    accessions: NDArray[np.object_]
    experiments: list[str]
    codes: NDArray[np.int64]
    names: Any
    control: NDArray[np.bool_] | None
    unmatched: dict[str, Any]
    n_renamed: int
    control_rule: str = "not_control"
    metrics: Metrics | None = None
    origins: NDArray[np.int64] | None = None

    def groups(self, column: str | None, rows: NDArray[np.int64]) -> NDArray[np.object_]:
        """Return what cells are grouped by in group order; a file without the column is a group."""
        if column in ACCESSION_COLUMNS:
            return self.accessions[rows]
        if column not in self.obs.frame:
            return np.full(len(rows), "", object)
        values = self.obs.frame[column].iloc[rows]
        if pd.api.types.is_float_dtype(values):  # a number is one group, whether a file stores 1 or 1.0
            values = values.map(label, na_action="ignore")
        groups: NDArray[np.object_] = values.astype(str).to_numpy(object)
        return groups


def read_cells(job: ScanJob, file: InputFacts, reader: Reader, number: int, rank: int) -> FileCells:
    """Read what a file says of its cells, and the table of cells of them.

    Parameters
    ----------
    number
        Position of the file among the inputs.
    rank
        Position among the files of its accession: tells their cells' names apart.

    Raises
    ------
    InputError
        Controls are wanted, and the file has no column that tells them; or a column that is wanted as numbers
        holds something else.
    """
    accessions, names, n_renamed = cell_names(reader, file, rank)
    joined = Joined()
    if job.obs_table:
        of_cells = accessions if file.accession is None else None
        joined = join(file.path, feather.read_table(job.work.obs_rows(number)), of_cells, reader.barcodes())
    elif job.cell_metadata:
        joined = join(file.path, rows_beside(file, dict(job.obs_names)), None, reader.barcodes())
    obs = input_obs(reader, file, job, joined.frame)
    if file.accession is not None:
        experiments, codes = [file.accession], np.broadcast_to(np.int64(0), (reader.n_obs,))
    else:
        codes, distinct = pd.factorize(accessions, sort=True)
        experiments = distinct.tolist()
    control = control_mask(job, file, reader, joined.frame)
    return FileCells(obs, accessions, experiments, codes, names, control, joined.unmatched, n_renamed)


def control_mask(job: ScanJob, file: InputFacts, reader: Reader, joined: pd.DataFrame) -> NDArray[np.bool_] | None:
    """Return which cells of the file are controls; None where all cells are wanted."""
    if (control := job.control) is None:
        return None
    own = by_final_name(file.obs_columns, job)
    column = control.find_column((*own, *file.obs_values, *joined.columns))
    if column is None:
        raise InputError(
            file.path, "no_control_column",
            f"has no obs column {' or '.join(control.columns)}; "
            "name it in control.column, or set control.missing=drop_file",
        )  # fmt: skip
    if column in file.obs_values:
        return control.mask(pd.Series([file.obs_values[column]] * reader.n_obs, dtype=object))
    if column in joined:
        return control.mask(joined[column].astype(object))
    return control.mask(one_column(reader.obs(own[column]), own[column], column, file.path).astype(object))


def input_obs(reader: Reader, file: InputFacts, job: ScanJob, joined: pd.DataFrame) -> InputObs:
    """Read the wanted obs columns of a file: the manifest's values, then the table's of cells, then the file's own."""
    columns, ours = job.obs_columns, job.qc.columns
    own = by_final_name([name for name in file.obs_columns if name != file.accession_column], job)
    own = {called: names for called, names in own.items() if columns is None or called in columns}
    frame = reader.obs([name for names in own.values() for name in names])
    extra = {name: value for name, value in file.obs_values.items() if columns is None or name in columns}
    taken: dict[str, pd.Series] = {}
    for name, value in extra.items():
        taken[free_name(name, {*ours, *taken})] = pd.Series([value] * reader.n_obs)
    for name in joined.columns:
        if columns is None or name in columns:
            taken[free_name(name, {*ours, *taken})] = joined[name]
    for called, names in own.items():
        series = one_column(frame, names, called, file.path)
        free = free_name(called, {*ours, *taken})
        if called in job.numeric_columns:
            series = numbers(without_labels(series, job.missing_labels)[0], file.path, called)
        taken[free] = series
    return InputObs.of(taken, job, reader.n_obs, file.path)


def by_final_name(columns: Sequence[str], job: ScanJob) -> dict[str, list[str]]:
    """Return the columns of a file by what they are called in the directory."""
    renamed = dict(job.obs_names)
    names: dict[str, list[str]] = {}
    for column in columns:
        names.setdefault(renamed.get(column, column), []).append(column)
    return names


def one_column(frame: pd.DataFrame, names: Sequence[str], called: str, path: str) -> pd.Series:
    """Return columns that are called alike as one: of each cell the value of that which has one.

    Raises
    ------
    InputError
        Two of them have different values for a cell.
    """
    together = frame[names[0]].reset_index(drop=True)
    for name in names[1:]:
        first, other = together.astype(object), frame[name].reset_index(drop=True).astype(object)
        both = first.notna() & other.notna()
        differ = both & (first.where(both, "").map(label) != other.where(both, "").map(label))
        if differ.any():
            row = int(differ.to_numpy().argmax())
            raise InputError(
                path, "ambiguous_column",
                f"row {row} has {label(first[row])!r} in {names[0]} and {label(other[row])!r} in {name}, which "
                f"are one column here, {called} (input.join_columns); leave one out of it, or correct the file",
            )  # fmt: skip
        together = first.where(first.notna(), other).infer_objects()
    return together


def free_name(name: str, taken: Container[str]) -> str:
    """Return the column's name, with ``orig_`` before it while it is one of ours or taken; HDF5 forbids slashes."""
    name = name.replace("/", "_") or "unnamed"
    while is_ours(name) or name in taken:
        name = f"orig_{name}"
    return name


def spooled_obs(
    cells: ScannedCells, names: NDArray[np.object_], file_numbers: NDArray[np.int32], own: pa.Table
) -> pa.Table:
    """Return the obs of a sorted run's rows: what is known after the scan, then the file's own columns."""
    columns: dict[str, pa.Array] = {
        "obs_name": pa.array(names, pa.string()),
        "file_number": pa.array(file_numbers),
        **{column.name: pa.array(column.values(cells)).cast(column.arrow_type) for column in our_columns("scan")},
        # NaN stays a number here, only what is neither true nor false becomes null.
        **{name: pa.array(values) for name, values in cells.metrics.items()},
        **{name: own.column(name) for name in own.column_names},
    }
    return pa.table(columns)


def cell_names(reader: Reader, file: InputFacts, rank: int) -> tuple[NDArray[np.object_], Any, int]:
    """Return each row's accession, a function from rows to names unique in the directory, and how many recur.

    A name is ``ACCESSION:barcode``; from the second file of an accession on,
    ``ACCESSION#2:barcode``. Barcodes that recur in a file get ``-1``, ``-2``, …
    """
    written = reader.barcodes()
    check_texts(file.path, "names of cells", written.tolist())
    unique = unique_names(written)
    n_renamed = int((unique != written).sum())
    # Arrow holds text in a third of the memory that Python strings take.
    barcodes = pa.array(unique, pa.string())
    check_cells(file, barcodes)
    if file.accession is not None:
        accessions = np.broadcast_to(np.array(file.accession, object), (reader.n_obs,))
    else:
        accessions = reader.obs([str(file.accession_column)])[file.accession_column].map(label).to_numpy(object)
    tag = f"#{rank + 1}" if rank else ""

    def names(rows: NDArray[np.int64]) -> NDArray[np.object_]:
        of_rows = barcodes.take(pa.array(rows)).to_pylist()
        return np.array([f"{a}{tag}:{b}" for a, b in zip(accessions[rows], of_rows, strict=True)], object)

    return accessions, names, n_renamed


def check_cells(file: InputFacts, names: pa.Array) -> None:
    """Refuse a file in which a sum, a mean or reads of no cell stand in the row of a cell.

    Raises
    ------
    InputError
        ``not_single_cell``, with the row and its name.
    """
    row = pc.index(pc.match_substring_regex(names, NO_CELL, ignore_case=True), True).as_py()
    if row >= 0:
        raise InputError(
            file.path, "not_single_cell",
            f"{names[row].as_py()!r} stands among the cells, in place {row + 1:,}, and is called as a sum, a mean or "
            "reads of no cell are; take it out of the file",
        )  # fmt: skip


def unique_names(names: NDArray[np.object_]) -> NDArray[np.object_]:
    """Give repeated names a suffix ``-1``, ``-2``, … that collides with none; the first keeps its name."""
    repeated = pd.Series(names).duplicated().to_numpy()
    if not repeated.any():
        return names
    taken, counters, unique = set(names), dict.fromkeys(names[repeated], 0), names.copy()
    for row in np.flatnonzero(repeated):
        name = names[row]
        while True:
            counters[name] += 1
            candidate = f"{name}-{counters[name]}"
            if candidate not in taken:
                break
        taken.add(candidate)
        unique[row] = candidate
    return unique
