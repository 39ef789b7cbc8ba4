"""A dataset directory as its index describes it: what is in it, and where each cell lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scvae_data.errors import DamagedFileError, SelectionError
from scvae_data.remote.location import Location
from scvae_data.store.chunk_reader import ChunkReader
from scvae_data.store.chunk_writer import ChunkEntry
from scvae_data.store.codec import Codec
from scvae_data.store.files import FileFacts
from scvae_data.store.gene_list import GENE_LIST_FILE, GeneList, read_gene_list
from scvae_data.store.names import FORMAT_VERSION, SRX_COLUMN
from scvae_data.store.obs_reader import ObsReader
from scvae_data.store.obs_writer import NAME_COLUMN, OBS_FILE, ObsColumn
from scvae_data.store.source import LocalFile, OpenSource

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DatasetIndex", "listed"]

TEXT = ("categorical", "string")


@dataclass(frozen=True, eq=False)
class DatasetIndex:
    """A finished dataset directory.

    Made by :func:`~scvae_data.store.index_json.open_index`. Holds facts of
    chunks, never of cells; what is per cell is read from obs.parquet when
    asked for. Can be pickled; files are opened in each process anew.

    Parameters
    ----------
    path
        The directory, here or in a remote store.
    n_obs, n_vars, nnz
        Cells, genes and stored counts in all.
    chunk_size
        Cells of a chunk when it was written; a chunk may hold fewer.
    chunks
        Chunk files in global row order.
    obs_columns
        Columns of obs.parquet, without the cell names.
    codec, block_elements
        How every chunk is compressed, and elements of a block.
    order
        ``kind`` (hash, source or group), ``seed``, ``group_column``.
    normalization
        ``method`` (log1p or none), ``target_sum``, ``size_factor_genes`` (kept or all).
    processing_id
        Identifies what the cells were made from and how.
    gene_list_hash
        :attr:`GeneList.hash` of the directory's genes.
    files
        Size and checksum of gene_list.json and obs.parquet.
    simulated
        Whether the counts come from the simulator.
    content_hash
        SHA-256 over the checksums of all content; set when written.
    open_source
        Opens chunk files and obs.parquet; see :class:`~scvae_data.store.source.ByteSource`.
    """

    path: Location
    n_obs: int
    n_vars: int
    nnz: int
    chunk_size: int
    chunks: tuple[ChunkEntry, ...]
    obs_columns: Mapping[str, ObsColumn]
    codec: Codec
    block_elements: int
    order: Mapping[str, Any]
    normalization: Mapping[str, Any]
    processing_id: str
    gene_list_hash: str
    files: Mapping[str, FileFacts]
    simulated: bool = False
    content_hash: str = ""
    format_version: int = FORMAT_VERSION
    open_source: OpenSource = field(default=LocalFile, repr=False)
    _codes: dict[str, NDArray[np.int32]] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        # Per-cell arrays and the gene list are read again where they are needed.
        state = {name: value for name, value in self.__dict__.items() if name not in ("genes", "obs_reader")}
        return {**state, "_codes": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @cached_property
    def first_rows(self) -> NDArray[np.int64]:
        """Global row of each chunk's first cell and, last, ``n_obs``; int64, (n_chunks + 1,)."""
        return np.array([*(chunk.first_row for chunk in self.chunks), self.n_obs], dtype=np.int64)

    @cached_property
    def genes(self) -> GeneList:
        """The genes in column order.

        Raises
        ------
        DamagedFileError
            If gene_list.json is not the one this index was written with.
        """
        genes = read_gene_list(self.path, n_vars=self.n_vars, sha256=self.files[GENE_LIST_FILE].sha256)
        if genes.hash != self.gene_list_hash:
            raise DamagedFileError(
                f"{self.path / GENE_LIST_FILE}: its genes are not those of this index; "
                "run process.py again with resume=true"
            )
        return genes

    @cached_property
    def obs_reader(self) -> ObsReader:
        """Reader of obs.parquet."""
        return ObsReader(
            self.path / OBS_FILE, self.files[OBS_FILE], self.obs_columns, self.first_rows, self.open_source
        )

    def reader(self, chunk_id: int) -> ChunkReader:
        """Return a new reader of one chunk's counts."""
        chunk = self.chunks[chunk_id]
        return ChunkReader(
            self.path / chunk.file,
            chunk,
            n_vars=self.n_vars,
            codec=self.codec,
            block_elements=self.block_elements,
            open_source=self.open_source,
        )

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
            raise IndexError(f"row {outside} is not within the {self.n_obs} rows of {self.path}")
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
            frame = self.obs_reader.read(wanted)
        else:
            chunk_ids, local = self.locate(np.atleast_1d(np.asarray(rows, dtype=np.int64)))
            groups, inverse = np.unique(chunk_ids, return_inverse=True)
            sizes = np.array([self.chunks[group].n_obs for group in groups], dtype=np.int64)
            starts = np.concatenate([np.zeros(1, np.int64), sizes]).cumsum()[: groups.size]
            frame = self.obs_reader.read(wanted, groups.tolist()).iloc[starts[inverse] + local]
        return frame.set_index(NAME_COLUMN).rename_axis(None)

    def codes(self, column: str) -> NDArray[np.int32]:
        """Category codes of all cells; int32, (n_obs,), read-only.

        A code is the position in ``obs_columns[column].categories``; a missing
        value has ``len(categories)``.

        Raises
        ------
        SelectionError
            If the column does not exist or is not categorical.
        """
        self._check_columns([column])
        if self.obs_columns[column].categories is None:
            possible = [name for name, other in self.obs_columns.items() if other.categories is not None]
            raise SelectionError(
                f"obs column {column!r} is {self.obs_columns[column].dtype}, not categorical; "
                f"categorical are {', '.join(possible)}"
            )
        if column not in self._codes:
            codes = self.obs_reader.codes(column)
            codes.flags.writeable = False
            self._codes[column] = codes
        return self._codes[column]

    def numbers(self, column: str) -> NDArray[np.float32]:
        """Values of a column of numbers or booleans for all cells, NaN where missing; float32, (n_obs,).

        Raises
        ------
        SelectionError
            If the column does not exist or holds text.
        """
        self._check_columns([column])
        dtype = self.obs_columns[column].dtype
        if dtype in TEXT:
            possible = [name for name, other in self.obs_columns.items() if other.dtype not in TEXT]
            raise SelectionError(f"obs column {column!r} is {dtype}, not numbers; numbers are {', '.join(possible)}")
        return self.obs_reader.floats(column)

    def rows(self, srx: Sequence[str]) -> NDArray[np.int64]:
        """Global rows of the cells of some experiments, ascending; int64.

        Raises
        ------
        SelectionError
            If an accession is not in the directory; the message names it and similar ones.
        """
        return np.flatnonzero(np.isin(self.codes(SRX_COLUMN), self.srx_codes(srx))).astype(np.int64)

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
        categories = self.obs_columns[SRX_COLUMN].categories or ()
        place = {name: code for code, name in enumerate(categories)}
        if unknown := [str(name) for name in srx if name not in place]:
            raise SelectionError(_unknown("SRX accession", unknown, categories, self.path))
        return np.array([place[name] for name in srx], dtype=np.int32)

    def _check_columns(self, names: Sequence[str]) -> None:
        if unknown := [str(name) for name in names if name not in self.obs_columns]:
            raise SelectionError(_unknown("obs column", unknown, tuple(self.obs_columns), self.path))


def listed(index: DatasetIndex) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of every file that the index lists, by name: chunks in row order, then the others."""
    files = {chunk.file: (chunk.bytes, chunk.sha256) for chunk in index.chunks}
    return files | {name: (facts.bytes, facts.sha256) for name, facts in sorted(index.files.items())}


def _unknown(what: str, names: Sequence[str], known: Sequence[str], path: Location) -> str:
    """One line naming what is unknown (a few of many) and what it may have been meant to be."""
    close = list(dict.fromkeys(match for name in names[:3] for match in get_close_matches(name, known, n=3)))
    hint = f"did you mean {', '.join(close[:6])}?" if close else f"it has {len(known)}, e.g. {', '.join(known[:3])}"
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"{what} {shown} not in {path}; {hint}"
