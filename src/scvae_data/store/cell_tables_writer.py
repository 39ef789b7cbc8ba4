"""The cells of each chunk in, the tables of one generation out: all metadata, and the columns of fixed width."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from scvae_data.store.cell_tables import Generation
from scvae_data.store.files import FileFacts
from scvae_data.store.gene_list import GeneSets, write_gene_sets
from scvae_data.store.names import generation_file
from scvae_data.store.obs_writer import ObsColumn, ObsWriter, global_codes
from scvae_data.store.row_table import RowTableWriter, stored_types

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CellTablesWriter", "table_names"]


def table_names(number: int) -> tuple[str, str, str]:
    """What the obs table, the row table and the gene sets of a generation are called."""
    obs, rows, gene_sets = (generation_file(name, number) for name in ("obs.parquet", "rows.bin", "gene_sets.bin"))
    return obs, rows, gene_sets


class CellTablesWriter:
    """Write the tables chunk by chunk; the files appear when :meth:`close` succeeds.

    Used as a context manager, it leaves nothing behind where the block raises.

    Parameters
    ----------
    directory
        Where to.
    columns
        Every obs column in order, with the categories of the whole directory.
    processing_id
        What the chunks say they were made by.
    """

    def __init__(self, directory: Path, columns: Mapping[str, ObsColumn], processing_id: str) -> None:
        self.processing_id = processing_id
        self.columns = dict(columns)
        self.directory = directory
        self._names = table_names(0)
        self._types = stored_types(columns)
        self._n_chunks = 0
        self._stack = ExitStack()
        self._obs = self._stack.enter_context(ObsWriter(directory / self._names[0], columns))
        self._rows = self._stack.enter_context(RowTableWriter(directory / self._names[1], self._types))

    def append(self, obs: pd.DataFrame) -> None:
        """Append the cells of the next chunk.

        Raises
        ------
        StoreError
            If columns are missing or hold values of another type.
        """
        self._obs.append(obs)
        values = {
            name: obs[name].to_numpy() if column.categories is None else global_codes(obs[name], column)
            for name, column in self.columns.items()
            if name in self._types
        }
        self._rows.append(values)
        self._n_chunks += 1

    def close(self, gene_sets: GeneSets) -> tuple[Generation, dict[str, FileFacts]]:
        """Publish the files, with the gene sets that are new; return what the index says of them."""
        obs, rows, sets = self._names
        facts = {obs: self._obs.close(), rows: self._rows.close()}
        facts[sets] = write_gene_sets(self.directory / sets, gene_sets)
        n_categories = {
            name: len(column.categories) for name, column in self.columns.items() if column.categories is not None
        }
        return Generation(self._n_chunks, obs, rows, self._types, sets, n_categories, self.processing_id), facts

    def __enter__(self) -> CellTablesWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
