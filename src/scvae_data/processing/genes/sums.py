"""The scans of all files in, sums per gene of the universe out, and what they say of kept and measured genes."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.processing.facts import FileScan
from scvae_data.processing.genes.columns import Columns
from scvae_data.processing.genes.universe import Universe
from scvae_data.processing.settings.genes import AnyGeneRules, GeneRules
from scvae_data.processing.sort.gene_sums import load_sums
from scvae_data.processing.work import WorkFolder

__all__ = ["GeneAccount", "GeneSums", "account_for_genes", "gene_sets", "select_genes", "sum_genes"]


log = logging.getLogger(__name__)

# Files of one species and of any annotation share far more than this; other kinds of names share nothing.
LEAST_SHARED = 0.8


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


def sum_genes(work: WorkFolder, universe: Universe, scans: Sequence[FileScan]) -> GeneSums:
    """Add up the gene sums of all files; whole numbers, so the order does not matter."""
    n_genes = len(universe.keys)
    sums = GeneSums(*(np.zeros(n_genes, np.int64) for _ in range(3)))
    for table, count in Counter(scan.table for scan in scans).items():
        genes = np.unique(universe.maps[table])
        sums.n_files[genes[genes >= 0]] += count
    for scan in scans:
        cells, totals = load_sums(sums_of(work, scan), "cells", "totals")
        sums.n_cells[:] += cells
        sums.totals[:] += totals
    return sums


def sums_of(work: WorkFolder, scan: FileScan) -> Path:
    """Return where the gene sums over a file's kept cells are."""
    return work.scan(scan.number).gene_sums(without_copies=scan.n_copies > 0)


def select_genes(rules: GeneRules, sums: GeneSums, n_files: int, few_cells: str = "") -> NDArray[np.bool_]:
    """Return which genes of the universe the directory holds; none at all is an error, whose cause ``few_cells`` is."""
    kept = rules.select(sums.n_files, n_files, sums.n_cells, sums.totals)
    if not kept.any():
        least = {"min_cells": rules.min_cells, "min_counts": rules.min_counts}
        limits = ", ".join([f"genes.join={rules.join}", *(f"genes.{rule}={n}" for rule, n in least.items() if n)])
        if few_cells:
            raise ConfigError(f"{few_cells}: no gene of {len(kept):,} is left in them ({limits}); relax qc")
        raise ConfigError(f"no gene of {len(kept):,} is left: {limits}; relax them")
    return kept


def lost_genes(rules: AnyGeneRules, sums: GeneSums, n_files: int, kept: NDArray[np.bool_]) -> dict[str, int]:
    """Count the measured genes that are not kept, by the first rule that they fail."""
    left, lost = ~kept & (sums.n_files > 0), {}
    for rule, passing in rules.passing(sums.n_files, n_files, sums.n_cells, sums.totals).items():
        lost[rule] = int((left & ~passing).sum())
        left &= passing
    return {rule: n for rule, n in {**lost, rules.choice: int(left.sum())}.items() if n}


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
    universe: Universe, columns: Columns, maps: Mapping[int, NDArray[np.int32]], n_files: int
) -> tuple[list[NDArray[np.bool_]], NDArray[np.int32]]:
    """Return the distinct measured-gene masks over the columns, and each file's code among them.

    Parameters
    ----------
    maps
        Per number of a file the positions in the universe of the genes that it measured.
    """
    once = {id(found): found for found in maps.values()}
    of_maps = {key: columns.measured(found).tobytes() for key, found in once.items()}
    distinct = sorted(set(of_maps.values()))
    place = {mask: code for code, mask in enumerate(distinct)}
    codes = np.full(n_files, -1, np.int32)
    for number, found in maps.items():
        codes[number] = place[of_maps[id(found)]]
    return [np.frombuffer(mask, bool) for mask in distinct], codes


@dataclass(frozen=True)
class GeneAccount:
    """What became of the inputs' genes; all but the first for ``chunk_summary.json``.

    Parameters
    ----------
    n_genes
        Distinct genes of the inputs.
    lost
        How many of them are not in the directory, by the first rule that they fail.
    dropped
        Genes that are not in the directory, with their cells and counts, in columns.
    files
        How each file's genes were matched, see `account_of_files`.
    synonyms
        Symbols that stand for an id although its gene has another symbol here, or that genes.mapping decided on.
    """

    n_genes: int
    lost: dict[str, int]
    dropped: dict[str, list[Any]]
    files: dict[str, list[Any]]
    synonyms: dict[str, str]


def account_for_genes(
    work: WorkFolder,
    universe: Universe,
    sums: GeneSums,
    scans: Sequence[FileScan],
    kept: NDArray[np.bool_],
    rules: AnyGeneRules,
) -> GeneAccount:
    """Say what became of the inputs' genes; tell, and warn, of files whose genes are named differently."""
    files = account_of_files(work, universe, scans, sums.n_files, kept)
    tell_unmatched(files)
    warn_of_foreign_genes(files)
    n_genes, lost = int((sums.n_files > 0).sum()), lost_genes(rules, sums, len(scans), kept)
    return GeneAccount(n_genes, lost, dropped_genes(universe, sums, kept), files, universe.synonyms)


def account_of_files(
    work: WorkFolder,
    universe: Universe,
    scans: Sequence[FileScan],
    n_measuring: NDArray[np.int64],
    kept: NDArray[np.bool_],
) -> dict[str, list[Any]]:
    """Return how every file's genes were matched, in columns.

    Shares are shares of the UMIs of the file's kept cells; None for a file
    without any.

    Parameters
    ----------
    n_measuring
        In how many files each gene of the universe is a column.
    kept
        Which genes the directory holds.

    Returns
    -------
    ``n_features``, and how many of them are matched to a gene ``by_id``,
    ``by_symbol``, or are ``unmatched`` and keep their symbol; how many were
    ``summed`` into another column; the shares ``umi_unmatched``,
    ``umi_dropped`` (in genes that the directory does not hold) and
    ``umi_shared`` (in genes that at least half of the other files measure).
    """
    # Every file measures its own genes, so of the others it is one fewer.
    shared = 2 * (n_measuring - 1) >= len(scans) - 1
    without_id = universe.ids == ""
    report: defaultdict[str, list[Any]] = defaultdict(list)
    for scan in scans:
        match = universe.matches[scan.table]
        report["source_file"].append(scan.source_file)
        for name in ("n_features", "by_id", "by_symbol", "unmatched", "summed"):
            report[name].append(getattr(match, name))
        (totals,) = load_sums(sums_of(work, scan), "totals")
        umis = int(totals.sum())
        for name, genes in (("unmatched", without_id), ("dropped", ~kept), ("shared", shared)):
            report[f"umi_{name}"].append(round(int(totals[genes].sum()) / umis, 6) if umis else None)
    return dict(report)


def tell_unmatched(report: dict[str, list[Any]], most: int = 5) -> None:
    """Say which files have symbols without an id where other files have ids: such genes have columns of their own."""
    names = ("source_file", "unmatched", "n_features", "umi_unmatched")
    rows = [row for row in zip(*(report[name] for name in names), strict=True) if row[1] and row[3] is not None]
    if sum(report["by_id"]) and rows:
        for file, unmatched, n_features, share in sorted(rows, key=lambda row: -row[3])[:most]:
            log.info(
                "%s: %s of %s genes have no id, or several, and keep their symbol (%.1f %% of UMIs); "
                "genes.mapping=FILE.csv (columns id, symbol) names ids",
                file, f"{unmatched:,}", f"{n_features:,}", 100 * share,
            )  # fmt: skip


def warn_of_foreign_genes(report: dict[str, list[Any]]) -> None:
    """Warn of files whose UMIs lie in genes that the other files do not have."""
    rows = zip(report["umi_shared"], report["source_file"], strict=True)
    foreign = sorted((share, name) for share, name in rows if share is not None and share < LEAST_SHARED)
    if foreign:
        named = ", ".join(f"{name} ({100 * share:.1f} %)" for share, name in foreign[:5])
        log.warning(
            "%s of %s files have less than %.0f %% of their UMIs in genes that half of the other files measure: %s; "
            "they may be of another species, or their genes may be named differently: "
            "genes.mapping=FILE.csv (columns id, symbol) brings those together",
            f"{len(foreign):,}", f"{len(report['source_file']):,}", 100 * LEAST_SHARED, named,
        )  # fmt: skip
