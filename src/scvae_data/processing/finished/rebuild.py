"""A finished directory in which files are damaged, and a run with its settings, in; those files built again out.

Sound chunks are not touched. The inputs are scanned as for a new directory:
a chunk in hash order has cells of every input.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scvae_data.errors import StoreError
from scvae_data.processing.decide.decision import describe
from scvae_data.processing.decide.stage import WritePlan
from scvae_data.processing.engine.task import Task
from scvae_data.processing.finished.append import renamed
from scvae_data.processing.run.context import Context
from scvae_data.processing.run.directory import move
from scvae_data.processing.run.records import provenance
from scvae_data.processing.write.account import storage_statistics, summarise
from scvae_data.processing.write.chunks import write_chunks, write_obs_of_chunks
from scvae_data.processing.write.publish import chunk_obs, write_cell_tables, write_obs_table
from scvae_data.processing.write.tables import TABLES, table_tasks, write_tables
from scvae_data.store import (
    GENE_LIST_FILE,
    SRX_COLUMN,
    ChunkEntry,
    DatasetIndex,
    FileFacts,
    Generation,
    write_gene_list,
    write_json,
)
from scvae_data.store.cell_tables_writer import table_names
from scvae_data.store.files import sync_file
from scvae_data.store.grow import write_rows
from scvae_data.store.names import generation_file
from scvae_data.store.verify import CONFIG_FILE, RECORDS, SUMMARY_FILE, file_fault, listed, record_faults

__all__ = ["find_damage", "rebuild"]


def find_damage(index: DatasetIndex, collect: Callable[[Any], list[Any]]) -> set[str]:
    """Return the names of files that are not what the index, or the record that lists them, says.

    Parameters
    ----------
    collect
        Runs tasks; returns their results in order.
    """
    files = listed(index)
    tasks = [Task(file_fault, (index.path / name, *facts)) for name, facts in files.items()]
    faults = dict(zip(files, collect(tasks), strict=True)) | record_faults(index)
    return {name for name, fault in faults.items() if fault is not None}


def rebuild(
    context: Context,
    index: DatasetIndex,
    number: int,
    plan: WritePlan,
    damaged: Collection[str],
    seconds: Mapping[str, float],
) -> None:
    """Build damaged files of a generation again; chunks, obs and genes come out with the bytes that the index lists.

    Each file is made beside the directory, and replaces the damaged one when it is known to be the right one.

    Parameters
    ----------
    context
        Of the run that made the generation; its directory is an empty folder.
    number
        The generation.
    seconds
        Wall time per stage.

    Raises
    ------
    StoreError
        They do not: this version, or a library, makes other ones.
    """
    first, index = number == 0 and 1 in (index.format_version, index.upgraded_from), index.one_generation(number)
    context = replace(context, store=None)
    aside, decided, (generation,) = context.directory, plan.decided, index.generations
    same = (decided.genes.hash, describe(decided.decision), len(decided.ranges), decided.decision.processing_id)
    if same != (index.gene_list_hash, index.normalization, len(index.chunks), index.processing_id):
        raise StoreError(f"{index.path}: the inputs give other genes or cells now; overwrite=true makes it anew")
    numbers = [place for place, chunk in enumerate(index.chunks) if chunk.file in damaged]
    chunks = write_chunks(context, decided.digest, decided.ranges, numbers, sync_file)
    for entry, place in zip(chunks, numbers, strict=True):
        chunk = index.chunks[place]
        check_same(index, chunk.file, entry.sha256, chunk.sha256)
        move(aside / entry.file, index.path / chunk.file)
    made: dict[str, tuple[Path, FileFacts]] = {}
    if GENE_LIST_FILE in damaged:
        facts = write_gene_list(aside, decided.genes, decided.gene_sets if first else None)
        made[GENE_LIST_FILE] = aside / GENE_LIST_FILE, facts
    if {generation.obs, generation.gene_sets} & set(damaged):
        made |= tables_again(context, generation, plan, of_version_1=first)
    put(index, made, damaged)
    if generation.rows is not None and generation.rows in damaged:
        without = replace(index, generations=(replace(generation, rows=None),))
        facts = write_rows(aside / generation.rows, without, index.obs_columns, generation.row_columns)
        put(index, {generation.rows: (aside / generation.rows, facts)}, damaged)
    write_records(context, index, number, plan, damaged, seconds)


def tables_again(
    context: Context, generation: Generation, plan: WritePlan, *, of_version_1: bool
) -> dict[str, tuple[Path, FileFacts]]:
    """Write the obs table and the gene sets of a generation; return by their names there where they are, and facts."""
    write_obs_of_chunks(context, plan)

    def obs_of_chunks() -> Iterator[pd.DataFrame]:
        return (chunk_obs(context.work, place) for place in range(len(plan.decided.ranges)))

    written = dict(write_cell_tables(context.directory, plan.decided, obs_of_chunks()).files)
    if of_version_1:
        written |= write_obs_table(context.directory, plan.decided, obs_of_chunks())
    obs, _, gene_sets = table_names(0)
    names = {generation.obs: obs} | ({} if generation.gene_sets is None else {generation.gene_sets: gene_sets})
    return {name: (context.directory / own, written[own]) for name, own in names.items()}


def put(index: DatasetIndex, made: Mapping[str, tuple[Path, FileFacts]], damaged: Collection[str]) -> None:
    """Put files that were built again in place of those that are damaged, if they are the same."""
    for name in sorted(made.keys() & set(damaged)):
        path, facts = made[name]
        check_same(index, name, facts.sha256, index.files[name].sha256)
        move(path, index.path / name)


def check_same(index: DatasetIndex, name: str, sha256: str, wanted: str) -> None:
    """Refuse a file that came out with other bytes than the index lists."""
    if sha256 != wanted:
        raise StoreError(
            f"{index.path / name}: built again it has other bytes than the index lists, because this version of "
            f"scvae-data or of a library is not that of {CONFIG_FILE}; use that one, or overwrite=true"
        )


def write_records(
    context: Context,
    index: DatasetIndex,
    number: int,
    plan: WritePlan,
    damaged: Collection[str],
    seconds: Mapping[str, float],
) -> None:
    """Write records of a generation again that are damaged; the summary and the tables that it lists go together."""
    wanted = {own for own in RECORDS if generation_file(own, number) in damaged}
    if wanted & {SUMMARY_FILE, *TABLES}:
        wanted |= {SUMMARY_FILE, *TABLES}
        summary = statistics_of(context, index, plan, seconds)
        write_json(
            context.directory / SUMMARY_FILE,
            renamed(summary, number, [chunk.file for chunk in index.chunks]) if number else summary,
        )
    if CONFIG_FILE in wanted:
        record = provenance(context, plan.surveyed.files, plan.decided.genes.hash, index.processing_id)
        write_json(context.directory / CONFIG_FILE, record)
    for own in sorted(wanted):
        if (context.directory / own).exists():
            move(context.directory / own, index.path / generation_file(own, number))


def statistics_of(
    context: Context, index: DatasetIndex, plan: WritePlan, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Write the tables of cells, experiments and genes; return the summary of a generation."""
    results = context.collect("tables", table_tasks(context, plan), unit="piece")
    tables = write_tables(context, plan, results, sync_file)
    entries = [with_stored_bytes(index, place) for place in range(len(index.chunks))]
    names = index.obs_columns[SRX_COLUMN].categories or ()
    n_cells = np.bincount(index.codes(SRX_COLUMN), minlength=len(names)).tolist()
    accessions = {name: n for name, n in zip(names, n_cells, strict=False) if n}
    files = (GENE_LIST_FILE, *index.generations[0].files)
    n_bytes = sum(chunk.bytes for chunk in index.chunks) + sum(index.files[name].bytes for name in files)
    summary = summarise(context, plan, entries, n_bytes, seconds, tables)
    return storage_statistics(summary, plan, entries, tables, accessions)


def with_stored_bytes(index: DatasetIndex, number: int) -> ChunkEntry:
    """Return the entry of a chunk with what its arrays take, as its block table tells."""
    with index.reader(number) as reader:
        return replace(index.chunks[number], stored_bytes=reader.stored_bytes)
