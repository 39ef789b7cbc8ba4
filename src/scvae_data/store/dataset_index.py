"""A dataset directory as its index describes it: what is in it, and where each cell lies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scvae_data.errors import DamagedFileError, SelectionError
from scvae_data.remote.location import Location
from scvae_data.store.cell_tables import CellTables, Generation
from scvae_data.store.chunk_reader import ChunkReader
from scvae_data.store.chunk_writer import ChunkEntry
from scvae_data.store.codec import Codec
from scvae_data.store.files import FileFacts
from scvae_data.store.gene_list import GENE_LIST_FILE, GeneList, GeneSets, read_gene_list, read_listed_sets
from scvae_data.store.names import FORMAT_VERSION, SRX_COLUMN
from scvae_data.store.obs_writer import NAME_COLUMN, ObsColumn
from scvae_data.store.source import ListedFile, LocalFile, OpenSource, damaged

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DatasetIndex", "content_hash_of", "listed"]


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
        Size and checksum of gene_list.json and of the files of all generations.
    generations
        Chunks that were written together, and the tables of their cells; see
        :class:`~scvae_data.store.cell_tables.Generation`.
    simulated
        Whether the counts come from the simulator.
    content_hash
        SHA-256 over the checksums of all content; set when written.
    format_version
        Version of the format that the index is in.
    upgraded_from
        Version that gene_list.json and the first obs table were written in, where it is an earlier one.
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
    generations: tuple[Generation, ...]
    simulated: bool = False
    content_hash: str = ""
    format_version: int = FORMAT_VERSION
    upgraded_from: int | None = None
    open_source: OpenSource = field(default=LocalFile, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        # What was read is read again where it is needed.
        return {name: value for name, value in self.__dict__.items() if name not in ("genes", "gene_sets", "cells")}

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
    def gene_sets(self) -> GeneSets:
        """Which genes were measured, by the codes of the obs column ``gene_set``.

        Raises
        ------
        DamagedFileError
            If the file that has them is not the one this index was written with.
        """
        names = [generation.gene_sets for generation in self.generations if generation.gene_sets is not None]
        if not names:
            return read_listed_sets(self.path, n_vars=self.n_vars, sha256=self.files[GENE_LIST_FILE].sha256)
        return GeneSets(np.concatenate([self._packed_sets(name) for name in names]), self.n_vars)

    @property
    def chunks_of_generations(self) -> list[range]:
        """Numbers of the chunks of each generation."""
        ends = accumulate(generation.n_chunks for generation in self.generations)
        return [range(end - one.n_chunks, end) for one, end in zip(self.generations, ends, strict=True)]

    @cached_property
    def cells(self) -> CellTables:
        """Metadata of cells, chunk by chunk."""
        sizes = [0 if one.gene_sets is None else self.files[one.gene_sets].bytes for one in self.generations]
        n_bytes = max(1, (self.n_vars + 7) // 8)
        first_sets = [before // n_bytes for before in accumulate(sizes[:-1], initial=0)]
        return CellTables(
            self.path, self.generations, self.files, self.obs_columns, self.first_rows, first_sets, self.open_source
        )

    def first_generations(self, number: int) -> DatasetIndex:
        """The directory as it was with so many generations, and its content hash of then.

        Raises
        ------
        SelectionError
            If it has not so many.
        """
        if not 1 <= number <= len(self.generations):
            raise SelectionError(f"{self.path} has {len(self.generations)} generations of cells, not {number}")
        generations = self.generations[:number]
        chunks = self.chunks[: sum(generation.n_chunks for generation in generations)]
        had = generations[-1].n_categories
        columns = {
            name: known if known.categories is None else replace(known, categories=known.categories[: had[name]])
            for name, known in self.obs_columns.items()
        }
        n_obs, nnz = sum(chunk.n_obs for chunk in chunks), sum(chunk.nnz for chunk in chunks)
        tables = {"chunks": chunks, "generations": generations, "obs_columns": columns}
        earlier = replace(self, n_obs=n_obs, nnz=nnz, **tables)  # type: ignore[arg-type]
        return replace(earlier, content_hash=content_hash_of(earlier))

    def grown_from(self, content_hash: str) -> int | None:
        """With how many generations the directory had a content hash; None if never, or if that is what it has."""
        numbers = range(1, len(self.generations))
        return next((n for n in numbers if self.first_generations(n).content_hash == content_hash), None)

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
                f"categorical are {', '.join(possible)}"
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
            raise SelectionError(_unknown("SRX accession", unknown, categories, self.path))
        return np.array([place[name] for name in srx], dtype=np.int32)

    def _packed_sets(self, name: str) -> NDArray[np.uint8]:
        """The masks in a file of gene sets, (n_sets, bytes of a mask)."""
        facts = self.files[name]
        file = ListedFile(self.path / name, facts.bytes, self.open_source)

        def read() -> bytes:
            content = file.read(0, facts.bytes)
            if hashlib.sha256(content).hexdigest() != facts.sha256:
                raise damaged(self.path / name, "its content does not match its checksum")
            return content

        return np.frombuffer(file.proved(read), np.uint8).reshape(-1, (self.n_vars + 7) // 8)

    def _check_columns(self, names: Sequence[str]) -> None:
        if unknown := [str(name) for name in names if name not in self.obs_columns]:
            raise SelectionError(_unknown("obs column", unknown, tuple(self.obs_columns), self.path))


def content_hash_of(index: DatasetIndex) -> str:
    """SHA-256 over the checksums of genes, obs and chunks, one a line: equal for directories of equal content."""
    parts = [
        index.files[GENE_LIST_FILE].sha256,
        *(index.files[generation.obs].sha256 for generation in index.generations),
        *(chunk.sha256 for chunk in index.chunks),
    ]
    return hashlib.sha256("".join(f"{part}\n" for part in parts).encode()).hexdigest()


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
