"""Dataset directories in, one index of the cells of all out: one order of genes, columns of obs joined by name."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError, SelectionError
from scvae_data.remote.disk_cache import DiskCache
from scvae_data.remote.location import Location
from scvae_data.store.cell_index import CellIndex
from scvae_data.store.chunk_reader import ChunkReader, ColumnMap
from scvae_data.store.csr import index_dtype
from scvae_data.store.dataset_index import DatasetIndex
from scvae_data.store.gene_list import GeneList, GeneSets
from scvae_data.store.gene_match import join_genes, some
from scvae_data.store.index_json import open_index
from scvae_data.store.joined_tables import DIRECTORY_COLUMN, JoinedTables, join_columns
from scvae_data.store.names import SRX_COLUMN
from scvae_data.store.source import OpenSource
from scvae_data.wording import counted

__all__ = ["JoinedIndex", "join", "open_dataset"]

SETS_AT_ONCE = 1024
"""Gene sets whose masks are moved to other columns together; each takes a byte for each gene meanwhile."""
log = logging.getLogger(__name__)


def open_dataset(
    paths: str | Location | Sequence[str | Location],
    cache: DiskCache | None = None,
    generations: int | Sequence[int] | None = None,
) -> CellIndex:
    """Open a dataset directory, or several as one.

    Parameters
    ----------
    paths
        The directory, or a list of them.
    cache
        As of :func:`~scvae_data.open_index`.
    generations
        The first so many of a directory's generations, of several directories one number for each; None for all.

    Raises
    ------
    MissingIndexError, FormatVersionError, DamagedFileError
        If one of them cannot be read.
    SelectionError
        If they cannot be read as one.
    """
    given = [paths] if isinstance(paths, str | Location) else list(paths)
    numbers = [generations] if generations is None or isinstance(generations, int) else list(generations)
    if not given:
        raise ConfigError("paths.processed_dir=[] names no directory; give one, or a list of them")
    if numbers == [None]:
        numbers *= len(given)
    if len(numbers) != len(given):
        raise ConfigError(f"generations={generations} must have a number for each of the {len(given)} directories")
    members = [open_index(path, cache=cache) for path in given]
    cut = [one if n is None else one.first_generations(n) for one, n in zip(members, numbers, strict=True)]
    return cut[0] if len(cut) == 1 else join(cut)


@dataclass(frozen=True, eq=False, kw_only=True)
class JoinedIndex(CellIndex):
    """Several dataset directories as one; made by :func:`join`.

    Parameters
    ----------
    directories
        Each by itself; rows and chunks are counted through them in order.
    columns
        Where the genes of each are among those of all; None where they are the same.
    """

    directories: tuple[DatasetIndex, ...]
    columns: tuple[ColumnMap | None, ...]

    @property
    def where(self) -> str:
        """All directories."""
        return " and ".join(one.where for one in self.directories)

    @property
    def members(self) -> tuple[DatasetIndex, ...]:
        """Each directory by itself."""
        return self.directories

    @property
    def paths(self) -> tuple[Location, ...]:
        """Where each directory is."""
        return tuple(one.path for one in self.directories)

    @property
    def sources(self) -> tuple[OpenSource, ...]:
        """What opens the files of each directory."""
        return tuple(one.open_source for one in self.directories)

    @cached_property
    def genes(self) -> GeneList:
        """The genes in column order."""
        return joined_genes(self.directories)[0]

    @cached_property
    def gene_sets(self) -> GeneSets:
        """Which genes were measured; those that a directory lacks were not."""
        moved = [_moved(one.gene_sets, columns) for one, columns in zip(self.directories, self.columns, strict=True)]
        return GeneSets(np.concatenate(moved), self.n_vars)

    @cached_property
    def cells(self) -> JoinedTables:
        """Metadata of cells, chunk by chunk."""
        first_sets = accumulate((one.n_gene_sets for one in self.directories[:-1]), initial=0)
        return JoinedTables([one.cells for one in self.directories], self.obs_columns, list(first_sets))

    @property
    def chunks_of_generations(self) -> list[range]:
        """Numbers of the chunks of each generation of each directory."""
        return [
            range(first + chunks.start, first + chunks.stop)
            for first, one in zip(self._first_chunks, self.directories, strict=True)
            for chunks in one.chunks_of_generations
        ]

    def place(self, chunk_id: int) -> tuple[Location, OpenSource]:
        """Where a chunk file is, and what opens it."""
        number, chunk = self._home(chunk_id)
        return self.directories[number].place(chunk)

    def reader(self, chunk_id: int) -> ChunkReader:
        """Return a new reader of one chunk's counts."""
        number, chunk = self._home(chunk_id)
        return self.directories[number].reader(chunk, self.columns[number])

    def grown_from(self, content_hash: str) -> list[int] | None:
        """With how many generations of each the directories had a content hash; None if never, or if they have it."""
        histories = [one.content_hashes for one in self.directories]
        for numbers in product(*(range(1, len(history) + 1) for history in histories)):
            had = [history[number - 1] for history, number in zip(histories, numbers, strict=True)]
            if digest_of(had) == content_hash != self.content_hash:
                return list(numbers)
        return None

    def facts(self) -> dict[str, Any]:
        """Plain values that say which cells these are, and how the genes of each directory lie among all."""
        return {
            "data_path": [one.where for one in self.directories],
            "content_hash": self.content_hash,
            "content_hashes": [one.content_hash for one in self.directories],
            "missing_genes": [self.n_vars - one.n_vars for one in self.directories],
        }

    def tell(self) -> None:
        """Say how genes and columns were joined, and warn of what is likely to surprise."""
        known: set[str] = set()
        for number, one in enumerate(self.directories):
            columns = self.columns[number]
            places = np.arange(self.n_vars) if columns is None else columns.places
            names = [str(name) for name in self.genes.names[places]]
            new = [name for name in names if name not in known]
            known.update(new)
            here = set(names)
            missing = [str(name) for name in self.genes.names if name not in here]
            log.info(
                "%s: %s cells, %s genes%s%s", one.where, f"{one.n_obs:,}", f"{one.n_vars:,}",
                f", {len(new):,} of them added ({some(new)})" if number and new else "",
                f"; {len(missing):,} that it lacks are unmeasured ({some(missing)})" if missing else "",
            )  # fmt: skip
        _, left_out = _joined_columns(self.directories)
        if left_out:
            log.warning(
                "obs columns %s are left out: they are of other kinds in the directories (%s)", some(left_out),
                "; ".join(f"{one.where}: {_type_of(one, left_out[0])}" for one in self.directories),
            )  # fmt: skip
        counts = Counter(name for one in self.directories for name in one.obs_columns[SRX_COLUMN].place)
        if twice := sorted(name for name, number in counts.items() if number > 1):
            log.warning(
                "%s in more than one directory (%s): a cell that both have is read twice; "
                "data.filter=\"%s != '…'\" leaves a directory out, data.exclude_srx_accessions an experiment",
                counted(len(twice), "experiment"), some(twice), DIRECTORY_COLUMN,
            )  # fmt: skip

    @cached_property
    def _first_chunks(self) -> tuple[int, ...]:
        return tuple(accumulate((len(one.chunks) for one in self.directories[:-1]), initial=0))

    def _home(self, chunk_id: int) -> tuple[int, int]:
        """Which directory a chunk is in, and its number there."""
        number = int(np.searchsorted(self._first_chunks, chunk_id, side="right")) - 1
        return number, chunk_id - self._first_chunks[number]


def join(directories: Sequence[DatasetIndex]) -> JoinedIndex:
    """Read several directories as one.

    Raises
    ------
    SelectionError
        If two are the same, share no gene, or differ in how their values are scaled; names it.
    """
    check_alike(directories)
    genes, places = joined_genes(directories)
    first_rows = accumulate((one.n_obs for one in directories[:-1]), initial=0)
    chunks = [
        replace(chunk, first_row=first + chunk.first_row)
        for first, one in zip(first_rows, directories, strict=True)
        for chunk in one.chunks
    ]
    kinds = [one.order for one in directories]
    return JoinedIndex(
        n_obs=sum(one.n_obs for one in directories),
        n_vars=genes.n_vars,
        nnz=sum(one.nnz for one in directories),
        chunk_size=max(one.chunk_size for one in directories),
        chunks=tuple(chunks),
        obs_columns=_joined_columns(directories)[0],
        block_elements=max(one.block_elements for one in directories),
        # Cells are in random order in each chunk and generation only if they are so in all.
        order=next((order for order in kinds if order["kind"] != "hash"), kinds[0]),
        normalization=directories[0].normalization,
        processing_id=digest_of([one.processing_id for one in directories]),
        gene_list_hash=genes.hash,
        simulated=any(one.simulated for one in directories),
        content_hash=digest_of([one.content_hash for one in directories]),
        format_version=max(one.format_version for one in directories),
        directories=tuple(directories),
        columns=tuple(_column_map(place, genes.n_vars) for place in places),
    )


def check_alike(directories: Sequence[DatasetIndex]) -> None:
    """Refuse what cannot be read as one."""
    first = directories[0]
    for number, one in enumerate(directories):
        for other in directories[:number]:
            if one.content_hash == other.content_hash:
                raise SelectionError(
                    f"{one.where} and {other.where} hold the same cells (content {one.content_hash[:12]}); "
                    "name each directory once"
                )
        for name, value in first.normalization.items():
            if one.normalization.get(name) != value:
                raise SelectionError(
                    f"{one.where} has normalization.{name}={one.normalization.get(name)}, {first.where} has {value}, "
                    f"so that their cells are scaled in different ways; process one again with normalization.{name}"
                    f"={value}, from its own chunks by input=dataset 'input.paths=[{one.where}]'"
                )
        if DIRECTORY_COLUMN in one.obs_columns:
            raise SelectionError(
                f"{one.where} has an obs column {DIRECTORY_COLUMN}, which is what the directory of each cell is called "
                f"where several are read as one; process it again with that column left out by input.obs_columns"
            )


def joined_genes(directories: Sequence[DatasetIndex]) -> tuple[GeneList, list[NDArray[np.int64]]]:
    """One order of the genes of all directories, and the column in it of each gene of each.

    Raises
    ------
    SelectionError
        If a directory has none of the genes of those before it, or another gene of one of their names.
    """
    genes = directories[0].genes
    places = [np.arange(genes.n_vars)]
    for one in directories[1:]:
        joined, of_before, of_one = join_genes(genes, one.genes)
        if joined.n_vars == genes.n_vars + one.n_vars:
            raise SelectionError(
                f"{one.where} has none of the genes of {directories[0].where} ({some(one.genes.names)}; "
                f"{some(genes.names)}); directories of one species, with one kind of names, can be read as one"
            )
        _check_ids(genes, one, of_before, of_one)
        places = [of_before[place] for place in places] + [of_one]
        genes = joined
    return genes, places


def digest_of(hashes: Sequence[str]) -> str:
    """SHA-256 over what identifies each directory, one a line."""
    return hashlib.sha256("".join(f"{one}\n" for one in hashes).encode()).hexdigest()


def _check_ids(genes: GeneList, one: DatasetIndex, of_before: NDArray[np.int64], of_one: NDArray[np.int64]) -> None:
    """Refuse genes of one name and different ids."""
    _, mine, its = np.intersect1d(of_before, of_one, return_indices=True)
    for before, after in zip(mine.tolist(), its.tolist(), strict=True):
        ids = genes.ids[before], one.genes.ids[after]
        if None not in ids and ids[0] != ids[1]:
            raise SelectionError(
                f"{one.where} has {one.genes.names[after]} with the id {ids[1]}, the directories before have it with "
                f"{ids[0]}; process them again with one reference of genes"
            )


def _column_map(places: NDArray[np.int64], n_vars: int) -> ColumnMap | None:
    if places.size == n_vars and np.array_equal(places, np.arange(n_vars)):
        return None
    return ColumnMap(places.astype(index_dtype(n_vars)), n_vars)


def _moved(sets: GeneSets, columns: ColumnMap | None) -> NDArray[np.uint8]:
    """Masks of a directory as masks of all genes, packed."""
    if columns is None:
        return sets.packed
    parts = []
    for start in range(0, len(sets), SETS_AT_ONCE):
        numbers = np.arange(start, min(start + SETS_AT_ONCE, len(sets)))
        masks = np.zeros((numbers.size, columns.n_vars), np.bool_)
        masks[:, columns.places] = sets.masks(numbers)
        parts.append(np.packbits(masks, axis=-1, bitorder="little"))
    return np.concatenate(parts)


def _joined_columns(directories: Sequence[DatasetIndex]) -> tuple[dict[str, Any], list[str]]:
    return join_columns([one.obs_columns for one in directories], [one.where for one in directories])


def _type_of(one: DatasetIndex, name: str) -> str:
    return f"{name} is {one.obs_columns[name].dtype}" if name in one.obs_columns else f"no {name}"
