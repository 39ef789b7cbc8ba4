"""The scans of all files in, sums per gene of the universe out, and what they say of kept and measured genes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.processing.columns import Columns
from scvae_data.processing.genes import GeneRules, Universe
from scvae_data.processing.scan_result import ScanResult

__all__ = ["GeneSums", "dropped_genes", "gene_sets", "select_genes", "sum_genes"]


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


def select_genes(rules: GeneRules, sums: GeneSums, n_files: int, few_cells: str = "") -> NDArray[np.bool_]:
    """Return which genes of the universe the directory holds; none at all is an error, whose cause ``few_cells`` is."""
    kept = rules.select(sums.n_files, n_files, sums.n_cells, sums.totals)
    if not kept.any():
        limits = f"genes.join={rules.join}, genes.min_cells={rules.min_cells}, genes.min_counts={rules.min_counts}"
        if few_cells:
            raise ConfigError(f"{few_cells}: no gene of {len(kept):,} is left in them ({limits}); relax qc")
        raise ConfigError(f"no gene of {len(kept)} is left: {limits}; relax them")
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
