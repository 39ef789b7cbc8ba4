"""Finished chunks in; obs.parquet and the JSON files out, the index last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.feather as feather

from scvae_data.processing.decide.decision import Decision, describe
from scvae_data.processing.decide.stage import WritePlan
from scvae_data.processing.engine.workers import peak_rss_bytes
from scvae_data.processing.run.context import Context
from scvae_data.processing.run.directory import remove_strays
from scvae_data.processing.run.records import provenance
from scvae_data.processing.run.summary import Summary
from scvae_data.processing.work import WorkFolder
from scvae_data.processing.write.account import storage_statistics, summarise
from scvae_data.processing.write.chunks import write_chunks
from scvae_data.store import (
    GENE_LIST_FILE,
    OBS_FILE,
    SRX_COLUMN,
    ChunkEntry,
    DatasetIndex,
    FileFacts,
    ObsColumn,
    ObsWriter,
    obs_columns,
    write_gene_list,
    write_index,
    write_json,
)
from scvae_data.store.verify import CONFIG_FILE, SUMMARY_FILE

__all__ = ["CellsWritten", "chunk_obs", "publish", "write_cells", "write_obs"]


@dataclass(frozen=True)
class CellsWritten:
    """What is known once all cells are written.

    Parameters
    ----------
    entries
        Of all chunks.
    obs, columns
        What the index says of the obs table and its columns.
    accessions
        Cells per accession.
    """

    entries: Sequence[ChunkEntry]
    obs: FileFacts
    columns: Mapping[str, ObsColumn]
    accessions: Mapping[str, int]


def write_cells(context: Context, plan: WritePlan) -> CellsWritten:
    """Write all chunks, and the obs of each into the table of all while workers compress the next ones."""
    entries: list[ChunkEntry] = []

    def written() -> Iterator[pd.DataFrame]:
        for entry in write_chunks(context, plan):
            entries.append(entry)
            yield chunk_obs(context.work, len(entries) - 1)

    return CellsWritten(entries, *write_obs(context.directory / OBS_FILE, plan.decided.decision, written()))


def publish(
    context: Context,
    plan: WritePlan,
    written: CellsWritten,
    tables: Mapping[str, Mapping[str, Any]],
    seconds: Mapping[str, float],
) -> Summary:
    """Write what a dataset directory lacks beside its cells; a directory with an index is complete, so it comes last.

    Parameters
    ----------
    written
        Of `write_cells`.
    tables
        Of `write_tables`.
    seconds
        Wall time per stage.
    """
    directory, settings = context.directory, context.settings
    decision, genes, entries = plan.decided.decision, plan.decided.genes, written.entries
    remove_strays(directory, {entry.file for entry in entries})
    gene_facts = write_gene_list(directory, genes)
    n_bytes = sum(entry.bytes for entry in entries) + written.obs.bytes + gene_facts.bytes
    peak_rss = max(peak_rss_bytes(), context.engine.peak_rss)
    summary = summarise(context, plan, entries, n_bytes, seconds, tables, peak_rss)
    write_json(directory / CONFIG_FILE, provenance(context, plan.surveyed.files, genes.hash, decision.processing_id))
    statistics = storage_statistics(summary, plan, entries, tables, written.accessions)
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
            obs_columns=written.columns,
            codec=chunking.codec,
            block_elements=chunking.block_elements,
            order={"kind": chunking.order, "seed": settings.seed, "group_column": chunking.group_column},
            normalization=describe(decision),
            processing_id=decision.processing_id,
            gene_list_hash=genes.hash,
            files={OBS_FILE: written.obs, GENE_LIST_FILE: gene_facts},
            simulated=summary.simulated,
        ),
    )
    return summary


def write_obs(
    path: Path, decision: Decision, chunks: Iterator[pd.DataFrame]
) -> tuple[FileFacts, dict[str, ObsColumn], dict[str, int]]:
    """Join the chunks' obs, in order; return the file's facts, its columns and the cells per accession."""
    first = next(chunks)
    columns = global_columns(first, decision)
    accessions: Counter[str] = Counter()
    with ObsWriter(path, columns) as writer:
        for obs in chain([first], chunks):
            writer.append(obs)
            accessions.update(obs[SRX_COLUMN].tolist())
    return writer.close(), columns, dict(sorted(accessions.items()))


def chunk_obs(work: WorkFolder, number: int) -> pd.DataFrame:
    """Read the obs of a written chunk back, cells by name."""
    frame: pd.DataFrame = feather.read_feather(work.chunk_obs(number))
    return frame.set_index("obs_name").rename_axis(None)


def global_columns(obs: pd.DataFrame, decision: Decision) -> dict[str, ObsColumn]:
    """Return the type of every column over the whole directory, with the categories of all chunks."""
    columns = obs_columns(obs)
    for name, categories in decision.schema.categories.items():
        columns[name] = ObsColumn("categorical", tuple(categories))
    return columns
