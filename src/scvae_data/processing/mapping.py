"""How well each file's genes fit those of the others: an account per file, and a warning where they do not."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.processing.genes import Universe
from scvae_data.processing.scan_result import ScanResult

__all__ = ["mapping_report", "tell_unmatched", "warn_of_foreign_genes"]

log = logging.getLogger(__name__)

# Files of one species and of any annotation share far more than this; other kinds of names share nothing.
LEAST_SHARED = 0.8


def mapping_report(
    work: Path,
    universe: Universe,
    results: Sequence[ScanResult],
    n_measuring: NDArray[np.int64],
    kept: NDArray[np.bool_],
) -> dict[str, list[Any]]:
    """Return an account of every file's genes, in columns.

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
    shared = 2 * (n_measuring - 1) >= len(results) - 1
    without_id = universe.ids == ""
    report: defaultdict[str, list[Any]] = defaultdict(list)
    for result in results:
        match = universe.matches[result.table]
        report["source_file"].append(result.source_file)
        for name in ("n_features", "by_id", "by_symbol", "unmatched", "summed"):
            report[name].append(getattr(match, name))
        with np.load(work / "scan" / f"{result.number:06d}" / "genes.npz") as arrays:
            totals = arrays["totals"]
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
                "%s: %d of %d genes have no id, or several, and keep their symbol (%.1f %% of UMIs); "
                "genes.mapping=FILE.csv (columns id, symbol) names ids",
                file, unmatched, n_features, 100 * share,
            )  # fmt: skip


def warn_of_foreign_genes(report: dict[str, list[Any]]) -> None:
    """Warn of files whose UMIs lie in genes that the other files do not have."""
    rows = zip(report["umi_shared"], report["source_file"], strict=True)
    foreign = sorted((share, name) for share, name in rows if share is not None and share < LEAST_SHARED)
    if foreign:
        named = ", ".join(f"{name} ({100 * share:.1f} %)" for share, name in foreign[:5])
        log.warning(
            "%d of %d files have less than %.0f %% of their UMIs in genes that half of the other files measure: %s; "
            "their genes may be named differently: genes.mapping=FILE.csv (columns id, symbol) brings them together",
            len(foreign), len(report["source_file"]), 100 * LEAST_SHARED, named,
        )  # fmt: skip
