"""A table of cells and the headers of all files in; the rows of each file, where its scan finds them, out."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.processing.facts import InputFacts
from scvae_data.processing.labels import label
from scvae_data.processing.settings.inputs import ACCESSION_COLUMNS, Inputs
from scvae_data.processing.settings.text_table import read_text_table
from scvae_data.processing.sort.obs_kinds import numbers, without_labels
from scvae_data.processing.work import WorkFolder
from scvae_data.remote.location import Location
from scvae_data.wording import counted

__all__ = ["ObsTable", "read_obs_table"]

log = logging.getLogger(__name__)

KEYS = (*ACCESSION_COLUMNS, "file")
KEPT_TYPES = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_string)


@dataclass(frozen=True)
class ObsTable:
    """What a table says of cells.

    Parameters
    ----------
    keys
        The accession or file of each row, as text.
    by_file
        Whether the keys are files.
    table
        ``barcode``, and the columns to add.
    """

    path: Path
    keys: NDArray[np.object_]
    by_file: bool
    table: pa.Table

    @property
    def columns(self) -> list[str]:
        """The obs columns that the table adds."""
        return [name for name in self.table.column_names if name != "barcode"]

    def rows_of(self, files: Sequence[InputFacts]) -> list[NDArray[np.int64]]:
        """Return the rows of each file; a warning counts those of none.

        Raises
        ------
        ConfigError
            An accession is that of several files, or no row is of any file.
        """
        owners: defaultdict[str, list[int]] = defaultdict(list)
        for number, file in enumerate(files):
            for key in {file.source_file, file.path} if self.by_file else file.accessions:
                owners[key].append(number)
        codes, distinct = pd.factorize(self.keys)
        owner = np.array([self._owner(key, owners, files) for key in distinct], np.int64)[codes]
        absent = np.flatnonzero(owner < 0)
        kind = "files" if self.by_file else "accessions"
        example = f"e.g. {self.keys[absent[0]]} (row {absent[0] + 1})" if len(absent) else ""
        if len(absent) == len(owner):
            known = min(files[0].accessions) if not self.by_file else files[0].source_file
            raise ConfigError(f"{self.path}: all rows are of {kind} that no input has, {example}; one is {known}")
        if len(absent):
            log.warning("%s: %s of %s that no input has, %s", self.path, counted(len(absent), "row"), kind, example)
        order = np.argsort(owner, kind="stable")
        borders = np.searchsorted(owner[order], np.arange(len(files) + 1))
        return [order[low:high] for low, high in pairwise(borders)]

    def _owner(self, key: str, owners: dict[str, list[int]], files: Sequence[InputFacts]) -> int:
        """Return the number of the file that a key names, -1 for none."""
        names = [key, str(self.path.parent / key)] if self.by_file else [key]
        found = next((owners[name] for name in names if name in owners), [])
        if len(found) > 1:
            raise ConfigError(
                f"{self.path}: accession {key} is that of {files[found[0]].source_file} and "
                f"{files[found[1]].source_file}; name the files in a column 'file' instead"
            )
        return found[0] if found else -1

    def save(self, work: WorkFolder, files: Sequence[InputFacts]) -> None:
        """Write the rows of each file for the worker that scans it."""
        table = self.table if self.by_file else self.table.append_column("key", pa.array(self.keys, pa.string()))
        for number, rows in enumerate(self.rows_of(files)):
            path = work.obs_rows(number)
            path.parent.mkdir(exist_ok=True)
            feather.write_feather(table.take(pa.array(rows)), path, compression="uncompressed")


def read_obs_table(inputs: Inputs) -> ObsTable | None:
    """Read the table of cells that the settings name; None without one.

    Raises
    ------
    ScvaeDataError
        It is no such table, describes a cell twice, or holds something else where numbers are wanted.
    """
    if inputs.obs_table is None:
        return None
    path = inputs.obs_table_path
    if path.suffix.lower() in {".parquet", ".pq"}:
        table = read_parquet(path)
    else:
        text = read_text_table(path, ["barcode"])
        table = pa.table({name: pa.array([one or None for one in text.column(name)]) for name in text.columns})
    found = [name for name in KEYS if name in table.column_names]
    if len(found) != 1 or "barcode" not in table.column_names:
        raise ConfigError(
            f"{path}: has columns {', '.join(table.column_names)}; a table of cells needs 'barcode', and either "
            "'srx_accession' or 'file'"
        )
    keys, barcodes = key_column(path, table, found[0]), key_column(path, table, "barcode")
    refuse_duplicates(path, found[0], keys, barcodes)
    columns = {
        name: plain_column(path, name, table.column(name), name in inputs.numeric_columns, inputs.missing_labels)
        for name in table.column_names
        if name not in (*found, "barcode")
    }
    if "key" in columns:
        raise ConfigError(f"{path}: a column to add must not be called key; rename it")
    return ObsTable(path, keys, found[0] == "file", pa.table({"barcode": pa.array(barcodes, pa.string()), **columns}))


def read_parquet(path: Path) -> pa.Table:
    """Read a Parquet table; what pandas keeps of an index without a name is left out."""
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}; write it again") from error
    return table.select([name for name in table.column_names if not name.startswith("__index_level_")])


def key_column(path: Path, table: pa.Table, name: str) -> NDArray[np.object_]:
    """Return a column that tells cells, as text; refuse one with gaps."""
    values = table.column(name)
    if values.null_count:
        row = values.is_null().to_numpy().argmax() + 1
        raise ConfigError(f"{path}: row {row} has no {name}; every row is of one cell")
    encoded = values.combine_chunks().dictionary_encode()
    names = np.array([label(value) for value in encoded.dictionary.to_pylist()], object)
    return names[encoded.indices.to_numpy()] if len(names) else np.empty(0, object)


def refuse_duplicates(path: Path, name: str, keys: NDArray[np.object_], barcodes: NDArray[np.object_]) -> None:
    """Refuse two rows of one cell."""
    again = np.flatnonzero(pd.DataFrame({"key": keys, "barcode": barcodes}).duplicated().to_numpy())
    if len(again):
        row = int(again[0])
        first = int(np.flatnonzero((keys == keys[row]) & (barcodes == barcodes[row]))[0])
        more = f"; {counted(len(again) - 1, 'more row')} repeat others" if len(again) > 1 else ""
        raise ConfigError(
            f"{path}: rows {first + 1} and {row + 1} are both of barcode {barcodes[row]} of {name} {keys[row]}; "
            f"remove one{more}"
        )


def plain_column(
    path: Location, name: str, column: pa.ChunkedArray, numeric: bool, missing: Sequence[str] = ()
) -> pa.ChunkedArray:
    """Return a column as booleans, numbers or text; where numbers are wanted, without the texts that mean none."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_nested(column.type):
        raise ConfigError(f"{path}: column {name} holds lists or structures; store text, numbers or booleans")
    if not any(fits(column.type) for fits in KEPT_TYPES):
        texts = [None if value is None else label(value) for value in column.to_pylist()]
        column = pa.chunked_array([pa.array(texts, pa.string())])
    if numeric and not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        values = numbers(without_labels(column.to_pandas(), missing)[0], str(path), name, first_row=1)
        return pa.chunked_array([pa.array(values, from_pandas=True)])
    return column
