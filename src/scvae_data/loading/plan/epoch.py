"""Sizes of row groups in, the order of every batch out: pure integers, no data.

A *row group* is what is decoded at once: the selected rows of one chunk. A
*window* is the run of row groups whose rows are mixed. An epoch is a stream of
rows, cut into batches::

    groups    3 0 2 1            a seeded order; odd epochs walk it backwards
    windows  [3 0][2 1]          `window` groups each; the borders move by epoch
    stream    rrrrrrrrr|rrrrrr   rows of a window permuted with (seed, epoch, window)
    batches   bb bb bb bb bb     near-equal cuts; a batch may straddle two windows

Because odd epochs go back over the same row groups, the first c of an epoch are
the last c of the one before, for any c. A cache of c row groups therefore finds
min(c, n) of n from the second epoch on, and the order of cells does not depend
on the size of the cache, nor on threads or workers.

The stream of an epoch does not depend on the number of ranks either: each gets
one of equal shares of it. What the shares of one number of ranks have left can
therefore be shared anew by another::

    2 ranks  |1111....|2222....|    two batches of each are done
    3 ranks       |112|    |2333|   what is left, end to end, in three shares
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError, SelectionError
from scvae_data.loading.plan.sampler import BatchPlan, Segment, Served
from scvae_data.loading.plan.sampling import Draws

__all__ = ["EpochPlan", "Plan"]

# Separate the random streams drawn from one seed.
GROUP_ORDER, WINDOW_BORDERS, ROW_ORDER = range(3)


@dataclass(frozen=True)
class EpochPlan:
    """One rank's share of one epoch."""

    seed: int
    epoch: int
    shuffle: bool
    windows: tuple[tuple[int, ...], ...]
    """Row groups of every window of the whole epoch, over all ranks."""
    borders: NDArray[np.int64]
    """Where windows begin in the stream of rows, shape (n_windows + 1,)."""
    cuts: NDArray[np.int64]
    """Where this rank's batches begin, counting through ``left``; (n_batches - first_batch + 1,)."""
    left: tuple[tuple[int, int], ...]
    """Stretches of the stream that all ranks are to serve: all of it, unless other numbers of ranks served some."""
    first_batch: int = 0
    """Number of this rank's first batch; those before it stand for what was served."""
    draws: Draws | None = None

    @property
    def n_batches(self) -> int:
        """Batches of this rank, with those that stand for what was served."""
        return self.first_batch + self.cuts.size - 1

    def needed_windows(self) -> list[int]:
        """Windows that this rank's batches are made of, ascending."""
        return list(dict.fromkeys(window for window, _, _ in self._by_window(int(self.cuts[0]), int(self.cuts[-1]))))

    def row_order(self, window: int) -> NDArray[np.int64]:
        """Slots of a window in the order in which they enter the stream, shape (its part of the stream,)."""
        n_rows = int(self.borders[window + 1] - self.borders[window])
        if not self.shuffle:
            return np.arange(n_rows)
        order = np.random.default_rng([self.seed, ROW_ORDER, self.epoch, window]).permutation(n_rows)
        if self.draws is None:
            return order
        times = np.concatenate([self.draws.of_rows(self.epoch, group) for group in self.windows[window]])
        return np.repeat(np.arange(times.size), times)[order]

    def batches(self, start: int = 0) -> Iterator[BatchPlan]:
        """Batches from ``start`` to the end of this rank's share."""
        orders: dict[int, NDArray[np.int64]] = {}
        for number in range(max(start, self.first_batch), self.n_batches):
            cuts = self.cuts[number - self.first_batch : number - self.first_batch + 2].tolist()
            segments = []
            for window, low, high in self._by_window(*cuts):
                if window not in orders:
                    orders = {kept: order for kept, order in orders.items() if kept == window - 1}
                    orders[window] = self.row_order(window)
                segments.append(Segment(window, orders[window][low:high]))
            yield BatchPlan(number, tuple(segments))

    def _by_window(self, low: int, high: int) -> Iterator[tuple[int, int, int]]:
        """Positions ``low`` to ``high`` of what is left, window by window: its number, and where in its order."""
        for begin, end in cut_stretches(self.left, low, high):
            window = int(np.searchsorted(self.borders, begin, side="right")) - 1
            while begin < end:
                first, stop = int(self.borders[window]), min(end, int(self.borders[window + 1]))
                if begin < stop:
                    yield window, begin - first, stop - first
                begin, window = stop, window + 1


@dataclass(frozen=True)
class Plan:
    """The :class:`~scvae_data.loading.plan.sampler.Sampler` of a data module, and the one that reads least.

    Every row is visited once per epoch, or pass, over all ranks. All ranks have the same
    number of batches; over ``2 * world_size`` epochs each rank sees every row.
    """

    group_rows: tuple[int, ...]
    """Rows of every row group."""
    batch_size: int
    """Cells per batch and rank; batches of an epoch differ by at most one, so that none is left with a single cell."""
    seed: int = 0
    """Together with the epoch it decides the order."""
    window: int = 1
    """Row groups whose rows are mixed."""
    shuffle: bool = True
    """False: rows in their stored order, in every epoch alike."""
    world_size: int = 1
    """Ranks that share every epoch."""
    rank: int = 0
    """Which share is ours."""
    draws: Draws | None = None
    """How often each row is drawn in an epoch; None for once."""
    served: Served | None = None
    """An epoch of which other numbers of ranks have served a part."""
    passes: int = 1
    """How often an epoch visits each row group, without draws."""

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

    @cached_property
    def n_rows(self) -> int:
        """Cells per epoch over all ranks."""
        return self.passes * sum(self.group_rows) if self.draws is None else self.draws.n_draws

    @property
    def n_batches(self) -> int:
        """Batches per epoch and rank; equal on all ranks."""
        return self._n_batches(self.n_rows, self.world_size)

    def expected_hit_rate(self, capacity: int) -> float:
        """Share of requests that a cache of ``capacity`` row groups serves from the second epoch on."""
        n_groups = len(self.group_rows)
        return min(max(capacity, self.window), n_groups) / n_groups

    def group_order(self, epoch: int) -> NDArray[np.int64]:
        """Row groups in the order in which ``epoch`` visits them, shape (passes * n_groups,)."""
        n_groups = len(self.group_rows)
        if not self.shuffle:
            return np.arange(self.passes * n_groups) % n_groups
        order = np.random.default_rng([self.seed, GROUP_ORDER]).permutation(self.passes * n_groups) % n_groups
        return order[::-1] if epoch % 2 else order

    def epoch(self, epoch: int) -> EpochPlan:
        """Our share of epoch number ``epoch``."""
        if not self.shuffle:
            epoch = 0
        windows = self._windows(epoch)
        rows = self.group_rows if self.draws is None else self.draws.of_groups(epoch).tolist()
        of_windows = [sum(rows[group] for group in window) for window in windows]
        borders = np.concatenate([[0], np.cumsum(of_windows, dtype=np.int64)])
        left = self._left(epoch)
        n_left = sum(end - begin for begin, end in left)
        n_batches = self._n_batches(n_left, self.world_size)
        if n_left and not n_batches:
            raise SelectionError(
                f"{n_left} cells of epoch {epoch} are left, too few for {self.world_size} ranks; resume with fewer"
            )
        cuts = _cuts(n_left, n_batches, self.world_size, self._share(epoch))
        first_batch = self.n_batches - n_batches
        return EpochPlan(self.seed, epoch, self.shuffle, windows, borders, cuts, left, first_batch, self.draws)

    def after(self, served: Served) -> tuple[Plan, int]:
        """The order of which other numbers of ranks have served a part, and our first batch of what is left.

        Raises
        ------
        SelectionError
            If what is left is too little for all ranks.
        """
        plan = replace(self, served=served)
        return plan, plan.epoch(served.epoch).first_batch

    def _n_batches(self, n_rows: int, world_size: int) -> int:
        """Batches of each of ``world_size`` ranks that share ``n_rows`` cells."""
        wanted = -(-n_rows // (self.batch_size * world_size))
        # With tiny batches rounding up could leave a rank an empty batch.
        return min(wanted, n_rows // world_size)

    def _left(self, epoch: int) -> tuple[tuple[int, int], ...]:
        """Stretches of the stream that other numbers of ranks have not served."""
        left: tuple[tuple[int, int], ...] = ((0, self.n_rows),)
        if self.served is None or self.served.epoch != epoch:
            return left
        for world_size, stopped in self.served.by:
            n_left = sum(end - begin for begin, end in left)
            n_batches = self._n_batches(n_left, world_size)
            done = stopped - (self._n_batches(self.n_rows, world_size) - n_batches)
            shares = [_cuts(n_left, n_batches, world_size, share) for share in range(world_size)]
            left = tuple(stretch for cuts in shares for stretch in cut_stretches(left, int(cuts[done]), int(cuts[-1])))
        return left

    def _windows(self, epoch: int) -> tuple[tuple[int, ...], ...]:
        order = [int(group) for group in self.group_order(epoch)]
        first = self.window
        # With room for all row groups there is one window, and nothing to gain from borders that move.
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


def _cuts(n_rows: int, n_batches: int, world_size: int, share: int) -> NDArray[np.int64]:
    """Where the batches of one of equal shares of ``n_rows`` cells begin, and its end; (n_batches + 1,)."""
    first = share * n_batches
    return np.arange(first, first + n_batches + 1, dtype=np.int64) * n_rows // max(1, n_batches * world_size)


def cut_stretches(stretches: tuple[tuple[int, int], ...], low: int, high: int) -> Iterator[tuple[int, int]]:
    """What lies at positions ``low`` to ``high``, counting through all ``stretches`` [begin, end)."""
    first = 0
    for begin, end in stretches:
        cut = max(low - first, 0), min(high - first, end - begin)
        if cut[0] < cut[1]:
            yield begin + cut[0], begin + cut[1]
        first += end - begin
