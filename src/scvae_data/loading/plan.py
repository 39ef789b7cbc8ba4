"""Row counts of blocks in, the order of every batch out: pure integers, no data.

A *block* is what is decoded at once: the selected rows of one chunk. A
*window* is the run of blocks whose rows are mixed. An epoch is a stream of
rows, cut into batches::

    blocks    3 0 2 1            a seeded order; odd epochs walk it backwards
    windows  [3 0][2 1]          `window` blocks each; the borders move by epoch
    stream    rrrrrrrrr|rrrrrr   rows of a window permuted with (seed, epoch, window)
    batches   bb bb bb bb bb     near-equal cuts; a batch may straddle two windows

Because odd epochs go back over the same blocks, the first c blocks of an epoch
are the last c of the one before, for any c. A cache of c blocks therefore
finds min(c, n) of n blocks from the second epoch on, and the order of cells
does not depend on the size of the cache, nor on threads or workers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError, SelectionError

__all__ = ["BatchPlan", "EpochPlan", "Plan", "ReuseModel", "Segment"]

# Separate the random streams drawn from one seed.
BLOCK_ORDER, WINDOW_BORDERS, ROW_ORDER = range(3)


@dataclass(frozen=True)
class Segment:
    """Rows of a batch that come from one window."""

    window: int
    """Number of the window in its epoch."""
    slots: NDArray[np.int64]
    """Rows within the window, counting through its blocks in order."""


@dataclass(frozen=True)
class BatchPlan:
    """What one batch is made of."""

    number: int
    """Position in this rank's epoch, from 0."""
    segments: tuple[Segment, ...]
    """One segment, or several where the batch straddles windows."""


@dataclass(frozen=True)
class EpochPlan:
    """One rank's share of one epoch."""

    seed: int
    epoch: int
    shuffle: bool
    windows: tuple[tuple[int, ...], ...]
    """Blocks of every window of the whole epoch, over all ranks."""
    borders: NDArray[np.int64]
    """Where windows begin in the stream of rows, shape (n_windows + 1,)."""
    cuts: NDArray[np.int64]
    """Where this rank's batches begin in the stream, shape (n_batches + 1,)."""

    @property
    def n_batches(self) -> int:
        """Batches of this rank."""
        return self.cuts.size - 1

    def windows_from(self, batch: int) -> range:
        """Windows that this rank needs from batch number ``batch`` to the end of its share."""
        if batch >= self.n_batches:
            return range(0)
        first = int(np.searchsorted(self.borders, self.cuts[batch], side="right")) - 1
        last = int(np.searchsorted(self.borders, self.cuts[-1], side="left"))
        return range(first, last)

    def row_order(self, window: int) -> NDArray[np.int64]:
        """Order in which the rows of a window enter the stream, shape (rows of the window,)."""
        n_rows = int(self.borders[window + 1] - self.borders[window])
        if not self.shuffle:
            return np.arange(n_rows)
        return np.random.default_rng([self.seed, ROW_ORDER, self.epoch, window]).permutation(n_rows)

    def batches(self, start: int = 0, step: int = 1) -> Iterator[BatchPlan]:
        """Batches ``start``, ``start + step``, … to the end of this rank's share."""
        orders: dict[int, NDArray[np.int64]] = {}
        for number in range(start, self.n_batches, step):
            low, high = int(self.cuts[number]), int(self.cuts[number + 1])
            segments = []
            window = int(np.searchsorted(self.borders, low, side="right")) - 1
            while low < high:
                if window not in orders:
                    orders = {kept: order for kept, order in orders.items() if kept == window - 1}
                    orders[window] = self.row_order(window)
                begin, end = int(self.borders[window]), int(self.borders[window + 1])
                stop = min(high, end)
                segments.append(Segment(window, orders[window][low - begin : stop - begin]))
                low, window = stop, window + 1
            yield BatchPlan(number, tuple(segments))


@dataclass(frozen=True)
class Plan:
    """The order of cells for every epoch.

    Every row is visited once per epoch over all ranks. All ranks have the same
    number of batches; over ``2 * world_size`` epochs each rank sees every row.

    Parameters
    ----------
    block_rows
        Rows of every block.
    batch_size
        Cells per batch and rank. Batches of an epoch differ by at most one
        cell, so that none is left with a single cell.
    seed
        Together with the epoch it decides the order.
    window
        Blocks whose rows are mixed.
    shuffle
        False: rows in their stored order, in every epoch alike.
    world_size, rank
        Which share of every epoch is ours.
    """

    block_rows: tuple[int, ...]
    batch_size: int
    seed: int = 0
    window: int = 1
    shuffle: bool = True
    world_size: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size={self.batch_size} must be at least 1")
        if self.window < 1:
            raise ConfigError(f"max_chunks_in_memory={self.window} must be at least 1")
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank={self.rank} must lie in 0…{self.world_size - 1} (world_size={self.world_size})")
        if self.n_rows < self.world_size:
            raise SelectionError(
                f"{self.n_rows} cells cannot be shared by {self.world_size} ranks; use fewer ranks or select more cells"
            )

    @property
    def n_rows(self) -> int:
        """Cells per epoch over all ranks."""
        return sum(self.block_rows)

    @property
    def n_batches(self) -> int:
        """Batches per epoch and rank; equal on all ranks."""
        wanted = -(-self.n_rows // (self.batch_size * self.world_size))
        # With tiny batches rounding up could leave a rank an empty batch.
        return min(wanted, self.n_rows // self.world_size)

    def expected_hit_rate(self, capacity: int) -> float:
        """Share of block requests that a cache of ``capacity`` blocks serves from the second epoch on."""
        n_blocks = len(self.block_rows)
        return min(max(capacity, self.window), n_blocks) / n_blocks

    def block_order(self, epoch: int) -> NDArray[np.int64]:
        """Blocks in the order in which ``epoch`` visits them, shape (n_blocks,)."""
        n_blocks = len(self.block_rows)
        if not self.shuffle:
            return np.arange(n_blocks)
        order = np.random.default_rng([self.seed, BLOCK_ORDER]).permutation(n_blocks)
        return order[::-1] if epoch % 2 else order

    def epoch(self, epoch: int) -> EpochPlan:
        """Our share of epoch number ``epoch``."""
        if not self.shuffle:
            epoch = 0
        windows = self._windows(epoch)
        rows = [sum(self.block_rows[block] for block in window) for window in windows]
        borders = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
        n_cuts = self.n_batches * self.world_size
        share = self._share(epoch) * self.n_batches
        cuts = np.arange(share, share + self.n_batches + 1, dtype=np.int64) * self.n_rows // n_cuts
        return EpochPlan(self.seed, epoch, self.shuffle, windows, borders, cuts)

    def _windows(self, epoch: int) -> tuple[tuple[int, ...], ...]:
        order = [int(block) for block in self.block_order(epoch)]
        first = self.window
        # With room for all blocks there is one window, and nothing to gain from borders that move.
        if self.shuffle and self.window < len(order):
            first -= int(np.random.default_rng([self.seed, WINDOW_BORDERS, epoch]).integers(self.window))
        starts = [0, *range(first, len(order), self.window), len(order)]
        return tuple(tuple(order[a:b]) for a, b in pairwise(starts))

    def _share(self, epoch: int) -> int:
        """Which of ``world_size`` equal shares of the stream is ours.

        A rank walks a share forth and, in the odd epoch, back, which keeps its
        cache warm; then it moves on to the next share.
        """
        if not self.shuffle:
            return self.rank
        forward = (self.rank + epoch // 2) % self.world_size
        return self.world_size - 1 - forward if epoch % 2 else forward


class ReuseModel:
    """Predicts from block numbers alone which requests a cache of ``capacity`` blocks serves."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.requests = 0
        self.hits = 0
        self._recent: OrderedDict[int, None] = OrderedDict()

    def request(self, block: int) -> bool:
        """Record that ``block`` is asked for; true if it is among the last ``capacity`` distinct blocks."""
        hit = block in self._recent
        self._recent[block] = None
        self._recent.move_to_end(block)
        if len(self._recent) > self.capacity:
            self._recent.popitem(last=False)
        self.requests += 1
        self.hits += hit
        return hit

    @property
    def hit_rate(self) -> float:
        """Predicted hits per request so far; 0 before the first request."""
        return self.hits / self.requests if self.requests else 0.0
