"""Finished chunks in; the tables of cells and the JSON files out, the index last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.feather as feather

from scvae_data.processing.decide.decision import Decision, describe
from scvae_data.processing.decide.stage import Decided, WritePlan
from scvae_data.processing.engine.workers import peak_rss_bytes
from scvae_data.processing.run.context import Context
from scvae_data.processing.run.directory import remove_strays
from scvae_data.processing.run.records import provenance
from scvae_data.processing.run.summary import Summary
from scvae_data.processing.work import WorkFolder
from scvae_data.processing.write.account import storage_statistics, summarise
from scvae_data.processing.write.chunks import entries_of, write_one, write_tasks
from scvae_data.processing.write.tables import table_tasks, write_tables
from scvae_data.store import (
    GENE_LIST_FILE,
    OBS_FILE,
    SRX_COLUMN,
    CellTablesWriter,
    ChunkEntry,
    DatasetIndex,
    FileFacts,
    Generation,
    ObsColumn,
    ObsWriter,
    obs_columns,
    write_gene_list,
    write_index,
    write_json,
)
from scvae_data.store.obs_writer import NAME_COLUMN
from scvae_data.store.verify import CONFIG_FILE, SUMMARY_FILE

__all__ = ["CellTables", "CellsWritten", "chunk_obs", "publish", "write_cell_tables", "write_cells", "write_obs_table"]


@dataclass(frozen=True)
class CellTables:
    """What is known of the tables of cells once they are written.

    Parameters
    ----------
    generation, files, columns
        What the index says of them.
    accessions
        Cells per accession.
    """

    generation: Generation
    files: Mapping[str, FileFacts]
    columns: Mapping[str, ObsColumn]
    accessions: Mapping[str, int]


@dataclass(frozen=True)
class CellsWritten:
    """What is known once all cells are written.

    Parameters
    ----------
    entries
        Of all chunks.
    cells
        Of the tables of cells.
    tables
        Of those for people, as `write_tables` has them.
    """

    entries: Sequence[ChunkEntry]
    cells: CellTables
    tables: Mapping[str, Mapping[str, Any]]


def write_cells(context: Context, plan: WritePlan, sync: Callable[[Path], None]) -> CellsWritten:
    """Write all chunks and all tables.

    This process joins the obs of chunks while workers compress the next ones; those that have no chunk left do tables.

    Parameters
    ----------
    sync
        Makes a file survive a power cut.
    """
    entries: list[ChunkEntry] = []
    decided = plan.decided
    tasks = write_tasks(context, decided.digest, decided.ranges, write_one, range(len(decided.ranges)))
    found = context.in_order("write", tasks, unit="chunk", then=table_tasks(context, plan))

    def written() -> Iterator[pd.DataFrame]:
        for number, entry in enumerate(entries_of(context, islice(found, len(tasks)), sync)):
            entries.append(entry)
            yield chunk_obs(context.work, number)

    cells = write_cell_tables(context.directory, decided, written())
    return CellsWritten(entries, cells, write_tables(context, plan, found, sync))


def publish(
    context: Context,
    plan: WritePlan,
    written: CellsWritten,
    seconds: Mapping[str, float],
) -> Summary:
    """Write what a dataset directory lacks beside its cells; a directory with an index is complete, so it comes last.

    Parameters
    ----------
    written
        Of `write_cells`.
    seconds
        Wall time per stage.
    """
    directory, settings = context.directory, context.settings
    decision, genes, entries, tables = plan.decided.decision, plan.decided.genes, written.entries, written.tables
    remove_strays(context.target, {entry.file for entry in entries})
    files = {**written.cells.files, GENE_LIST_FILE: write_gene_list(directory, genes)}
    n_bytes = sum(entry.bytes for entry in entries) + sum(facts.bytes for facts in files.values())
    peak_rss = max(peak_rss_bytes(), context.engine.peak_rss)
    summary = summarise(context, plan, entries, n_bytes, seconds, tables, peak_rss)
    write_json(directory / CONFIG_FILE, provenance(context, plan.surveyed.files, genes.hash, decision.processing_id))
    statistics = storage_statistics(summary, plan, entries, tables, written.cells.accessions)
    write_json(directory / SUMMARY_FILE, statistics)
    chunking = settings.chunking
    write_index(
        directory,
        DatasetIndex(
            path=directory,
            n_obs=summary.n_obs,
            n_vars=genes.n_vars,
            nnz=summary.nnz,
            chunk_size=chunking.chunk_size,
            chunks=tuple(entries),
            obs_columns=written.cells.columns,
            codec=chunking.codec,
            block_elements=chunking.block_elements,
            order={"kind": chunking.order, "seed": settings.seed, "group_column": chunking.group_column},
            normalization=describe(decision),
            processing_id=decision.processing_id,
            gene_list_hash=genes.hash,
            files=files,
            generations=(written.cells.generation,),
            simulated=summary.simulated,
        ),
    )
    return summary


def write_cell_tables(directory: Path, decided: Decided, chunks: Iterable[pd.DataFrame]) -> CellTables:
    """Join the chunks' obs, given in order, and write them with the gene sets of the cells."""
    (columns, obs_of_chunks), accessions = columns_of(chunks, decided), Counter[str]()
    with CellTablesWriter(directory, columns, decided.decision.processing_id) as writer:
        for obs in obs_of_chunks:
            writer.append(obs)
            accessions.update(obs[SRX_COLUMN].tolist())
        generation, files = writer.close(decided.gene_sets)
    return CellTables(generation, files, columns, dict(sorted(accessions.items())))


def write_obs_table(directory: Path, decided: Decided, chunks: Iterable[pd.DataFrame]) -> dict[str, FileFacts]:
    """Write the obs table as version 1 of the format has it; return what the index says of it."""
    columns, obs_of_chunks = columns_of(chunks, decided)
    with ObsWriter(directory / OBS_FILE, columns, every_category=True) as writer:
        for obs in obs_of_chunks:
            writer.append(obs)
    return {OBS_FILE: writer.close()}


def columns_of(chunks: Iterable[pd.DataFrame], decided: Decided) -> tuple[dict[str, ObsColumn], Iterator[pd.DataFrame]]:
    """Return the columns that the obs of chunks have, and the same obs again."""
    rest = iter(chunks)
    first = next(rest)
    return global_columns(first, decided.decision), chain([first], rest)


def chunk_obs(work: WorkFolder, number: int) -> pd.DataFrame:
    """Read the obs of a written chunk back, cells by name."""
    table = feather.read_table(work.chunk_obs(number), use_threads=False)
    frame: pd.DataFrame = table.drop_columns([NAME_COLUMN]).to_pandas(use_threads=False)
    frame.index = pd.Index(table.column(NAME_COLUMN).to_pandas(), dtype=object)
    return frame


def global_columns(obs: pd.DataFrame, decision: Decision) -> dict[str, ObsColumn]:
    """Return the type of every column over the whole directory, with the categories of all chunks."""
    columns = obs_columns(obs)
    for name, categories in decision.schema.categories.items():
        columns[name] = ObsColumn("categorical", tuple(categories))
    return columns
