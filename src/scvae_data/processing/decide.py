"""The accounts of all scans in, everything that holds for the whole directory out.

Gene set, target sum, categories and the order of the cells depend on the
corpus only: not on file order, chunk size, engine or number of workers.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.processing.columns import Columns
from scvae_data.processing.genes import GeneRules, Universe
from scvae_data.processing.kernels import row_totals
from scvae_data.processing.normalize import Normalization
from scvae_data.processing.obs import FEW_CATEGORIES, MAX_CATEGORIES, ObsSchema
from scvae_data.processing.scan import ScanResult
from scvae_data.processing.spool import Run
from scvae_data.store.files import read_json, write_json

__all__ = [
    "ChunkRange",
    "Decision",
    "GeneSums",
    "RunTotals",
    "choose_categories",
    "chunk_ranges",
    "dropped_genes",
    "gene_sets",
    "load_decision",
    "median_total",
    "sum_genes",
    "total_run",
]


@dataclass(frozen=True)
class Decision:
    """What the writers of all chunks share.

    Parameters
    ----------
    gene_map
        Column of each gene of the universe, -1 for those left out, int32.
    gene_set
        Per file number the code of its measured-gene mask, int32; -1 for files left out.
    files
        ``source_file`` by file number.
    target_sum
        The recorded one, never None.
    max_count
        Largest count of a kept gene.
    n_vars
        Number of columns; more than the genes that have one where a list names genes that no file has.
    """

    gene_map: NDArray[np.int32]
    gene_set: NDArray[np.int32]
    files: list[str]
    schema: ObsSchema
    normalization: Normalization
    target_sum: float
    max_count: int
    processing_id: str
    n_vars: int
    runs: list[str] = field(default_factory=list)

    @property
    def n_universe(self) -> int:
        """Number of genes of the universe."""
        return len(self.gene_map)

    @property
    def reorders(self) -> bool:
        """Whether the columns come in another order than the universe's."""
        columns = self.gene_map[self.gene_map >= 0]
        return bool((np.diff(columns) < 0).any())

    def save(self, work: Path) -> str:
        """Write the decision for the workers; return the hash of its content."""
        plain = {
            "files": self.files,
            "schema": asdict(self.schema),
            "normalization": asdict(self.normalization),
            "target_sum": self.target_sum,
            "max_count": self.max_count,
            "processing_id": self.processing_id,
            "n_vars": self.n_vars,
            "runs": self.runs,
        }
        digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
        digest.update(self.gene_map.tobytes() + self.gene_set.tobytes())
        name = digest.hexdigest()[:16]
        np.savez(work / f"decision-{name}.npz", gene_map=self.gene_map, gene_set=self.gene_set)
        write_json(work / f"decision-{name}.json", plain)
        return name


@lru_cache(maxsize=1)
def load_decision(work: Path, digest: str) -> Decision:
    """Read a decision back, once per process."""
    plain = read_json(work / f"decision-{digest}.json")
    with np.load(work / f"decision-{digest}.npz") as arrays:
        schema = plain["schema"]
        return Decision(
            gene_map=arrays["gene_map"],
            gene_set=arrays["gene_set"],
            files=plain["files"],
            schema=ObsSchema(tuple(schema["metrics"]), schema["kinds"], schema["categories"]),
            normalization=Normalization(**plain["normalization"]),
            target_sum=plain["target_sum"],
            max_count=plain["max_count"],
            processing_id=plain["processing_id"],
            n_vars=plain["n_vars"],
            runs=plain["runs"],
        )


@dataclass(frozen=True)
class GeneSums:
    """Sums over the kept cells of all files, per gene of the universe.

    Parameters
    ----------
    n_files
        How many files have the gene as a column, int64.
    n_cells, totals
        Cells with a count; total count; int64.
    """

    n_files: NDArray[np.int64]
    n_cells: NDArray[np.int64]
    totals: NDArray[np.int64]


def sum_genes(work: Path, universe: Universe, results: Sequence[ScanResult]) -> GeneSums:
    """Add up the gene sums of all files; whole numbers, so the order does not matter."""
    n_genes = len(universe.keys)
    sums = GeneSums(*(np.zeros(n_genes, np.int64) for _ in range(3)))
    for table, count in Counter(result.table for result in results).items():
        sums.n_files[np.unique(universe.maps[table])] += count
    for result in results:
        with np.load(work / "scan" / f"{result.number:06d}" / "genes.npz") as arrays:
            sums.n_cells[:] += arrays["cells"]
            sums.totals[:] += arrays["totals"]
    return sums


def select_genes(rules: GeneRules, sums: GeneSums, n_files: int) -> NDArray[np.bool_]:
    """Return which genes of the universe the directory holds; none at all is an error."""
    kept = rules.select(sums.n_files, n_files, sums.n_cells, sums.totals)
    if not kept.any():
        raise ConfigError(
            f"no gene of {len(kept)} is left: genes.join={rules.join}, genes.min_cells={rules.min_cells}, "
            f"genes.min_counts={rules.min_counts}; relax them"
        )
    return kept


def dropped_genes(universe: Universe, sums: GeneSums, kept: NDArray[np.bool_]) -> dict[str, list[Any]]:
    """List the measured genes that are not kept, with their cells and counts over the kept cells."""
    dropped = ~kept & (sums.n_files > 0)
    return {
        "gene": universe.keys[dropped].tolist(),
        "symbol": universe.symbols[dropped].tolist(),
        "n_cells": sums.n_cells[dropped].tolist(),
        "total_counts": sums.totals[dropped].tolist(),
    }


def gene_sets(
    universe: Universe, columns: Columns, results: Sequence[ScanResult], n_files: int
) -> tuple[list[NDArray[np.bool_]], NDArray[np.int32]]:
    """Return the distinct measured-gene masks over the columns, and each file's code among them."""
    masks = {table: columns.measured(universe.maps[table]).tobytes() for table in {result.table for result in results}}
    distinct = sorted(set(masks.values()))
    codes = np.full(n_files, -1, np.int32)
    for result in results:
        codes[result.number] = distinct.index(masks[result.table])
    return [np.frombuffer(mask, bool) for mask in distinct], codes


@dataclass(frozen=True)
class RunTotals:
    """What one pass over a run says about its rows and the kept genes.

    Parameters
    ----------
    n_rows, n_dropped
        Rows; those without a count in a kept gene.
    totals
        How many rows have which total (over the genes that the size factor runs over).
    values
        Distinct texts of each text column over the rows that stay, up to `MAX_CATEGORIES`.
    files
        Numbers of the files that some row which stays came from.
    """

    path: str
    n_rows: int
    nnz: int
    n_dropped: dict[int, int]
    max_count: int
    totals: dict[int, int]
    values: dict[str, list[str]]
    files: list[int]


def total_run(work: Path, path: str, kept_file: str, text_columns: Sequence[str], over_all_genes: bool) -> RunTotals:
    """Compute every row's total over the kept genes, store it beside the run, and sum up."""
    kept = np.load(work / kept_file)
    with Run(work / path) as run:
        totals, lengths = np.zeros(run.n_rows, np.int64), np.zeros(run.n_rows, np.int32)
        largest = 0
        for block in run.blocks(0, run.n_rows):
            rows = slice(block.first_row, block.first_row + len(block.row_starts) - 1)
            largest = max(
                largest, row_totals(block.row_starts, block.indices, block.data, kept, totals[rows], lengths[rows])
            )
        run.write_totals(totals, lengths)
        obs = run.obs()
        live = pa.array(totals > 0)
        staying = obs.filter(live)
        dropped = obs.column("file_number").to_numpy()[totals == 0]
        basis = staying.column("total_counts").to_numpy() if over_all_genes else totals[totals > 0]
        distinct, counts = np.unique(basis, return_counts=True)
        return RunTotals(
            path=path,
            n_rows=run.n_rows,
            nnz=int(lengths.sum()),
            n_dropped=dict(Counter(dropped.tolist())),
            max_count=largest,
            totals=dict(zip(distinct.tolist(), counts.tolist(), strict=True)),
            values={name: distinct_values(staying, name) for name in text_columns},
            files=np.unique(staying.column("file_number").to_numpy()).tolist(),
        )


def distinct_values(obs: pa.Table, name: str) -> list[str]:
    """Return the distinct texts of a column, at most one more than `MAX_CATEGORIES`."""
    if name not in obs.column_names:
        return []
    column = obs.column(name)
    if column.type == pa.bool_():
        column = pc.if_else(column, "True", "False")
    values = pc.drop_null(pc.unique(column.cast(pa.string()))).to_pylist()
    return sorted(values)[: MAX_CATEGORIES + 1]


def median_total(histograms: Sequence[Mapping[int, int]]) -> float:
    """Return the exact median of totals from how often each occurs; the mean of the middle two where even."""
    merged: Counter[int] = Counter()
    for histogram in histograms:
        merged.update(histogram)
    values = np.array(sorted(merged), np.int64)
    ends = np.cumsum([merged[int(value)] for value in values])
    n = int(ends[-1])
    low, high = (values[np.searchsorted(ends, position, side="right")] for position in ((n - 1) // 2, n // 2))
    return float((int(low) + int(high)) / 2)


def choose_categories(values: Mapping[str, set[str]], n_obs: int) -> dict[str, list[str]]:
    """Return the sorted categories of the text columns that are worth it: near-unique ones stay text."""
    limit = min(MAX_CATEGORIES, max(FEW_CATEGORIES, n_obs // 2))
    always = ("SRX_accession", "source_file")
    return {name: sorted(found) for name, found in values.items() if name in always or len(found) <= limit}


@dataclass(frozen=True)
class ChunkRange:
    """The cells of one chunk.

    Parameters
    ----------
    low, high
        Their order keys: from ``low`` to below ``high``, to the last for None.
    first_row
        Global row of the first.
    """

    low: int
    high: int | None
    first_row: int


def chunk_ranges(work: Path, runs: Sequence[str], chunk_size: int) -> list[ChunkRange]:
    """Cut the cells that stay into chunks of ``chunk_size``; cells of one key stay together."""
    parts = []
    for path in runs:
        with Run(work / path) as run:
            parts.append(run.array("order")[run.totals()[0] > 0])
    keys = np.concatenate(parts)
    keys.sort()
    lows = np.unique(keys[::chunk_size])
    first_rows = np.searchsorted(keys, lows)
    ends = [*lows[1:].tolist(), None]
    return [ChunkRange(*values) for values in zip(lows.tolist(), ends, first_rows.tolist(), strict=True)]


def describe(decision: Decision) -> dict[str, Any]:
    """Return what a directory's index says about normalisation."""
    return {
        "method": decision.normalization.method,
        "target_sum": decision.target_sum,
        "size_factor_genes": decision.normalization.size_factor_genes,
    }
