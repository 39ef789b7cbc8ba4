"""Dataset directories in; their chunks as inputs, and where the cells of these came from, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from scvae_data.errors import ConfigError, StoreError
from scvae_data.filter import check_filter
from scvae_data.processing.settings.inputs import InputFile, Inputs, Origin
from scvae_data.remote.location import location
from scvae_data.store import SRX_COLUMN, DatasetIndex, open_index
from scvae_data.wording import counted

__all__ = ["DatasetInput"]


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
