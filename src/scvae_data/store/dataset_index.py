"""A dataset directory as its index describes it: what is in it, and where each cell lies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.calling import mend
from scvae_data.errors import DamagedFileError, SelectionError
from scvae_data.remote.location import Location
from scvae_data.store.cell_index import CellIndex
from scvae_data.store.cell_tables import CellTables, Generation
from scvae_data.store.chunk_reader import ChunkReader, ColumnMap
from scvae_data.store.codec import Codec
from scvae_data.store.files import FileFacts
from scvae_data.store.gene_list import GENE_LIST_FILE, GeneList, GeneSets, read_gene_list, read_listed_sets
from scvae_data.store.source import ListedFile, LocalFile, OpenSource, damaged

__all__ = ["DatasetIndex", "content_hash_of", "listed"]


@dataclass(frozen=True, eq=False, kw_only=True)
class DatasetIndex(CellIndex):
    """A finished dataset directory.

    Made by :func:`~scvae_data.open_index`.

    Parameters
    ----------
    path
        The directory, here or in a remote store.
    codec
        How every chunk is compressed.
    files
        Size and checksum of gene_list.json and of the files of all generations.
    generations
        Chunks that were written together, and the tables of their cells; see
        :class:`~scvae_data.store.cell_tables.Generation`.
    upgraded_from
        Version that gene_list.json and the first obs table were written in, where it is an earlier one.
    open_source
        Opens chunk files and obs.parquet; see :class:`~scvae_data.store.source.ByteSource`.
    """

    path: Location
    codec: Codec
    files: Mapping[str, FileFacts]
    generations: tuple[Generation, ...]
    upgraded_from: int | None = None
    open_source: OpenSource = field(default=LocalFile, repr=False)

    @property
    def where(self) -> str:
        """The directory."""
        return str(self.path)

    @property
    def members(self) -> tuple[DatasetIndex, ...]:
        """The directory."""
        return (self,)

    @property
    def paths(self) -> tuple[Location, ...]:
        """Where it is."""
        return (self.path,)

    @property
    def sources(self) -> tuple[OpenSource, ...]:
        """What opens its files."""
        return (self.open_source,)

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
            raise DamagedFileError(f"{self.path / GENE_LIST_FILE}: its genes are not those of this index; {mend()}")
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
        first_sets = list(accumulate(self._n_sets[:-1], initial=0))
        return CellTables(
            self.path, self.generations, self.files, self.obs_columns, self.first_rows, first_sets, self.open_source
        )

    @property
    def n_gene_sets(self) -> int:
        """Number of gene sets; they are read only where they are in the list of genes."""
        return sum(self._n_sets) or len(self.gene_sets)

    @property
    def content_hashes(self) -> list[str]:
        """The content hash that the directory had with each number of generations, from 1 on."""
        return [self.first_generations(number).content_hash for number in range(1, len(self.generations) + 1)]

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

    def one_generation(self, number: int) -> DatasetIndex:
        """The cells of one generation as a directory of their own; its files have the names that they have in this."""
        generation, numbers = self.generations[number], self.chunks_of_generations[number]
        mine = self.chunks[numbers.start : numbers.stop]
        chunks = tuple(replace(chunk, first_row=chunk.first_row - mine[0].first_row) for chunk in mine)
        alone = replace(
            self,
            n_obs=sum(chunk.n_obs for chunk in chunks),
            nnz=sum(chunk.nnz for chunk in chunks),
            chunks=chunks,
            generations=(generation,),
            processing_id=generation.processing_id,
            upgraded_from=None if number else self.upgraded_from,
        )
        return replace(alone, content_hash=content_hash_of(alone))

    def grown_from(self, content_hash: str) -> int | None:
        """With how many generations the directory had a content hash; None if never, or if that is what it has."""
        earlier = self.content_hashes[:-1]
        return earlier.index(content_hash) + 1 if content_hash in earlier else None

    def place(self, chunk_id: int) -> tuple[Location, OpenSource]:
        """Where a chunk file is, and what opens it."""
        return self.path / self.chunks[chunk_id].file, self.open_source

    def tell(self) -> None:
        """Say nothing: it is one directory."""

    def facts(self) -> dict[str, Any]:
        """Plain values that say which cells these are."""
        return {"data_path": self.where, "content_hash": self.content_hash}

    def reader(self, chunk_id: int, columns: ColumnMap | None = None) -> ChunkReader:
        """Return a new reader of one chunk's counts, with the genes in other columns if that is asked for."""
        chunk = self.chunks[chunk_id]
        return ChunkReader(
            self.path / chunk.file,
            chunk,
            n_vars=self.n_vars,
            codec=self.codec,
            block_elements=self.block_elements,
            open_source=self.open_source,
            columns=columns,
        )

    @property
    def _n_sets(self) -> list[int]:
        """Gene sets of each generation; 0 where they are in the list of genes."""
        n_bytes = max(1, (self.n_vars + 7) // 8)
        return [0 if one.gene_sets is None else self.files[one.gene_sets].bytes // n_bytes for one in self.generations]

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
