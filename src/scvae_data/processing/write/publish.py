"""Finished chunks in; obs.parquet and the JSON files out, the index last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.feather as feather

from scvae_data.processing.decide.decision import Decision, describe
from scvae_data.processing.facts import FileFacts as InputFacts
from scvae_data.processing.facts import ScanResult
from scvae_data.processing.run.directory import remove_strays
from scvae_data.processing.run.records import provenance, storage_statistics
from scvae_data.processing.run.summary import Summary
from scvae_data.store import (
    OBS_FILE,
    ChunkEntry,
    Chunking,
    DatasetIndex,
    FileFacts,
    GeneList,
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
    directory: Path,
    work: Path,
    summary: Summary,
    *,
    decision: Decision,
    genes: GeneList,
    entries: Sequence[ChunkEntry],
    results: Sequence[ScanResult],
    files: Sequence[InputFacts],
    chunking: Chunking,
    seed: int,
    config: Mapping[str, Any],
    overrides: Sequence[str] | None = None,
) -> DatasetIndex:
    """Write everything of a dataset directory but its chunks, and complete the summary.

    A directory with an index is complete, so the index comes last.
    """
    remove_strays(directory, {entry.file for entry in entries})
    obs_facts, columns, accessions = write_obs(directory / OBS_FILE, work, decision, entries)
    gene_facts = write_gene_list(directory, genes)
    summary.n_chunks = len(entries)
    summary.n_obs = sum(entry.n_obs for entry in entries)
    summary.nnz = sum(entry.nnz for entry in entries)
    summary.bytes = sum(entry.bytes for entry in entries) + obs_facts.bytes + gene_facts.bytes
    record = provenance(config, files, genes.hash, decision.processing_id, overrides)
    write_json(directory / CONFIG_FILE, record)
    write_json(directory / SUMMARY_FILE, storage_statistics(summary, entries, results, accessions))
    return write_index(
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
            order={"kind": chunking.order, "seed": seed, "group_column": chunking.group_column},
            normalization=describe(decision),
            processing_id=decision.processing_id,
            gene_list_hash=genes.hash,
            files={OBS_FILE: obs_facts, "gene_list.json": gene_facts},
            simulated=summary.simulated,
        ),
    )


def write_obs(
    path: Path, work: Path, decision: Decision, entries: Sequence[ChunkEntry]
) -> tuple[FileFacts, dict[str, ObsColumn], dict[str, int]]:
    """Join the chunks' obs in order; return the file's facts, its columns and the cells per accession."""
    columns = global_columns(chunk_obs(work, 0), decision)
    accessions: Counter[str] = Counter()
    with ObsWriter(path, columns) as writer:
        for number in range(len(entries)):
            obs = chunk_obs(work, number)
            writer.append(obs)
            accessions.update(obs["SRX_accession"].tolist())
    return writer.close(), columns, dict(sorted(accessions.items()))


def chunk_obs(work: Path, number: int) -> pd.DataFrame:
    """Read the obs of a written chunk back, cells by name."""
    frame: pd.DataFrame = feather.read_feather(work / "chunks" / f"{number:06d}.feather")
    return frame.set_index("obs_name").rename_axis(None)


def global_columns(obs: pd.DataFrame, decision: Decision) -> dict[str, ObsColumn]:
    """Return the type of every column over the whole directory, with the categories of all chunks."""
    columns = obs_columns(obs)
    for name, categories in decision.schema.categories.items():
        columns[name] = ObsColumn("categorical", tuple(categories))
    return columns
