"""An epoch in, what each of several worker processes makes of it out: every worker reads windows of its own.

A chunk is decoded by one worker only. Batches that straddle windows are made in
parts, which whoever receives them puts together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scvae_data.loading.plan.sampler import BatchPlan, Epoch

__all__ = ["WorkerShare", "worker_of_window"]


def worker_of_window(epoch: Epoch, n_workers: int) -> dict[int, int]:
    """Which worker reads each window that is needed: they take turns."""
    return {window: place % n_workers for place, window in enumerate(epoch.needed_windows())}


class WorkerShare:
    """The :class:`~scvae_data.loading.plan.sampler.Epoch` of one worker: each segment of its windows as a batch.

    Parameters
    ----------
    epoch
        What all workers share.
    worker, n_workers
        Which of how many.
    """

    def __init__(self, epoch: Epoch, worker: int, n_workers: int) -> None:
        self.windows: Sequence[Sequence[int]] = epoch.windows
        self._epoch = epoch
        self._mine = [window for window, owner in worker_of_window(epoch, n_workers).items() if owner == worker]

    def needed_windows(self) -> list[int]:
        """Windows that this worker reads, ascending."""
        return self._mine

    def batches(self, start: int = 0) -> Iterator[BatchPlan]:
        """What of batches from ``start`` on lies in these windows."""
        mine = set(self._mine)
        for plan in self._epoch.batches(start):
            for segment in plan.segments:
                if segment.window in mine:
                    yield BatchPlan(plan.number, (segment,))
