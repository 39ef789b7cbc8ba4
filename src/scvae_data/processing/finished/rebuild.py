"""A finished directory in which files are damaged, and a run with its settings, in; those files built again out.

Sound chunks are not touched. The inputs are scanned as for a new directory:
a chunk in hash order has cells of every input.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from scvae_data.errors import StoreError
from scvae_data.processing.decide.decision import describe
from scvae_data.processing.decide.stage import WritePlan
from scvae_data.processing.engine.task import Task
from scvae_data.processing.run.context import Context
from scvae_data.processing.run.directory import send
from scvae_data.processing.run.records import provenance
from scvae_data.processing.write.account import storage_statistics, summarise
from scvae_data.processing.write.chunks import write_chunks, write_obs_of_chunks
from scvae_data.processing.write.publish import chunk_obs, write_cell_tables, write_obs_table
from scvae_data.processing.write.tables import TABLES, write_tables
from scvae_data.store import GENE_LIST_FILE, SRX_COLUMN, ChunkEntry, DatasetIndex, write_gene_list, write_json
from scvae_data.store.files import sync_directory
from scvae_data.store.verify import CONFIG_FILE, SUMMARY_FILE, file_fault, listed, record_faults

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
    plan: WritePlan,
    damaged: Collection[str],
    seconds: Mapping[str, float],
) -> None:
    """Build the damaged files again; chunks, obs and genes come out with the bytes that the index lists.

    Parameters
    ----------
    seconds
        Wall time per stage.

    Raises
    ------
    StoreError
        They do not: this version, or a library, makes other ones.
    """
    directory, decided = context.directory, plan.decided
    same = (decided.genes.hash, describe(decided.decision), len(decided.ranges), decided.decision.processing_id)
    if same != (index.gene_list_hash, index.normalization, len(index.chunks), index.processing_id):
        raise StoreError(f"{directory}: the inputs give other genes or cells now; overwrite=true makes it anew")
    numbers = [number for number, chunk in enumerate(index.chunks) if chunk.file in damaged]
    for entry, number in zip(write_chunks(context, plan, numbers), numbers, strict=True):
        check_same(index, entry.file, entry.sha256, index.chunks[number].sha256)
    first = 1 in (index.format_version, index.upgraded_from)
    if GENE_LIST_FILE in damaged:
        facts = write_gene_list(directory, decided.genes, decided.gene_sets if first else None)
        check_same(index, GENE_LIST_FILE, facts.sha256, index.files[GENE_LIST_FILE].sha256)
    if set(index.generations[0].files) & set(damaged):
        write_obs_of_chunks(context, plan)
        aside = context.work.mended
        aside.mkdir(exist_ok=True)

        def obs_of_chunks() -> Iterator[pd.DataFrame]:
            return (chunk_obs(context.work, number) for number in range(len(index.chunks)))

        written = dict(write_cell_tables(aside, decided, obs_of_chunks()).files)
        if first:
            written |= write_obs_table(aside, decided, obs_of_chunks())
        for name in sorted(set(written) & set(damaged)):
            check_same(index, name, written[name].sha256, index.files[name].sha256)
            (aside / name).replace(directory / name)
        sync_directory(directory)
    if context.store is not None:
        send(directory, context.store)  # the tables of cells among them, which are read for what follows
    if {SUMMARY_FILE, *TABLES} & set(damaged):
        write_statistics(context, index, plan, seconds)
    if CONFIG_FILE in damaged:
        record = provenance(context, plan.surveyed.files, decided.genes.hash, index.processing_id)
        write_json(directory / CONFIG_FILE, record)


def check_same(index: DatasetIndex, name: str, sha256: str, wanted: str) -> None:
    """Refuse a file that came out with other bytes than the index lists."""
    if sha256 != wanted:
        raise StoreError(
            f"{index.path / name}: built again it has other bytes than the index lists, because this version of "
            f"scvae-data or of a library is not that of {CONFIG_FILE}; use that one, or overwrite=true"
        )


def write_statistics(context: Context, index: DatasetIndex, plan: WritePlan, seconds: Mapping[str, float]) -> None:
    """Write the tables of cells, experiments and genes, and the summary of the directory."""
    tables = write_tables(context, plan)
    entries = [with_stored_bytes(index, number) for number in range(len(index.chunks))]
    names = index.obs_columns[SRX_COLUMN].categories or ()
    n_cells = np.bincount(index.codes(SRX_COLUMN), minlength=len(names)).tolist()
    accessions = dict(zip(names, n_cells, strict=False))
    n_bytes = sum(facts[0] for facts in listed(index).values())
    summary = summarise(context, plan, entries, n_bytes, seconds, tables)
    write_json(context.directory / SUMMARY_FILE, storage_statistics(summary, plan, entries, tables, accessions))


def with_stored_bytes(index: DatasetIndex, number: int) -> ChunkEntry:
    """Return the entry of a chunk with what its arrays take, as its block table tells."""
    with index.reader(number) as reader:
        return replace(index.chunks[number], stored_bytes=reader.stored_bytes)
