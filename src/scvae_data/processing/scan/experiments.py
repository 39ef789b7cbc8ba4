"""All cells of a file, block by block, in; what is known of each of its experiments, kept cells or not, out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.processing.scan.cells import FileCells
from scvae_data.processing.scan.chemistry import MOST_LOOKED_AT, chemistry_of
from scvae_data.processing.scan.knee import AMBIENT_COUNTS, find_knee
from scvae_data.processing.settings.qc import Metrics
from scvae_data.processing.sort.gene_sums import save_sums
from scvae_data.readers.base import CsrBlock

if TYPE_CHECKING:
    from scvae_data.processing.scan.doublets import Doublets

__all__ = ["Experiments"]

FAR_BELOW = 0.1
"""Barcodes with a smaller share of the inflection's counts lie far below it."""
FEWEST_CELLS = 20
"""Of fewer cells the spread of their counts says nothing."""
MOST = 0.5
"""A matrix with a larger share of barcodes far below the inflection, or without a second count, is one of droplets."""


class Experiments:
    """What a scan sees of the experiments of one file.

    Parameters
    ----------
    cells
        What the file says of its cells.
    gene_map
        Positions of the block's columns in the universe, int32.
    n_genes
        Size of the universe.
    """

    def __init__(self, cells: FileCells, gene_map: NDArray[np.int32], n_genes: int) -> None:
        self.cells, self.gene_map = cells, gene_map
        n = len(cells.experiments)
        self._totals = np.zeros(len(cells.codes), np.int64)
        self._umis, self._left_out = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._doublets = np.zeros((n, 2), np.int64)
        # Empty droplets are of one experiment: files of several were filtered before they were joined.
        self._empty = np.zeros(n_genes, np.int64) if n == 1 else None

    def append(self, whole: CsrBlock, block: CsrBlock, metrics: Metrics, keep: NDArray[np.bool_]) -> None:
        """Take some rows in.

        Parameters
        ----------
        whole, block
            With all columns, and with those that are genes.
        """
        rows = slice(block.first_row, block.first_row + block.n_rows)
        totals, codes = metrics["total_counts"], self.cells.codes[rows]
        self._totals[rows] = totals
        np.add.at(self._umis, codes[keep], totals[keep])
        if block is not whole:
            sums = np.concatenate([[0], np.cumsum(whole.data, dtype=np.int64)])[whole.indptr]
            np.add.at(self._left_out, codes[keep], (np.diff(sums) - totals)[keep])
        if "doublet_score" in metrics:
            scored = ~np.isnan(metrics["doublet_score"])
            doublets = metrics["predicted_doublet"].to_numpy(bool, na_value=False)
            np.add.at(self._doublets, codes, np.column_stack([scored, doublets]))
        if self._empty is not None and (low := ~keep & (totals <= AMBIENT_COUNTS)).any():
            entries = np.repeat(low, np.diff(block.indptr))
            found = np.bincount(block.indices[entries], block.data[entries], len(self.gene_map))
            np.add.at(self._empty, self.gene_map, found.astype(np.int64))

    def save_empty(self, path: Path) -> None:
        """Store the counts of each gene in what holds no cell, if there is any."""
        if self._empty is not None and self._empty.any():
            save_sums(path, counts=self._empty)

    def facts(self, lost: Mapping[str, NDArray[np.int64]], doublets: Doublets | None) -> list[dict[str, Any]]:
        """Return what is known of each experiment, in order of the accessions.

        Parameters
        ----------
        lost
            Cells that each rule drops, per experiment.
        """
        ends = np.cumsum(np.bincount(self.cells.codes, minlength=len(self.cells.experiments)))
        of_experiments = np.split(np.argsort(self.cells.codes, kind="stable"), ends[:-1])
        found = []
        for code, (name, rows) in enumerate(zip(self.cells.experiments, of_experiments, strict=True)):
            facts = {"accession": name, "n_obs": len(rows), "lost": {rule: int(n[code]) for rule, n in lost.items()}}
            umis, left_out = int(self._umis[code]), int(self._left_out[code])
            names = self.cells.names(rows[:: -(-len(rows) // MOST_LOOKED_AT)])
            facts |= {"umis": umis, "umis_left_out": left_out, **ranked(self._totals[rows])}
            facts["chemistry"] = chemistry_of([text.split(":", 1)[1] for text in names])
            if doublets:
                n_scored, n_predicted = self._doublets[code].tolist()
                facts |= {"n_scored": n_scored, "n_predicted": n_predicted, "unscored": doublets.faults.get(name, "")}
                facts["doublet_threshold"] = doublets.thresholds.get(name)
            found.append(facts)
        return found


def ranked(totals: NDArray[np.int64]) -> dict[str, Any]:
    """Return what the counts of all barcodes of an experiment say."""
    n = max(len(totals), 1)
    facts: dict[str, Any] = {
        "share_one_umi": float((totals == 1).sum()) / n,
        "raw_droplets": float((totals <= 1).sum()) / n > MOST,
    }
    if (counted := totals[totals > 0]).size >= FEWEST_CELLS:
        middle = np.median(counted)
        facts["counts_spread"] = float(np.median(np.abs(counted - middle)) / middle)
    if knee := find_knee(totals):
        facts |= {
            "knee": knee.knee,
            "inflection": knee.inflection,
            "n_above_knee": int((totals >= knee.knee).sum()),
            "n_above_inflection": int((totals >= knee.inflection).sum()),
            "share_far_below": float((totals < FAR_BELOW * knee.inflection).sum()) / n,
        }
        facts["raw_droplets"] |= facts["share_far_below"] > MOST
    return facts
