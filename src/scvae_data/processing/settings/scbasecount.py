"""A release of scBaseCount in, the files that are wanted of it with what its tables say of each out.

A release is laid out as ``RELEASE/h5ad/FEATURE/ORGANISM/ACCESSION.h5ad`` and
``RELEASE/metadata/FEATURE/ORGANISM/`` with ``sample_metadata.parquet``, a row
an experiment, and ``obs_metadata.parquet``, a row a cell. Its places are
joined as text, and looked at in `names_in` alone.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import ConfigError, SelectionError
from scvae_data.filter import check_filter, mask
from scvae_data.processing.labels import label
from scvae_data.processing.settings.inputs import (
    InputFile,
    Inputs,
    ObsValue,
    check_accession,
    read_parquet_rows,
    read_rows,
)
from scvae_data.remote import objects
from scvae_data.remote.location import Location, RemotePath, is_remote, local_path, location
from scvae_data.remote.range_file import open_anywhere
from scvae_data.store import SRX_COLUMN
from scvae_data.store.files import is_there, write_atomic
from scvae_data.wording import counted

__all__ = ["ScBaseCountInput", "cells_beside", "columns_of_cells"]

log = logging.getLogger(__name__)

SAMPLES, CELLS = "sample_metadata.parquet", "obs_metadata.parquet"
KEYS = ("srx_accession", SRX_COLUMN)
BARCODE_COLUMNS = ("barcode", "cell_barcode", "barcodes")
PLACES = ("path", "file_path")
"""Columns that say where a file was, which differs from where it is now."""
CORRECT = "correct input.path or input.release"
Rows = list[tuple[str, dict[str, ObsValue]]]
"""Accession and all columns of each row."""


@dataclass(frozen=True)
class ScBaseCountInput(Inputs):
    """Experiments of a release of scBaseCount, chosen by its sample tables.

    Parameters
    ----------
    path
        A folder with releases, a release, its ``metadata`` folder or a folder
        below that, here or in a remote store: each says as much as its place tells.
    release, feature, organism
        Names of folders, e.g. ``2026-01-12``, ``GeneFull_Ex50pAS`` and
        ``Homo_sapiens``; organism may be a list. Each may be None where there is only one.
        ``release`` may also be the address of one in a store, instead of ``path``.
    where
        Which rows of the sample tables are wanted, in the words of ``data.filter``; None for all.
    studies
        CSV, TSV or Parquet with a row an experiment: ``srx_accession`` and columns to add, e.g. ``study``.
    obs_metadata
        Whether the columns of the release's table of cells join those of the
        files, by accession and barcode, where a file has none of the name.
    missing
        What files mean that a table lists and that are not there: an ``"error"``, or ``"skip"``.
    missing_list
        File that lists them, a path a line.
    """

    path: str | None = None
    release: str | None = None
    feature: str | None = None
    organism: str | Sequence[str] | None = None
    where: str | None = None
    studies: str | None = None
    obs_metadata: bool = True
    missing: str = "error"
    missing_list: str = "missing_files.txt"

    renamed: ClassVar[Mapping[str, str]] = {"cell_type_ontology_term_id": "cell_ontology_term_id"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.missing not in ("error", "skip"):
            raise ConfigError(f"input.missing={self.missing} must be error or skip")
        if self.where is not None and not isinstance(self.where, str):
            raise ConfigError(f"input.where={self.where!r} must be a text such as \"tech_10x == '3_prime_gex'\"")
        if self.obs_table is not None and self.obs_metadata:
            raise ConfigError("input.obs_table and the release's own table of cells: give input.obs_metadata=false too")
        check_filter(self.where, "input.where")

    @cached_property
    def folders(self) -> dict[str, str]:
        """Per organism the folder of its metadata."""
        base, given = self._base()
        metadata = f"{base}/metadata"
        feature = chosen("feature", given[0], self.feature, metadata)
        found = names_in(f"{metadata}/{feature}")
        wanted = self.organism
        names = [wanted] if isinstance(wanted, str) else list(wanted or [])
        if given[1] or not names:
            names = [chosen("organism", given[1], names[0] if names else None, f"{metadata}/{feature}")]
        names = [name.replace(" ", "_") for name in names]
        for name in names:
            if name not in found:
                raise ConfigError(f"input.organism={name} is not in {metadata}/{feature}; there are {listed(found)}")
        return {name: f"{metadata}/{feature}/{name}" for name in names}

    def _base(self) -> tuple[str, tuple[str, str]]:
        """Return the folder of the release, and feature and organism as far as `path` says them."""
        by_address = self.release is not None and is_remote(self.release)
        if by_address and self.path:
            raise ConfigError(f"input.release={self.release} is an address by itself; leave out input.path={self.path}")
        given, name = (self.release, None) if by_address else (self.path, self.release)
        if not given:
            raise ConfigError("input.path is not set; give the folder of scBaseCount's releases, or a release")
        path = str(location(given))
        before, inside, after = f"{path}/".rpartition("/metadata/")
        if inside:
            parts = [part for part in after.split("/") if part]
            if len(parts) > 2:
                raise ConfigError(f"input.path={path}: below metadata/ are FEATURE and ORGANISM; give one of these")
            feature, organism = (*parts, "", "")[:2]
            return before, (feature, organism)
        if name is None and "metadata" in names_in(path):
            return path, ("", "")
        if name is not None:
            if name not in names_in(path):
                raise ConfigError(f"input.release={name} is not in {path}; there are {listed(names_in(path))}")
            return f"{path}/{name}", ("", "")
        releases = [name for name in sorted(names_in(path)) if "metadata" in names_in(f"{path}/{name}")]
        if len(releases) != 1:
            there = f"there are {', '.join(releases)}" if releases else "no folder there has a folder metadata"
            raise ConfigError(f"input.release is not set and input.path={path} is no release; {there}")
        return f"{path}/{releases[0]}", ("", "")

    @property
    def cell_metadata(self) -> str:
        """Hash of the tables of cells that the files are joined with; empty if they are not."""
        if not self.obs_metadata:
            return ""
        digest = hashlib.sha256()
        for folder in self.folders.values():
            digest.update(footer(f"{folder}/{CELLS}"))
        return digest.hexdigest()

    @property
    def cell_columns(self) -> list[str]:
        """Obs columns that the tables of cells add."""
        if not self.obs_metadata:
            return []
        columns = {name for folder in self.folders.values() for name in columns_of_cells(f"{folder}/{CELLS}")[2]}
        return sorted(self.obs_names.get(name, name) for name in columns)

    @property
    def of_content(self) -> dict[str, Any]:
        """Settings that change the content of chunks."""
        return super().of_content | {"scbasecount": [dict(self.renamed), self.cell_metadata]}

    def files(self) -> list[InputFile]:
        """Read the sample tables; every chosen row names a file."""
        studies = self._studies()
        files: list[InputFile] = []
        missing: list[str] = []
        tables = {f"{folder}/{SAMPLES}": self._rows(f"{folder}/{SAMPLES}") for folder in self.folders.values()}
        wanted = tables if self.where is None else self._wanted(tables, self.where)
        for organism, folder in self.folders.items():
            rows, kept = tables[f"{folder}/{SAMPLES}"], wanted[f"{folder}/{SAMPLES}"]
            counts = of_counts(folder)
            there = names_in(counts)
            listed_here = {f"{name}.h5ad" for name, _ in rows}
            if others := sorted(name for name in there if name.endswith(".h5ad") and name not in listed_here):
                n_others = counted(len(others), "file")
                log.info("%s: %s that %s has no row for, e.g. %s", counts, n_others, SAMPLES, others[0])
            log.info(
                "%s: %s of %s of %s are wanted", folder, f"{len(kept):,}", counted(len(rows), "experiment"), organism
            )
            for accession, row in kept:
                path = f"{counts}/{accession}.h5ad"
                if f"{accession}.h5ad" not in there:
                    missing.append(path)
                    continue
                values = {name: value for name, value in row.items() if name not in (*KEYS, *PLACES)}
                files.append(InputFile(location(path), accession, values | studies.get(accession, {})))
        self._tell_missing(missing, len(files))
        if studies:
            tell_without_study(files, studies)
        return files

    def _rows(self, table: str) -> Rows:
        """Read a sample table: accession and all columns of each row."""
        place = location(table)
        if not is_there(place):
            raise ConfigError(f"{table} does not exist; fetch the metadata of the release first")
        rows = keyed(place, read_parquet_rows(place))
        if not rows:
            raise ConfigError(f"{table} lists no experiment")
        return rows

    def _wanted(self, tables: Mapping[str, Rows], where: str) -> dict[str, Rows]:
        """Return the rows of each table that are wanted, judged by all together."""
        named = " and ".join(tables)
        every = pd.DataFrame([row for rows in tables.values() for _, row in rows])
        try:
            keep = mask(RowColumns(every, named), where)
        except SelectionError as error:
            raise ConfigError(str(error)) from error
        if not keep.any():
            raise ConfigError(f"input.where={where}: no row of {named} is kept")
        flags = iter(keep)
        return {table: [row for row in rows if next(flags)] for table, rows in tables.items()}

    def _studies(self) -> dict[str, dict[str, ObsValue]]:
        """Read the table of studies: its columns by accession."""
        if self.studies is None:
            return {}
        path = local_path("input.studies", self.studies).expanduser().absolute()
        named = keyed(path, read_rows("input.studies", path, KEYS[:1]))
        return {name: {column: value for column, value in row.items() if column not in KEYS} for name, row in named}

    def _tell_missing(self, missing: Sequence[str], n_files: int) -> None:
        """Write a list of the files that are not there, and tell of them in one line."""
        target = local_path("input.missing_list", self.missing_list)
        if not missing:
            target.unlink(missing_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, "".join(f"{path}\n" for path in missing).encode())
        n_all = counted(n_files + len(missing), "wanted file")
        said = f"{len(missing):,} of {n_all} are missing, e.g. {missing[0]}; all in {target}"
        if self.missing == "error" or not n_files:
            raise ConfigError(f"{said}; fetch them, or leave them out with input.missing=skip")
        log.warning("%s", said)


class RowColumns:
    """The columns of a table of experiments, for a filter."""

    setting, kind = "input.where", "column"

    def __init__(self, frame: pd.DataFrame, where: str) -> None:
        self._frame, self.where = frame, where
        self.names, self.n_rows = list(frame.columns), len(frame)

    def categories(self, name: str) -> Sequence[str] | None:
        """Distinct texts of a column, None for one of numbers."""
        column = self._frame[name]
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            return None
        return sorted({label(value) for value in column.dropna()})

    def place(self, name: str) -> dict[str, int]:
        """Position of each of them."""
        return {text: number for number, text in enumerate(self.categories(name) or ())}

    def codes(self, name: str) -> NDArray[Any]:
        """Position of each row's text among them."""
        texts = self._frame[name].map(label, na_action="ignore")
        categories = self.categories(name) or ()
        codes = pd.Categorical(texts, categories=list(categories)).codes.astype(np.int64)
        return np.where(codes < 0, len(categories), codes)

    def read(self, name: str) -> pd.Series[Any]:
        """A column of numbers."""
        return self._frame[name]


def names_in(folder: str) -> set[str]:
    """Return the names in a folder: the only place that looks at how a release is laid out.

    Raises
    ------
    ConfigError
        There is no such folder.
    """
    place = location(folder)
    if isinstance(place, RemotePath):
        if found := objects.names_in(place):
            return found
        objects.check_bucket(place)
        beside = objects.names_in(place.parent)
        raise ConfigError(f"there is no folder {folder}; {place.parent} has {listed(beside) or 'none'}; {CORRECT}")
    try:
        return {path.name for path in place.iterdir()}
    except OSError as error:
        raise ConfigError(f"{folder} cannot be listed: {error.strerror}; {CORRECT}") from error


def of_counts(folder: str) -> str:
    """Return where the files lie that the metadata of a folder describe."""
    base, _, below = folder.rpartition("/metadata/")
    return f"{base}/h5ad/{below}"


def cells_beside(path: str) -> str:
    """Return where the table of cells lies that describes a file."""
    base, _, below = path.rpartition("/h5ad/")
    return f"{base}/metadata/{below.rpartition('/')[0]}/{CELLS}"


def chosen(key: str, by_path: str, given: str | None, folder: str) -> str:
    """Return which folder is meant: the one that the path names, that is given, or the only one."""
    found = names_in(folder)
    if by_path and given and given.replace(" ", "_") != by_path:
        raise ConfigError(f"input.{key}={given} is not the {by_path} of input.path; give one of them")
    name = by_path or given
    if name is None and len(found) == 1:
        return min(found)
    if name is None or name.replace(" ", "_") not in found:
        said = f"input.{key}={name} is not in {folder}" if name else f"input.{key} is not set"
        raise ConfigError(f"{said}; {folder} has {listed(found)}")
    return name.replace(" ", "_")


def listed(names: Sequence[str] | set[str], most: int = 10) -> str:
    """Return some names as a text."""
    return ", ".join(sorted(names)[:most]) + (", …" if len(names) > most else "")


def keyed(path: Location, rows: Sequence[dict[str, ObsValue]]) -> Rows:
    """Return each row with its accession; refuse one without, and two of one."""
    key = next((name for name in KEYS if rows and name in rows[0]), None)
    if rows and key is None:
        raise ConfigError(f"{path}: no column {' or '.join(KEYS)} among {', '.join(rows[0])}")
    found = []
    for number, row in enumerate(rows, start=1):
        if (name := row[str(key)]) is None:
            raise ConfigError(f"{path}: row {number} has no {key}")
        found.append((check_accession(label(name), path), row))
    if twice := [name for name, n in Counter(name for name, _ in found).items() if n > 1]:
        raise ConfigError(f"{path}: {len(twice)} accessions more than once, e.g. {twice[0]}; keep one row of each")
    return found


def tell_without_study(files: Sequence[InputFile], studies: Mapping[str, Mapping[str, ObsValue]]) -> None:
    """Warn of experiments that the table of studies has no row for, and refuse columns that are there already."""
    columns = {column for row in studies.values() for column in row}
    for file in files:
        if both := sorted(columns & file.obs_values.keys() - studies.get(file.accession or "", {}).keys()):
            raise ConfigError(f"input.studies: column {both[0]} is in {SAMPLES} too; rename it")
    without = [file.accession for file in files if file.accession not in studies]
    if without:
        n_files = counted(len(files), "experiment")
        log.warning("input.studies: no row for %s of %s, e.g. %s", f"{len(without):,}", n_files, without[0])


def columns_of_cells(path: str) -> tuple[str, str, list[str]]:
    """Return the columns of a table of cells: of accessions, of barcodes, and the others."""
    import pyarrow as pa  # here: training on raw files, by the older names, starts without it
    import pyarrow.parquet as pq

    try:
        with open_anywhere(location(path)) as file:
            names = pq.read_schema(file).names
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path) from error
    key, barcode = (next((name for name in wanted if name in names), "") for wanted in (KEYS, BARCODE_COLUMNS))
    if not (key and barcode):
        raise ConfigError(
            f"{path}: has columns {', '.join(names)}; {' or '.join(KEYS)} and {' or '.join(BARCODE_COLUMNS)} are "
            "needed; input.obs_metadata=false leaves it out"
        )
    return key, barcode, [name for name in names if name not in (key, barcode)]


def footer(path: str) -> bytes:
    """Return the footer of a Parquet file, with the sizes and bounds of all its parts: what tells it from another.

    Raises
    ------
    ConfigError
        There is no such file.
    """
    try:
        with open_anywhere(location(path)) as file:
            file.seek(-8, os.SEEK_END)
            length = int.from_bytes(file.read(4), "little")
            file.seek(-8 - length, os.SEEK_END)
            return file.read()
    except (OSError, ValueError) as error:
        raise unreadable(path) from error


def unreadable(path: str) -> ConfigError:
    """Say what helps where a table of cells cannot be read."""
    return ConfigError(
        f"{path} cannot be read as Parquet; fetch it, or leave its columns out with input.obs_metadata=false"
    )
