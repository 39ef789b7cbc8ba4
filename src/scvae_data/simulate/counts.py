"""Blocks of simulated counts: a planned experiment in, compressed rows out in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import sparse

from scvae_data.errors import ConfigError
from scvae_data.simulate.experiment import Experiment, plan_experiment
from scvae_data.simulate.genes import make_universe
from scvae_data.simulate.parameters import CellParameters
from scvae_data.simulate.sampler import sample_rows
from scvae_data.system.cpus import n_cpus

__all__ = ["CountBlock", "as_dtype", "count_blocks", "simulate_counts"]

CountBlock = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]
"""Row borders, columns and counts of consecutive cells."""
MAX_DRAWS = 2_000_000
"""UMIs drawn for one block: 16 MB, or a single cell."""


def simulate_counts(
    n_cells: int,
    n_genes: int = 20_000,
    *,
    seed: int = 0,
    parameters: CellParameters | None = None,
    dtype: DTypeLike = np.float32,
) -> sparse.csr_matrix:
    """Simulate one experiment that measures all genes.

    Parameters
    ----------
    n_cells, n_genes
        Size.
    seed
        The same seed gives the same counts, on any number of cores.
    parameters
        Distributions; defaults if None.
    dtype
        Of the counts.

    Returns
    -------
    scipy.sparse.csr_matrix
        Shape (n_cells, n_genes), columns sorted in each row, int32 indices (int64 from 2**31 elements on).
    """
    universe = make_universe(n_genes)
    experiment = plan_experiment(universe, n_cells, seed, 0, parameters or CellParameters(), np.arange(n_genes))
    blocks = list(count_blocks(experiment))
    indptr = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(block[0]) for block in blocks]))])
    indices = np.concatenate([block[1] for block in blocks])
    data = np.concatenate([as_dtype(block[2], dtype) for block in blocks])
    return sparse.csr_matrix((data, indices, indptr), shape=(n_cells, n_genes))


def count_blocks(experiment: Experiment, *, max_draws: int = MAX_DRAWS) -> Iterator[CountBlock]:
    """Rows of an experiment in order, drawn ahead in threads; the counts do not depend on the block size."""
    n_threads = min(4, n_cpus())
    with ThreadPoolExecutor(n_threads) as pool:
        ahead: deque[Future[CountBlock]] = deque()
        for start, stop in _spans(experiment, max_draws):
            ahead.append(pool.submit(_sample, experiment, start, stop))
            if len(ahead) > n_threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _spans(experiment: Experiment, max_draws: int) -> Iterator[tuple[int, int]]:
    drawn = np.concatenate([[0], np.cumsum(experiment.draws_nk.sum(axis=1))])
    start = 0
    while start < experiment.n_obs:
        stop = int(np.searchsorted(drawn, drawn[start] + max_draws, side="right")) - 1
        stop = max(stop, start + 1)
        yield start, stop
        start = stop


def _sample(experiment: Experiment, start: int, stop: int) -> CountBlock:
    rows = slice(start, stop)
    n_draws = int(experiment.draws_nk[rows].sum())
    indptr = np.empty(stop - start + 1, dtype=np.int64)
    indices, data = np.empty(n_draws, dtype=np.int32), np.empty(n_draws, dtype=np.int32)
    sample_rows(
        experiment.tables,
        experiment.profiles_nk[rows],
        experiment.draws_nk[rows],
        experiment.knocked_down_n[rows],
        experiment.seeds_n[rows],
        indices,
        data,
        indptr,
    )
    nnz = int(indptr[-1])
    return indptr, indices[:nnz].copy(), data[:nnz].copy()


def as_dtype(counts: NDArray[np.int32], dtype: DTypeLike) -> NDArray[np.generic]:
    """Counts in another dtype.

    Raises
    ------
    ConfigError
        If a count does not fit.
    """
    target = np.dtype(dtype)
    largest = int(counts.max(initial=0))
    limit = np.iinfo(target).max if target.kind in "iu" else 2 ** (np.finfo(target).nmant + 1)
    if largest > limit:
        raise ConfigError(f"dtype={target} cannot hold a simulated count of {largest:,}; use a wider one")
    return counts.astype(target)
