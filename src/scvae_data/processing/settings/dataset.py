"""Dataset directories in; their chunks as inputs, and where the cells of these came from, out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import ConfigError, SelectionError, StoreError
from scvae_data.filter import check_filter, columns_in, mask
from scvae_data.processing.settings.inputs import InputFile, Inputs, Origin
from scvae_data.remote.location import location
from scvae_data.store import SRX_COLUMN, DatasetIndex, ObsColumn, open_index
from scvae_data.store.joined_tables import DIRECTORY_COLUMN, join_columns
from scvae_data.wording import counted

__all__ = ["CellColumns", "DatasetInput"]


@dataclass(frozen=True)
class DatasetInput(Inputs):
    """Chunks of finished directories: cells keep names, metrics, obs and the input that they came from.

    Parameters
    ----------
    paths
        A directory, here or in a store, or a list of them; no experiment may be in two.
    where
        Which cells are wanted, in the words of ``data.filter``; None for all.
    """

    paths: str | Sequence[str] = ()
    where: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.where is not None and not isinstance(self.where, str):
            raise ConfigError(f'input.where={self.where!r} must be a text such as "total_counts > 1000"')
        check_filter(self.where, "input.where")
        for key in ("obs_table", "counts", "table_rows"):
            if getattr(self, key) is not None:
                raise ConfigError(f"input.{key} is of raw files; input=dataset has no use for it")

    def check_named(self) -> None:
        """Refuse no directory."""
        if not self.paths:
            raise ConfigError("input.paths is empty; give a directory that process.py made, or a list of them")

    @cached_property
    def indices(self) -> list[DatasetIndex]:
        """The index of each directory."""
        self.check_named()
        paths = [self.paths] if isinstance(self.paths, str) else list(self.paths)
        folders = [location(path) for path in paths]
        if twice := [str(folder) for number, folder in enumerate(folders) if folder in folders[:number]]:
            raise ConfigError(f"input.paths names {twice[0]} more than once")
        try:
            found = [open_index(folder) for folder in folders]
        except StoreError as error:
            raise ConfigError(f"input.paths: {error}") from error
        check_experiments(found)
        if self.where is not None:
            check_where(found, self.where)
        return found

    @property
    def cells_where(self) -> str | None:
        """Which cells are wanted."""
        return self.where

    @property
    def simulated(self) -> bool:
        """Whether counts of any directory come from a simulator."""
        return any(index.simulated for index in self.indices)

    @property
    def of_content(self) -> dict[str, Any]:
        """Settings that change the content of chunks."""
        return super().of_content | {"where": self.where}

    @property
    def origins(self) -> Sequence[Origin]:
        """The inputs of all directories."""
        return self._origins

    @cached_property
    def _origins(self) -> list[Origin]:
        return [origin for index in self.indices for origin in origins_of(index)]

    def files(self) -> list[InputFile]:
        """List the chunks of all directories."""
        return [InputFile(index.path / chunk.file, is_chunk=True) for index in self.indices for chunk in index.chunks]


def check_experiments(indices: Sequence[DatasetIndex]) -> None:
    """Refuse an experiment that is in two directories: its cells would be there twice, under one name."""
    owner: dict[str, DatasetIndex] = {}
    for index in indices:
        names = index.obs_columns[SRX_COLUMN].categories or ()
        if both := [name for name in names if name in owner]:
            raise ConfigError(
                f"input.paths: {counted(len(both), 'experiment')} in {owner[both[0]].path} and {index.path}, e.g. "
                f"{both[0]}; make one of them without, by input=dataset with input.where"
            )
        owner |= dict.fromkeys(names, index)


def check_where(indices: Sequence[DatasetIndex], where: str) -> None:
    """Refuse a filter of cells that names a column or a value that no directory has.

    Raises
    ------
    SelectionError
        It does, or compares a column that is of different kinds in several directories.
    """
    every = [index.where for index in indices]
    columns, unlike = join_columns([index.obs_columns for index in indices], every)
    del columns[DIRECTORY_COLUMN]  # no column of a chunk
    if apart := [name for name in columns_in(where) if name in unlike]:
        kinds = (f"{one.obs_columns[apart[0]].dtype} in {one.where}" for one in indices if apart[0] in one.obs_columns)
        raise SelectionError(f"input.where: {apart[0]} is {', '.join(kinds)}; choose cells of each directory by itself")
    # What a comparison makes sense for is known without a row.
    frame = pd.DataFrame({name: pd.Series(dtype=plain_type(column)) for name, column in columns.items()})
    mask(CellColumns(columns, frame, " and ".join(every)), where)


def plain_type(column: ObsColumn) -> str:
    """Return the type that a column of cells has in pandas."""
    return "object" if column.dtype in ("categorical", "string") else column.dtype


class CellColumns:
    """Cells of a dataset directory, with its categories."""

    setting, kind = "input.where", "obs column"

    def __init__(self, columns: Mapping[str, ObsColumn], frame: pd.DataFrame, where: str) -> None:
        self._columns, self._frame, self.where = columns, frame, where
        self.names, self.n_rows = list(columns), len(frame)

    def categories(self, name: str) -> Sequence[str] | None:
        """Categories of a column, None for one of numbers or other texts."""
        return self._columns[name].categories

    def place(self, name: str) -> Mapping[str, int]:
        """Position of each category of a column."""
        return self._columns[name].place

    def codes(self, name: str) -> NDArray[Any]:
        """Code of the category of each cell."""
        categories = self.categories(name) or ()
        codes = pd.Categorical(self._frame[name].astype(object), categories=list(categories)).codes.astype(np.int64)
        return np.where(codes < 0, len(categories), codes)

    def read(self, name: str) -> pd.Series[Any]:
        """A column of all cells."""
        return self._frame[name]


def origins_of(index: DatasetIndex) -> list[Origin]:
    """Return the inputs of a directory, and the genes that each of them measured.

    Raises
    ------
    ConfigError
        Cells of one input were measured for different genes.
    """
    files, genes = index.obs_columns["source_file"].categories or (), np.asarray(index.genes.names)
    code_of: dict[int, int] = {}
    if len(index.gene_sets) > 1:
        for number in range(len(index.chunks)):
            cells = index.cells.arrays(number, ["source_file", "gene_set"])
            for file, code in np.unique(np.column_stack(list(cells.values())), axis=0).tolist():
                if code_of.setdefault(file, code) != code:
                    raise ConfigError(f"{index.path}: cells of {files[file]} were measured for different sets of genes")
    sets = [frozenset(genes[index.gene_sets.masks([code])[0]].tolist()) for code in range(len(index.gene_sets))]
    return [Origin(str(index.path), name, sets[code_of.get(file, 0)]) for file, name in enumerate(files)]
