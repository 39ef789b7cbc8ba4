"""Finished chunks in; obs.parquet and the JSON files out, the index last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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

__all__ = ["publish", "write_obs"]


def publish(
    context: Context,
    plan: WritePlan,
    entries: Sequence[ChunkEntry],
    tables: Mapping[str, Mapping[str, Any]],
    seconds: Mapping[str, float],
) -> Summary:
    """Write everything of a dataset directory but its chunks; a directory with an index is complete, so it comes last.

    Parameters
    ----------
    entries
        Of all chunks.
    tables
        Of `write_tables`.
    seconds
        Wall time per stage.
    """
    directory, settings = context.directory, context.settings
    decision, genes = plan.decided.decision, plan.decided.genes
    remove_strays(context.target, {entry.file for entry in entries})
    obs_facts, columns, accessions = write_obs(directory / OBS_FILE, context.work, decision, entries)
    gene_facts = write_gene_list(directory, genes)
    n_bytes = sum(entry.bytes for entry in entries) + obs_facts.bytes + gene_facts.bytes
    peak_rss = max(peak_rss_bytes(), context.engine.peak_rss)
    summary = summarise(context, plan, entries, n_bytes, seconds, tables, peak_rss)
    write_json(directory / CONFIG_FILE, provenance(context, plan.surveyed.files, genes.hash, decision.processing_id))
    statistics = storage_statistics(summary, plan, entries, tables, accessions)
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
            obs_columns=columns,
            codec=chunking.codec,
            block_elements=chunking.block_elements,
            order={"kind": chunking.order, "seed": settings.seed, "group_column": chunking.group_column},
            normalization=describe(decision),
            processing_id=decision.processing_id,
            gene_list_hash=genes.hash,
            files={OBS_FILE: obs_facts, GENE_LIST_FILE: gene_facts},
            simulated=summary.simulated,
        ),
    )
    return summary


def write_obs(
    path: Path, work: WorkFolder, decision: Decision, entries: Sequence[ChunkEntry]
) -> tuple[FileFacts, dict[str, ObsColumn], dict[str, int]]:
    """Join the chunks' obs in order; return the file's facts, its columns and the cells per accession."""
    columns = global_columns(chunk_obs(work, 0), decision)
    accessions: Counter[str] = Counter()
    with ObsWriter(path, columns) as writer:
        for number in range(len(entries)):
            obs = chunk_obs(work, number)
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
