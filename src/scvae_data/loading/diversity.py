"""The order of an epoch and labels of cells in, how mixed the batches are out: row numbers only, no counts are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import SelectionError
from scvae_data.loading.plan import Plan
from scvae_data.loading.select import BlockRows, to_blocks
from scvae_data.store import DatasetIndex

__all__ = ["ENOUGH", "Diversity", "diversity_table", "measure"]

# Below this share of the entropy of a random order, training is known to suffer.
ENOUGH = 0.99
N_BATCHES = 64


@dataclass(frozen=True)
class Diversity:
    """Means over batches, in the order of an epoch and in a random order of the same cells."""

    entropy: float
    """Shannon entropy of a batch's labels in bits."""
    random_entropy: float
    labels: float
    """Distinct labels in a batch."""
    random_labels: float
    variation: float
    """Total variation: half the summed distances between the shares of labels in a batch and among all cells."""
    random_variation: float

    @property
    def share(self) -> float:
        """Entropy in shares of that in random order; 1 where all cells have one label."""
        return self.entropy / self.random_entropy if self.random_entropy > 0 else 1.0


def measure(plan: Plan, blocks: Sequence[BlockRows], codes: NDArray[np.int32], n_batches: int = N_BATCHES) -> Diversity:
    """Compare batches of the first epoch with random draws of as many cells.

    Parameters
    ----------
    plan, blocks
        What is served, and in which order.
    codes
        Label of every cell of the directory, (n_obs,).
    n_batches
        Batches looked at, evenly spaced.
    """
    epoch = plan.epoch(0)
    everything = np.concatenate([codes[block.global_rows(slice(None))] for block in blocks])
    n_labels = int(everything.max()) + 1
    overall = np.bincount(everything, minlength=n_labels) / everything.size
    rng = np.random.default_rng(plan.seed)
    planned, random = [], []
    for batch in epoch.batches(0, max(1, epoch.n_batches // n_batches)):
        labels = np.concatenate(
            [
                _labels(epoch.windows[segment.window], blocks, plan.block_rows, segment.slots, codes)
                for segment in batch.segments
            ]
        )
        planned.append(_figures(labels, overall))
        random.append(_figures(rng.choice(everything, labels.size, replace=False, shuffle=False), overall))
    (entropy, found, variation), (random_entropy, random_found, random_variation) = (
        np.mean(figures, axis=0).tolist() for figures in (planned, random)
    )
    return Diversity(entropy, random_entropy, found, random_found, variation, random_variation)


def diversity_table(
    index: DatasetIndex, batch_size: int = 256, window: int = 1, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Diversity of all cells of a directory, a row for each column with more than one label.

    Parameters
    ----------
    index
        The directory.
    batch_size
        Cells per batch.
    window
        Chunks whose cells are mixed (``max_chunks_in_memory``).
    columns
        Categorical obs columns; None for all.
    """
    blocks = to_blocks(None, index.first_rows)
    plan = Plan(tuple(block.n_rows for block in blocks), batch_size=min(batch_size, index.n_obs), window=window)
    if columns is None:
        columns = [name for name, known in index.obs_columns.items() if len(known.categories or ()) > 1]
    if not columns:
        raise SelectionError(f"{index.path} has no categorical obs column with more than one value")
    rows = []
    for column in columns:
        found = measure(plan, blocks, index.codes(column))
        rows.append({"column": column, **vars(found), "share": found.share})
    return pd.DataFrame(rows)


def _labels(
    window: Sequence[int],
    blocks: Sequence[BlockRows],
    block_rows: Sequence[int],
    slots: NDArray[np.int64],
    codes: NDArray[np.int32],
) -> NDArray[np.int32]:
    """Labels of the rows ``slots`` of a window."""
    first = np.cumsum([0, *(block_rows[block] for block in window)])
    place = np.searchsorted(first, slots, side="right") - 1
    rows = np.empty(slots.size, np.int64)
    for k, block in enumerate(window):
        rows[place == k] = blocks[block].global_rows(slots[place == k] - first[k])
    return codes[rows]


def _figures(labels: NDArray[np.int32], overall: NDArray[np.float64]) -> tuple[float, int, float]:
    share = np.bincount(labels, minlength=overall.size) / labels.size
    there = share[share > 0]
    return float(-(there * np.log2(there)).sum()), there.size, float(np.abs(share - overall).sum() / 2)
