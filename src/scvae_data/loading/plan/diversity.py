"""The order of an epoch and labels of cells in, how mixed the batches are out: row numbers only, no counts are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from scvae_data.loading.plan.epoch import Plan
from scvae_data.loading.select.rows import RowGroup, by_group

__all__ = ["ENOUGH", "Diversity", "label_counts", "measure_diversity"]

# Below this share of the entropy of a random order, training is known to suffer.
ENOUGH = 0.99
# Batches are looked at in runs, evenly spaced: those of a window share the work of ordering it.
N_RUNS = 16
RUN = 4


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
        """Entropy in shares of that in random order, at most 1: what is more is the luck of the draw."""
        return min(1.0, self.entropy / self.random_entropy) if self.random_entropy > 0 else 1.0


def label_counts(plan: Plan, row_groups: Sequence[RowGroup], codes: NDArray[np.int32]) -> NDArray[np.int64]:
    """Cells of every label that the first epoch serves, (n_labels,)."""
    counts = np.zeros(int(codes.max()) + 1, np.int64)
    for number, group in enumerate(row_groups):
        labels = codes[group.global_rows(slice(None))]
        if plan.draws is not None:
            labels = np.repeat(labels, plan.draws.of_rows(0, number))
        counts += np.bincount(labels, minlength=counts.size)
    return counts


def measure_diversity(
    plan: Plan, row_groups: Sequence[RowGroup], codes: NDArray[np.int32], counts: NDArray[np.int64]
) -> Diversity:
    """Compare batches of the first epoch with as many draws of its cells in random order.

    Parameters
    ----------
    plan, row_groups
        What is served, and in which order.
    codes
        Label of every cell of the directory, (n_obs,).
    counts
        Of :func:`label_counts`.
    """
    epoch = plan.epoch(0)
    overall = counts / counts.sum()
    rng = np.random.default_rng(plan.seed)
    planned, random = [], []
    for start in range(0, epoch.n_batches, max(RUN, epoch.n_batches // N_RUNS)):
        for batch in islice(epoch.batches(start), RUN):
            labels = np.concatenate(
                [_labels(epoch.windows[segment.window], row_groups, segment.slots, codes) for segment in batch.segments]
            )
            planned.append(_figures(np.bincount(labels, minlength=counts.size), overall))
            random.append(_figures(rng.multivariate_hypergeometric(counts, labels.size, method="marginals"), overall))
    (entropy, found, variation), (random_entropy, random_found, random_variation) = (
        np.mean(figures, axis=0).tolist() for figures in (planned, random)
    )
    return Diversity(entropy, random_entropy, found, random_found, variation, random_variation)


def _labels(
    window: Sequence[int], row_groups: Sequence[RowGroup], slots: NDArray[np.int64], codes: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Labels of the rows ``slots`` of a window."""
    first = np.cumsum([0, *(row_groups[group].n_rows for group in window)])
    rows = np.empty(slots.size, np.int64)
    for k, mine in by_group(first, slots):
        rows[mine] = row_groups[window[k]].global_rows(slots[mine] - first[k])
    return codes[rows]


def _figures(counts: NDArray[np.int64], overall: NDArray[np.float64]) -> tuple[float, int, float]:
    share = counts / counts.sum()
    there = share[share > 0]
    return float(-(there * np.log2(there)).sum()), there.size, float(np.abs(share - overall).sum() / 2)
