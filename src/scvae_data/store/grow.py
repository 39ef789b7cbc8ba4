"""A directory and another of the same genes and rules in; the first with the cells of both out, in one step.

Chunks and tables of the other are linked, or sent to the store that the first
is in, under the next free names; what was there stays as it is, so that
whoever has the directory open goes on with it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from scvae_data.errors import StoreError
from scvae_data.progress import progress
from scvae_data.remote import objects
from scvae_data.remote.location import Location, RemotePath, local_path
from scvae_data.remote.objects import ObjectFacts
from scvae_data.store.cell_tables_writer import table_names
from scvae_data.store.chunk_writer import ChunkEntry
from scvae_data.store.dataset_index import DatasetIndex
from scvae_data.store.files import FileFacts, sync_directory
from scvae_data.store.index_json import write_index
from scvae_data.store.names import chunk_file_name
from scvae_data.store.obs_writer import ObsColumn
from scvae_data.store.row_table import RowTableWriter, stored_types

__all__ = ["adopt", "give_file", "grown_columns"]

SENT_AT_ONCE = 4
SAME = ("n_vars", "gene_list_hash", "block_elements", "order", "normalization")


def adopt(index: DatasetIndex, other: DatasetIndex, processing_id: str, old: ObjectFacts | None = None) -> DatasetIndex:
    """Add the cells of another directory to one that nobody else is writing to; return the new index.

    Until the index is swapped, the directory is as it was.

    Parameters
    ----------
    index
        The directory, of the present version of the format; here or in a store.
    other
        A directory of one generation on this machine; what must be made for a store is made there.
    processing_id
        Of both together.
    old
        What the store says of the index, where the directory is in one.

    Raises
    ------
    Changed
        The index in the store is another one.
    StoreError
        They differ in what a directory has one of; names it.
    """
    check_alike(index, other)
    directory, its = index.path, local_path("DIR", other.path)
    number = len(index.generations)
    columns = grown_columns(index.obs_columns, other.obs_columns)
    obs, rows, gene_sets = table_names(number)
    (theirs,) = other.generations
    chunks = [_moved(index, place, entry) for place, entry in enumerate(other.chunks)]
    named = [(entry.file, chunk.file) for entry, chunk in zip(other.chunks, chunks, strict=True)]
    named += [(theirs.obs, obs), (str(theirs.gene_sets), gene_sets)]
    give_files(directory, [(its / old, directory / new) for old, new in named])
    types = stored_types(columns)
    files = {obs: other.files[theirs.obs], gene_sets: other.files[str(theirs.gene_sets)]}
    if isinstance(directory, RemotePath):
        files[rows] = write_rows(its / f".{rows}", other, columns, types)
        give_file(its / f".{rows}", directory / rows)
    else:
        sync_directory(directory)
        files[rows] = write_rows(directory / rows, other, columns, types)
    n_categories = {name: len(known.categories) for name, known in columns.items() if known.categories is not None}
    generation = replace(
        theirs, obs=obs, rows=rows, row_columns=types, gene_sets=gene_sets, n_categories=n_categories,
        processing_id=other.processing_id,
    )  # fmt: skip
    return write_index(
        directory,
        replace(
            index,
            n_obs=index.n_obs + other.n_obs,
            nnz=index.nnz + other.nnz,
            chunks=(*index.chunks, *chunks),
            obs_columns=columns,
            processing_id=processing_id,
            files={**index.files, **files},
            generations=(*index.generations, generation),
            simulated=index.simulated or other.simulated,
        ),
        old,
    )


def check_alike(index: DatasetIndex, other: DatasetIndex) -> None:
    """Refuse a directory that differs in what both must have in common."""
    for name in SAME:
        mine, its = getattr(index, name), getattr(other, name)
        if mine != its:
            raise StoreError(f"{other.path}: its {name} is {its}, that of {index.path} is {mine}")
    if index.codec.name != other.codec.name:
        raise StoreError(f"{other.path}: its codec is {other.codec.name}, that of {index.path} is {index.codec.name}")
    mine, its = ({name: known.dtype for name, known in one.obs_columns.items()} for one in (index, other))
    for name in (*mine, *its):
        if mine.get(name) != its.get(name):
            raise StoreError(
                f"{other.path}: its obs column {name} is {its.get(name, 'not there')}, that of {index.path} is "
                f"{mine.get(name, 'not there')}"
            )
    if list(mine) != list(its):
        raise StoreError(f"{other.path}: its obs columns are those of {index.path} in another order")


def grown_columns(columns: Mapping[str, ObsColumn], more: Mapping[str, ObsColumn]) -> dict[str, ObsColumn]:
    """Columns with the categories of both: those that are there keep their codes."""
    grown = {}
    for name, column in columns.items():
        if column.categories is None:
            grown[name] = column
            continue
        new = sorted(set(more[name].categories or ()) - column.place.keys())
        grown[name] = replace(column, categories=(*column.categories, *new))
    return grown


def write_rows(
    path: Path, other: DatasetIndex, columns: Mapping[str, ObsColumn], types: Mapping[str, str]
) -> FileFacts:
    """Write the row table of another directory with the codes of this one."""
    codes = {
        name: np.array([*(column.place[category] for category in other.obs_columns[name].categories or ()), -1])
        for name, column in columns.items()
        if column.categories is not None
    }
    with RowTableWriter(path, types) as writer:
        for chunk_id in range(len(other.chunks)):
            values = other.cells.arrays(chunk_id, types)
            writer.append({name: codes[name][found] if name in codes else found for name, found in values.items()})
        return writer.close()


def give_files(directory: Location, pairs: Sequence[tuple[Path, Location]]) -> None:
    """Give files their places in a directory, see :func:`give_file`; a few at a time to a store."""
    if isinstance(directory, Path):
        for pair in pairs:
            give_file(*pair)
        return
    with ThreadPoolExecutor(SENT_AT_ONCE, thread_name_prefix="send") as pool:
        given = pool.map(lambda pair: give_file(*pair), pairs)
        for _ in progress(given, total=len(pairs), desc="send"):
            pass


def give_file(source: Path, target: Location) -> None:
    """Give a file a second name, on another file system a copy, or send it to a store.

    What an interrupted try left there is replaced; what it has sent already, as the store's checksum tells, is not
    sent again.
    """
    if isinstance(target, RemotePath):
        if not objects.holds(target, source):
            objects.upload(source, target)
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())


def _moved(index: DatasetIndex, place: int, entry: ChunkEntry) -> ChunkEntry:
    """The entry of a chunk that becomes one of another directory."""
    name = chunk_file_name(len(index.chunks) + place)
    return replace(entry, file=name, first_row=index.n_obs + entry.first_row)
