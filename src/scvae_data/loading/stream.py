"""Row groups, a sampler and what batches look like in, batches of tensors out: what one process does.

Threads decode ahead and as many more assemble ahead; the cache lasts over epochs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TypeVar

from scvae_data.loading.batch.assemble import Assembler, Batch, Form
from scvae_data.loading.fetch.ahead import files_ahead
from scvae_data.loading.fetch.cache import RowGroupCache
from scvae_data.loading.fetch.damage import DamagePolicy
from scvae_data.loading.fetch.fetch import PendingRowGroup, RowGroupSource, WindowFetcher
from scvae_data.loading.fetch.readers import reader_of
from scvae_data.loading.fetch.window import Window
from scvae_data.loading.plan.reuse import ReuseModel
from scvae_data.loading.plan.sampler import BatchPlan, Epoch, Sampler
from scvae_data.loading.ring import LENT_SLOTS
from scvae_data.loading.select.rows import RowGroup
from scvae_data.loading.select.sizes import decoded_elements
from scvae_data.loading.select.values import FactsReader
from scvae_data.loading.settings import OnBadChunk

__all__ = ["BatchStream", "StreamCounters", "StreamSpec", "batches_in_memory", "batches_together", "tasks_in_memory"]

T = TypeVar("T")
Make = Callable[[Sequence[BatchPlan], Mapping[int, Callable[[], Window]]], T]
"""Makes something of several batches, given functions that wait for their windows."""

# Tasks that have made batches while the consumer is at those of another; more would only cost memory,
# row groups are decoded further ahead.
READY_TASKS = 2
# Sparse batches are made together up to so many rows: filling a batch of 256 takes no longer
# than what the interpreter does around it.
ROWS_TOGETHER = 1024


@dataclass(frozen=True, eq=False)
class StreamSpec:
    """All that a process needs to make batches; sent to worker processes."""

    form: Form
    row_groups: tuple[RowGroup, ...]
    sampler: Sampler
    cache_groups: int
    cache_bytes: int | None
    n_threads: int
    on_bad_chunk: OnBadChunk = "raise"
    """``"skip"`` leaves the cells of a chunk that cannot be read out of the batches."""
    together: int = 1
    """Batches that are made in one go, in memory that is free again when nobody has any of them."""

    def for_worker(self, n_workers: int) -> StreamSpec:
        """One worker's share: the cache is divided, so that memory does not grow with workers."""
        n_bytes = None if self.cache_bytes is None else max(1, self.cache_bytes // n_workers)
        return replace(
            self,
            form=replace(self.form, pin_memory=False),
            cache_groups=max(1, self.cache_groups // n_workers),
            cache_bytes=n_bytes,
        )


def batches_together(form: Form, batch_size: int) -> int:
    """How many batches are best made in one go; dense ones take time, and memory, enough by themselves."""
    return 1 if form.x_format == "dense" else max(1, ROWS_TOGETHER // batch_size)


@dataclass(frozen=True)
class StreamCounters:
    """What loading did so far; sums over worker processes."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    bytes_read: int = 0
    predicted_hits: int = 0
    cached_blocks: int = 0
    cached_bytes: int = 0
    batches: int = 0
    """Batches handed out, and their cells."""
    cells: int = 0
    bad_chunks: int = 0
    """Damaged chunks met, by each process anew."""
    skipped_cells: int = 0
    """Cells that batches went on without."""

    def __add__(self, other: StreamCounters) -> StreamCounters:
        mine, theirs = vars(self), vars(other)
        return StreamCounters(**{name: mine[name] + theirs[name] for name in mine})


class BatchStream:
    """Makes batches in this process; the cache lasts over epochs."""

    def __init__(self, spec: StreamSpec) -> None:
        self.spec = spec
        index = spec.form.index
        self._cache: RowGroupCache[PendingRowGroup] = RowGroupCache(spec.cache_groups, spec.cache_bytes)
        room = max((decoded_elements(index, group) for group in spec.row_groups), default=0)
        damage = DamagePolicy(spec.on_bad_chunk)
        readers = reader_of(index, spec.row_groups, damage.leave_out)
        self._source = RowGroupSource(
            spec.row_groups, readers, room + room // 50, damage, facts=FactsReader(index, spec.form.obs_keys)
        )
        self.assembler = Assembler(spec.form)
        # A window needs its row groups at once, however small the cache.
        self._reuse = ReuseModel(max(spec.cache_groups, spec.sampler.window))
        self._cache.max_groups = self._reuse.capacity

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch | None]:
        """Batches of ``epoch`` from ``start`` on, in order; None for one whose cells are all left out."""
        with closing(self.made(self.spec.sampler.epoch(epoch), epoch, self.assembler.make, start)) as made:
            for several in made:
                yield from several.batches()

    def made(self, epoch: Epoch, number: int, make: Make[T], start: int = 0) -> Generator[T]:
        """What ``make`` makes of batches of an epoch from ``start`` on, of several at a time; in order.

        Copies of remote files that the epoch after its ``number`` needs first are best kept.

        Threads run while the generator does, and are gone before it yields the
        last, when it is closed, and when it raises.
        """
        spec = self.spec
        plans = epoch.batches(start)
        ready: deque[tuple[int, Future[T]]] = deque()
        workers = ThreadPoolExecutor(spec.n_threads, thread_name_prefix="scvae-assemble")
        fetcher = WindowFetcher(epoch, self._source, self._cache, self._reuse, spec.n_threads)
        ahead = files_ahead(spec.form.index, spec.row_groups, epoch, partial(spec.sampler.epoch, number + 1))
        try:
            while task := list(islice(plans, spec.together)):
                windows = sorted({part.window for batch in task for part in batch.segments})
                # A window is given back when no batch on its way is made of it: then its memory can be used again.
                passed = ready[0][0] if ready else windows[0]
                ahead.advance(passed)
                fetcher.advance(passed, windows[-1])
                handles = {window: fetcher.handle(window) for window in windows}
                ready.append((windows[0], workers.submit(make, task, handles)))
                if len(ready) >= READY_TASKS + spec.n_threads:
                    yield ready.popleft()[1].result()
            while len(ready) > 1:
                yield ready.popleft()[1].result()
            last = [ready.popleft()[1].result()] if ready else []
        finally:
            ahead.close()
            fetcher.close()
            workers.shutdown(wait=True, cancel_futures=True)
        yield from last

    def counters(self) -> StreamCounters:
        """What this process did so far."""
        cache = self._cache.counters()
        return StreamCounters(
            hits=cache.hits,
            misses=cache.misses,
            evictions=cache.evictions,
            bytes_read=self._source.bytes_read,
            predicted_hits=self._reuse.hits,
            cached_blocks=cache.blocks,
            cached_bytes=cache.nbytes,
            bad_chunks=self._source.damage.n_chunks,
            skipped_cells=self.assembler.skipped,
        )


def tasks_in_memory(spec: StreamSpec, n_workers: int) -> int:
    """What each process that makes batches has made at most: ready, being made, and with whoever has the batches."""
    return READY_TASKS + spec.n_threads + 1 + (LENT_SLOTS if n_workers else 0)


def batches_in_memory(spec: StreamSpec, n_workers: int) -> int:
    """Estimate the bytes of batches on their way, and of those that the consumer has, for each such process."""
    return tasks_in_memory(spec, n_workers) * spec.form.n_bytes(spec.sampler.batch_size * spec.together)
