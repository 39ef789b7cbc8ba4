"""What is known of cells that are read as one: their chunks, genes and obs columns, and where each cell lies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scvae_data.errors import SelectionError
from scvae_data.remote.location import Location
from scvae_data.store.cell_tables import ChunkTables
from scvae_data.store.chunk_reader import ChunkReader
from scvae_data.store.chunk_writer import ChunkEntry
from scvae_data.store.gene_list import GeneList, GeneSets
from scvae_data.store.names import FORMAT_VERSION, SRX_COLUMN
from scvae_data.store.obs_writer import NAME_COLUMN, ObsColumn
from scvae_data.store.source import OpenSource
from scvae_data.wording import named, similar

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CellIndex"]


@dataclass(frozen=True, eq=False, kw_only=True)
class CellIndex(ABC):
    """A finished dataset directory, or several that are read as one.

    Holds facts of chunks, never of cells; what is per cell is read from
    the tables of cells when asked for. Can be pickled; files are opened in each process anew.

    Parameters
    ----------
    n_obs, n_vars, nnz
        Cells, genes and stored counts in all.
    chunk_size
        Cells of a chunk when it was written; a chunk may hold fewer.
    chunks
        Chunk files in global row order.
    obs_columns
        Columns of the obs tables, without the cell names.
    block_elements
        Elements of a block of a chunk.
    order
        ``kind`` (hash, source or group), ``seed``, ``group_column``.
    normalization
        ``method`` (log1p or none), ``target_sum``, ``size_factor_genes`` (kept or all).
    processing_id
        Identifies what the cells were made from and how.
    gene_list_hash
        :attr:`GeneList.hash` of the genes.
    simulated
        Whether the counts come from the simulator.
    content_hash
        SHA-256 over the checksums of all content.
    format_version
        Version of the format.
    """

    n_obs: int
    n_vars: int
    nnz: int
    chunk_size: int
    chunks: tuple[ChunkEntry, ...]
    obs_columns: Mapping[str, ObsColumn]
    block_elements: int
    order: Mapping[str, Any]
    normalization: Mapping[str, Any]
    processing_id: str
    gene_list_hash: str
    simulated: bool = False
    content_hash: str = ""
    format_version: int = FORMAT_VERSION

    @property
    @abstractmethod
    def where(self) -> str:
        """The directory, or all of them, as a message names them."""

    @property
    @abstractmethod
    def members(self) -> tuple[CellIndex, ...]:
        """Each directory by itself."""

    @property
    @abstractmethod
    def paths(self) -> tuple[Location, ...]:
        """Where each directory is."""

    @property
    @abstractmethod
    def sources(self) -> tuple[OpenSource, ...]:
        """What opens the files of each directory."""

    @property
    @abstractmethod
    def genes(self) -> GeneList:
        """The genes in column order."""

    @property
    @abstractmethod
    def gene_sets(self) -> GeneSets:
        """Which genes were measured, by the codes of the obs column ``gene_set``."""

    @property
    @abstractmethod
    def cells(self) -> ChunkTables:
        """Metadata of cells, chunk by chunk."""

    @property
    @abstractmethod
    def chunks_of_generations(self) -> list[range]:
        """Numbers of the chunks of each generation."""

    @abstractmethod
    def place(self, chunk_id: int) -> tuple[Location, OpenSource]:
        """Where a chunk file is, and what opens it."""

    @abstractmethod
    def reader(self, chunk_id: int) -> ChunkReader:
        """Return a new reader of one chunk's counts."""

    @abstractmethod
    def grown_from(self, content_hash: str) -> int | list[int] | None:
        """With how many generations these cells had a content hash; None if never, or if that is what they have."""

    @abstractmethod
    def tell(self) -> None:
        """Say in the log what is not plain to see of directories that are read as one."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Plain values that say which cells these are."""

    def __getstate__(self) -> dict[str, Any]:
        # What was read is read again where it is needed.
        return {name: value for name, value in self.__dict__.items() if name not in ("genes", "gene_sets", "cells")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @cached_property
    def first_rows(self) -> NDArray[np.int64]:
        """Global row of each chunk's first cell and, last, ``n_obs``; int64, (n_chunks + 1,)."""
        return np.array([*(chunk.first_row for chunk in self.chunks), self.n_obs], dtype=np.int64)

    def locate(self, rows: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Chunk and row within the chunk of global rows; int64, each in the shape of ``rows``.

        Raises
        ------
        IndexError
            If a row is below 0 or not below ``n_obs``.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        if wanted.size and not 0 <= int(wanted.min()) <= int(wanted.max()) < self.n_obs:
            outside = wanted[(wanted < 0) | (wanted >= self.n_obs)].flat[0]
            raise IndexError(f"row {outside} is not within the {self.n_obs} rows of {self.where}")
        # From the right, so that an empty chunk never owns a row.
        chunk_ids = np.searchsorted(self.first_rows, wanted, side="right").astype(np.int64) - 1
        return chunk_ids, wanted - self.first_rows[chunk_ids]

    def obs(self, columns: Sequence[str] | None = None, rows: ArrayLike | None = None) -> pd.DataFrame:
        """Cell metadata, indexed by cell name.

        Parameters
        ----------
        columns
            Which columns, all by default; only these are read.
        rows
            Global rows in any order, all by default; only the row groups that hold them are read.

        Raises
        ------
        SelectionError
            If a column does not exist.
        IndexError
            If a row does not exist.
        """
        names = list(self.obs_columns if columns is None else columns)
        self._check_columns(names)
        wanted = [*names, NAME_COLUMN]
        if rows is None:
            frame = self.cells.frame(wanted, ((chunk_id, slice(None)) for chunk_id in range(len(self.chunks))))
        else:
            chunk_ids, local = self.locate(np.atleast_1d(np.asarray(rows, dtype=np.int64)))
            order = np.argsort(chunk_ids, kind="stable")
            found, first = np.unique(chunk_ids[order], return_index=True)
            pieces = zip(found.tolist(), np.split(local[order], first[1:]), strict=True)
            frame = self.cells.frame(wanted, pieces if found.size else [(0, slice(0))])
            frame = frame.iloc[np.argsort(order, kind="stable")]
        return frame.set_index(NAME_COLUMN).rename_axis(None)

    def codes(self, column: str, chunk_id: int | None = None) -> NDArray[np.int32]:
        """Category codes of the cells of a chunk, or of all: 4 bytes for each; int32, (n_obs,).

        A code is the position in ``obs_columns[column].categories``; a missing
        value has ``len(categories)``.

        Raises
        ------
        SelectionError
            If the column does not exist or is not categorical.
        """
        self.categories(column)
        if chunk_id is not None:
            codes: NDArray[np.int32] = self.cells.array(chunk_id, column)
            return codes
        every = (self.cells.array(number, column) for number in range(len(self.chunks)))
        return np.concatenate([np.zeros(0, np.int32), *every])

    def categories(self, column: str) -> tuple[str, ...]:
        """Categories of a column.

        Raises
        ------
        SelectionError
            If the column does not exist or is not categorical.
        """
        self._check_columns([column])
        categories = self.obs_columns[column].categories
        if categories is None:
            possible = [name for name, other in self.obs_columns.items() if other.categories is not None]
            raise SelectionError(
                f"obs column {column!r} is {self.obs_columns[column].dtype}, not categorical; "
                f"choose one of {named(possible, 10)}"
            )
        return categories

    def rows(self, srx: Sequence[str]) -> NDArray[np.int64]:
        """Global rows of the cells of some experiments, ascending; int64.

        Raises
        ------
        SelectionError
            If an accession is not in the directory; the message names it and similar ones.
        """
        wanted = self.srx_codes(srx)
        parts = [np.zeros(0, np.int64)]
        for chunk_id, first_row in enumerate(self.first_rows[:-1].tolist()):
            parts.append(np.flatnonzero(np.isin(self.codes(SRX_COLUMN, chunk_id), wanted)) + first_row)
        return np.concatenate(parts)

    def srx_codes(self, srx: Sequence[str]) -> NDArray[np.int32]:
        """Codes of experiment accessions; int32, in the order given.

        Raises
        ------
        SelectionError
            As :meth:`rows`, and when ``srx`` is one string instead of a list of them.
        """
        if isinstance(srx, str):
            raise SelectionError(f"accessions must be a list, got the string {srx!r}; write [{srx}]")
        self._check_columns([SRX_COLUMN])
        column = self.obs_columns[SRX_COLUMN]
        categories, place = column.categories or (), column.place
        if unknown := [str(name) for name in srx if name not in place]:
            raise SelectionError(_unknown("SRX accession", unknown, categories, self.where))
        return np.array([place[name] for name in srx], dtype=np.int32)

    def _check_columns(self, names: Sequence[str]) -> None:
        if unknown := [str(name) for name in names if name not in self.obs_columns]:
            raise SelectionError(_unknown("obs column", unknown, tuple(self.obs_columns), self.where))


def _unknown(what: str, names: Sequence[str], known: Sequence[str], where: str) -> str:
    """One line naming what is unknown (a few of many) and what it may have been meant to be."""
    close = list(dict.fromkeys(match for name in names[:3] for match in similar(name, known)))
    hint = f"did you mean {', '.join(close[:6])}?" if close else f"it has {len(known)}, e.g. {', '.join(known[:3])}"
    return f"{what} {named(names, 10)} not in {where}; {hint}"
