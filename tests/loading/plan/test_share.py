from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from scvae_data.loading.plan.epoch import Plan
from scvae_data.loading.plan.share import WorkerShare, worker_of_window

PLANS = {
    "windows of a few batches": Plan((50, 40, 60, 30), batch_size=16, seed=1),
    "batches of many windows": Plan((5,) * 40, batch_size=64, seed=2, window=2),
    "the second of two ranks": Plan((50, 40, 60, 30), batch_size=16, world_size=2, rank=1),
    "one window": Plan((30, 30), batch_size=7, window=2),
}


@pytest.mark.parametrize("n_workers", [1, 2, 5])
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_workers_have_every_segment_once_and_windows_of_their_own(plan: Plan, n_workers: int) -> None:
    epoch = plan.epoch(3)
    owner = worker_of_window(epoch, n_workers)
    shares = [WorkerShare(epoch, worker, n_workers) for worker in range(n_workers)]
    for start in (0, 2):
        queues = [list(share.batches(start)) for share in shares]
        for batch in epoch.batches(start):
            for segment in batch.segments:
                part = queues[owner[segment.window]].pop(0)
                assert (part.number, part.segments[0].window) == (batch.number, segment.window)
                np.testing.assert_array_equal(part.segments[0].slots, segment.slots)
        assert queues == [[]] * n_workers
    read = Counter(window for share in shares for window in share.needed_windows())
    assert read == Counter(epoch.needed_windows())
    sizes = [len(share.needed_windows()) for share in shares]
    assert max(sizes) - min(sizes) <= 1
