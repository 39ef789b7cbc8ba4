"""A finished directory in, what its report tells of it out: tables joined over generations, cells counted in bins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from scvae_data.progress import progress
from scvae_data.store import SRX_COLUMN, DatasetIndex, read_json
from scvae_data.store.listed_table import listed_table
from scvae_data.store.names import generation_file
from scvae_data.store.verify import CONFIG_FILE, SUMMARY_FILE

__all__ = ["BINS", "Binned", "QcFacts", "columns_of", "genes_once", "qc_facts"]

PER_DECADE = 20
BINS: Mapping[str, NDArray[np.float64]] = {
    "total_counts": 10 ** (np.arange(7 * PER_DECADE + 1) / PER_DECADE),
    "n_genes_by_counts": 10 ** (np.arange(5 * PER_DECADE + 1) / PER_DECADE),
    "pct_counts_mt": np.arange(101.0),
}
"""Edges of the bins of each metric; what lies outside counts in the first or the last."""
COUNTS = "total_counts"
SET_COLUMN = "gene_set"


@dataclass
class Binned:
    """Numbers of cells in each bin of a metric; see `BINS`."""

    kept: NDArray[np.int64]
    dropped: NDArray[np.int64]

    @property
    def n_cells(self) -> int:
        """Cells that have the metric."""
        return int(self.kept.sum() + self.dropped.sum())


@dataclass
class QcFacts:
    """What a report tells."""

    summaries: list[dict[str, Any]]
    """``chunk_summary.json`` of each generation."""
    configs: list[dict[str, Any]]
    """``processing_config.json`` of each generation."""
    experiments: pd.DataFrame
    """``experiments.parquet`` of all generations; empty where there is none."""
    metrics: dict[str, Binned] = field(default_factory=dict)
    """All cells, by metric; those that a directory does not have are left out."""
    by_experiment: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """Accession → cells in the bins of ``total_counts``, int64, kept and dropped together."""
    measured: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Cells in which each gene was measured; int64, (n_vars,)."""


def qc_facts(index: DatasetIndex) -> QcFacts:
    """Read what a report needs, chunk by chunk: memory is for the experiments, not for the cells.

    Raises
    ------
    StoreError
        For files that are missing or damaged.
    """
    numbers = range(len(index.generations))
    summaries = [read_json(index.path / generation_file(SUMMARY_FILE, number)) for number in numbers]
    configs = [read_json(index.path / generation_file(CONFIG_FILE, number)) for number in numbers]
    experiments = [_table(index, summary, "experiments") for summary in summaries]
    facts = QcFacts(
        summaries, configs, pd.concat([found for found in experiments if found is not None] or [pd.DataFrame()])
    )
    accessions = index.obs_columns[SRX_COLUMN].categories or ()
    matrix = np.zeros((len(accessions) + 1, BINS[COUNTS].size - 1), np.int64)
    facts.metrics = {
        name: Binned(np.zeros(edges.size - 1, np.int64), np.zeros(edges.size - 1, np.int64))
        for name, edges in BINS.items()
        if name in index.obs_columns
    }
    _count_kept(index, facts, matrix)
    codes = {name: number for number, name in enumerate(accessions)}
    rest: dict[str, NDArray[np.int64]] = {}
    for summary in summaries:
        _count_dropped(index, summary, facts, (codes, matrix, rest))
    facts.by_experiment = {name: matrix[number] for name, number in codes.items()} | rest
    return facts


def _count_kept(index: DatasetIndex, facts: QcFacts, matrix: NDArray[np.int64]) -> None:
    in_sets = np.zeros(len(index.gene_sets), np.int64)
    names = [SRX_COLUMN, SET_COLUMN, *facts.metrics]
    for chunk_id in progress(range(len(index.chunks)), total=len(index.chunks), desc="report", unit="chunk"):
        columns = index.cells.arrays(chunk_id, names)
        in_sets += np.bincount(columns[SET_COLUMN], minlength=in_sets.size)
        for name, binned in facts.metrics.items():
            places = _places(columns[name], name)
            binned.kept += np.bincount(places[places >= 0], minlength=binned.kept.size)
            if name == COUNTS:
                np.add.at(matrix, (columns[SRX_COLUMN], places), 1)
    facts.measured = np.zeros(index.n_vars, np.int64)
    for code in np.flatnonzero(in_sets).tolist():  # one mask at a time: there may be many
        facts.measured += in_sets[code] * index.gene_sets.masks(code)


def _count_dropped(
    index: DatasetIndex,
    summary: Mapping[str, Any],
    facts: QcFacts,
    by_experiment: tuple[Mapping[str, int], NDArray[np.int64], dict[str, NDArray[np.int64]]],
) -> None:
    codes, matrix, rest = by_experiment
    if not summary.get("dropped_cells"):
        return
    with listed_table(index.path, summary["dropped_cells"]) as file:
        names = [name for name in facts.metrics if name in file.schema_arrow.names]
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, columns=["accession", *names]).to_pandas()
            for name in names:
                places = _places(table[name], name)
                facts.metrics[name].dropped += np.bincount(places[places >= 0], minlength=BINS[name].size - 1)
            if COUNTS in names:
                places = _places(table[COUNTS], COUNTS)
                for accession, rows in table.groupby("accession", observed=True).indices.items():
                    found = np.bincount(places[rows], minlength=matrix.shape[1])
                    if accession in codes:
                        matrix[codes[accession]] += found
                    else:  # an experiment of which no cell is kept
                        rest[accession] = rest.get(accession, np.zeros(matrix.shape[1], np.int64)) + found


def _places(values: Any, name: str) -> NDArray[np.int64]:
    """Bin of each value; −1 where it is missing."""
    values, edges = np.asarray(values, np.float64), BINS[name]
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, edges.size - 2)
    return np.where(np.isnan(values), -1, places)


def _table(index: DatasetIndex, summary: Mapping[str, Any], key: str) -> pd.DataFrame | None:
    if not summary.get(key):
        return None
    with listed_table(index.path, summary[key]) as file:
        table: pd.DataFrame = file.read().to_pandas()
        return table


def columns_of(parts: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[Any]]:
    """Columns of one entry of several summaries, one below the other."""
    joined: dict[str, list[Any]] = {}
    for part in parts:
        for name, values in (part.get(key) or {}).items():
            if isinstance(values, list):
                joined.setdefault(name, []).extend(values)
    return joined


def genes_once(columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Columns of genes that several generations may name, with each gene once, in order: the sums of its numbers.

    >>> genes_once({"gene": ["B", "A", "B"], "n_cells": [1, 2, 3], "why": ["x", "y", "z"]})
    {'gene': ['A', 'B'], 'n_cells': [2, 4], 'why': ['y', 'x']}
    """
    table = pd.DataFrame(columns)
    if table.empty:
        return {str(name): [] for name in table}
    rules = {name: "sum" if is_numeric_dtype(table[name]) else "first" for name in table if name != "gene"}
    joined = table.groupby("gene", as_index=False).agg(rules)
    return {str(name): joined[name].tolist() for name in joined}
