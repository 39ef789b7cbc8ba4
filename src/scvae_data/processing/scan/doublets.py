"""The kept cells of a file in; of each experiment the doublet scores of scanpy's scrublet out.

One experiment is in memory at a time; a file of several is read once for each
`GROUP_CELLS` of its cells.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from scvae_data.processing.scan.cells import FileCells
from scvae_data.processing.scan.qc_filter import OutlierBounds
from scvae_data.processing.settings.qc import PREDICTED, SCORE, Metrics
from scvae_data.readers.base import CsrBlock

__all__ = ["LEAST_CELLS", "Doublets", "find_doublets", "one_thread", "scrublet"]

LEAST_CELLS = 31
"""Scrublet looks at 30 principal components, so at more cells than that."""
MOST_CELLS = 50_000
"""Scrublet compares all pairs of cells, and holds three times as many dense, 0.7 MB a cell at most."""
GROUP_CELLS = 500_000

KeptRows = Callable[[], Iterator[tuple[CsrBlock, NDArray[np.bool_]]]]
"""Reads the file: blocks of rows, and which of the rows are kept."""


@dataclass
class Doublets:
    """What scrublet says of a file's cells.

    Parameters
    ----------
    scores
        NaN for cells that are not scored, float64, shape (n_obs,).
    thresholds
        Of each scored experiment; a cell with a larger score is predicted to be a doublet. None where the scores
        of simulated doublets have no two modes: then no cell is.
    faults
        Why experiments are not scored.
    """

    scores: NDArray[np.float64]
    thresholds: dict[str, float | None] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def bounds(self) -> list[OutlierBounds]:
        """The thresholds, as bounds of the score."""
        known = self.thresholds | dict.fromkeys(self.faults)
        return [OutlierBounds(name, SCORE, 0, None, None, None, threshold) for name, threshold in known.items()]

    def join(self, metrics: Metrics, rows: slice, cells: FileCells) -> Metrics:
        """Return the metrics of some rows with their scores and predictions."""
        scores = self.scores[rows]
        limits = [self.thresholds.get(name) for name in cells.experiments]
        limit = np.array([np.inf if one is None else one for one in limits])[cells.codes[rows]]
        predicted = pd.arrays.BooleanArray(scores > limit, np.isnan(scores))
        return {**metrics, SCORE: scores, PREDICTED: predicted}


def find_doublets(cells: FileCells, kept_rows: KeptRows, seed: int) -> Doublets:
    """Score the kept cells of each experiment of a file."""
    n_obs = np.bincount(cells.codes, minlength=len(cells.experiments))
    found = Doublets(np.full(len(cells.codes), np.nan))
    for group in groups_of(n_obs):
        for code, (rows, counts) in gathered(cells, kept_rows, group).items():
            name = cells.experiments[code]
            if fault := unfit(len(rows)):
                found.faults[name] = fault
                continue
            try:
                found.scores[rows], found.thresholds[name] = scrublet(counts, seed)
            # What scrublet raises where there are too few genes, or cells that are all alike.
            except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                found.faults[name] = f"scrublet cannot be run: {' '.join(str(error).split())}"
    return found


def unfit(n_cells: int) -> str:
    """Say why an experiment of so many kept cells is not scored; empty if it is."""
    if n_cells < LEAST_CELLS:
        return f"{n_cells} of its cells are kept, and scrublet needs {LEAST_CELLS}"
    if n_cells > MOST_CELLS:
        return (
            f"{n_cells:,} of its cells are kept, and {MOST_CELLS:,} are the most that scrublet is run on; they are "
            "likely several samples: name each in the obs column srx_accession"
        )
    return ""


def groups_of(n_obs: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Cut experiments into groups of at most `GROUP_CELLS` cells, or of one.

    >>> groups_of(np.array([300_000, 100_000, 900_000, 1]))
    [array([0, 1]), array([2]), array([3])]
    """
    groups: list[list[int]] = []
    n_together = 0
    for code, n in enumerate(n_obs.tolist()):
        if not groups or n_together + n > GROUP_CELLS:
            groups.append([])
            n_together = 0
        groups[-1].append(code)
        n_together += n
    return [np.array(group) for group in groups]


def gathered(
    cells: FileCells, kept_rows: KeptRows, group: NDArray[np.int64]
) -> dict[int, tuple[NDArray[np.int64], sp.csr_matrix]]:
    """Return rows and counts, as they are stored, of the kept cells of some experiments; none of too large ones."""
    rows: dict[int, list[NDArray[np.int64]]] = {code: [] for code in group.tolist()}
    parts: dict[int, list[sp.csr_matrix]] = {code: [] for code in group.tolist()}
    n_vars = 0
    for block, keep in kept_rows():
        n_vars = block.n_vars
        codes = np.where(keep, cells.codes[block.first_row : block.first_row + block.n_rows], -1)
        for code in np.intersect1d(codes, group).tolist():
            at = np.flatnonzero(codes == code)
            rows[code].append(block.first_row + at)
            if sum(map(len, rows[code])) > MOST_CELLS:
                parts[code].clear()
                continue
            entries = block.data.astype(np.float32), block.indices.astype(np.int32), block.indptr
            parts[code].append(sp.csr_matrix(entries, shape=(block.n_rows, n_vars))[at])
    empty = np.empty(0, np.int64)
    return {
        code: (np.concatenate([empty, *rows[code]]), sp.vstack(parts.pop(code) or [sp.csr_matrix((0, n_vars))], "csr"))
        for code in group.tolist()
    }


def scrublet(counts: sp.csr_matrix, seed: int) -> tuple[NDArray[np.float64], float | None]:
    """Return the scores of ``scanpy.pp.scrublet``, and the threshold that it finds.

    Parameters
    ----------
    counts
        Of one experiment, float32, cells × genes.
    """
    import anndata as ad
    import scanpy as sc

    adata = ad.AnnData(counts)
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each is of scanpy's own making
        # Exact neighbours, as scanpy takes them by itself up to 2,730 cells: approximate ones depend on the threads.
        sc.pp.scrublet(adata, random_state=seed, use_approx_neighbors=False, verbose=False)
    threshold = adata.uns["scrublet"].get("threshold")
    return adata.obs[SCORE].to_numpy(np.float64), None if threshold is None else float(threshold)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let numerics use one thread: how sums are split among several decides on their last digits."""
    import numba
    from threadpoolctl import threadpool_limits

    n_threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        numba.set_num_threads(n_threads)
