"""Blocks, a plan and per-cell facts in, batches of tensors out: what one process does.

Threads decode ahead and one more assembles ahead; the cache lasts over epochs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scvae_data.loading.batch import BufferPool, RowFacts, Window, fill_rows
from scvae_data.loading.cache import BlockCache
from scvae_data.loading.fetch import BlockSource, PendingBlock, WindowFetcher
from scvae_data.loading.plan import BatchPlan, Plan, ReuseModel
from scvae_data.loading.select import BlockRows
from scvae_data.store.directory import DatasetIndex

__all__ = ["Batch", "BatchStream", "StreamCounters", "StreamSpec", "to_tensors"]

Batch = dict[str, Any]

# Assembled batches that wait for the consumer; more would only cost memory, blocks are decoded further ahead.
READY_BATCHES = 2


@dataclass(frozen=True, eq=False)
class StreamSpec:
    """All that a process needs to make batches; sent to worker processes."""

    index: DatasetIndex
    blocks: tuple[BlockRows, ...]
    plan: Plan
    facts: RowFacts
    normalized: bool
    """``x`` is log1p(count / size_factor); otherwise counts."""
    counts: bool
    """Also deliver counts beside normalised values."""
    cache_blocks: int
    cache_bytes: int | None
    n_threads: int
    pin_memory: bool

    def for_worker(self, n_workers: int) -> StreamSpec:
        """One worker's share: the cache is divided, so that memory does not grow with workers."""
        n_bytes = None if self.cache_bytes is None else max(1, self.cache_bytes // n_workers)
        return replace(self, cache_blocks=max(1, self.cache_blocks // n_workers), cache_bytes=n_bytes, pin_memory=False)


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
    cells: int = 0

    def __add__(self, other: StreamCounters) -> StreamCounters:
        mine, theirs = vars(self), vars(other)
        return StreamCounters(**{name: mine[name] + theirs[name] for name in mine})


class BatchStream:
    """Makes batches in this process; the cache lasts over epochs."""

    def __init__(self, spec: StreamSpec) -> None:
        self.spec = spec
        self._cache: BlockCache[PendingBlock] = BlockCache(spec.cache_blocks, spec.cache_bytes)
        self._source = BlockSource(spec.blocks, spec.index.reader)
        # A window needs its blocks at once, however small the cache.
        self._reuse = ReuseModel(max(spec.cache_blocks, spec.plan.window))
        self._cache.max_blocks = self._reuse.capacity
        self._buffers = BufferPool()
        self._batches = self._cells = 0

    def batches(self, epoch: int, start: int = 0, step: int = 1) -> Generator[Batch]:
        """Batches ``start``, ``start + step``, … of ``epoch``, in order.

        Threads run while the generator does, and are gone before it yields the
        last batch, when it is closed, and when it raises.
        """
        plan = self.spec.plan.epoch(epoch)
        ready: deque[Future[Batch]] = deque()
        assembler = ThreadPoolExecutor(1, thread_name_prefix="scvae-assemble")
        fetcher = WindowFetcher(plan, self._source, self._cache, self._reuse, self.spec.n_threads)
        try:
            for batch in plan.batches(start, step):
                windows = [segment.window for segment in batch.segments]
                fetcher.advance(windows[0], windows[-1])
                ready.append(assembler.submit(self._assemble, batch, [fetcher.handle(window) for window in windows]))
                if len(ready) > READY_BATCHES:
                    yield self._count(ready.popleft().result())
            while len(ready) > 1:
                yield self._count(ready.popleft().result())
            last = self._count(ready.popleft().result()) if ready else None
        finally:
            fetcher.close()
            assembler.shutdown(wait=True, cancel_futures=True)
        if last is not None:
            yield last

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
            batches=self._batches,
            cells=self._cells,
        )

    def _count(self, batch: Batch) -> Batch:
        self._batches += 1
        self._cells += len(batch["index"])
        return batch

    def _assemble(self, batch: BatchPlan, handles: list[Callable[[], Window]]) -> Batch:
        spec = self.spec
        pieces = [(handle(), segment.slots) for handle, segment in zip(handles, batch.segments, strict=True)]
        rows = np.concatenate([window.global_rows(slots) for window, slots in pieces])
        library_size = np.empty(rows.size, np.float32)
        made: Batch = {"x": self._matrix(rows.size)}
        fill_pieces(pieces, spec.facts.size_factor[rows] if spec.normalized else None, made["x"].numpy(), library_size)
        if spec.counts:
            made["counts"] = self._matrix(rows.size) if spec.normalized else made["x"]
        if spec.counts and spec.normalized:
            fill_pieces(pieces, None, made["counts"].numpy(), library_size)
        return to_tensors({**made, "library_size": library_size, **spec.facts.take(rows)})

    def _matrix(self, n_rows: int) -> torch.Tensor:
        n_vars = self.spec.index.n_vars
        if self.spec.pin_memory:
            # torch keeps pinned memory for itself and hands it out again after the copy to the device.
            return torch.empty((n_rows, n_vars), dtype=torch.float32, pin_memory=True)
        return torch.from_numpy(self._buffers.take(n_rows, n_vars))


def fill_pieces(
    pieces: list[tuple[Window, NDArray[np.int64]]],
    size_factor: NDArray[np.float64] | None,
    x: NDArray[np.float32],
    library_size: NDArray[np.float32],
) -> None:
    """Fill ``x`` and ``library_size`` with rows of several windows, one below the other."""
    first = 0
    for window, slots in pieces:
        span = slice(first, first + slots.size)
        factors = None if size_factor is None else size_factor[span]
        fill_rows(window.parts, slots, factors, x[span], library_size[span])
        first = span.stop


def to_tensors(batch: Batch) -> Batch:
    """Arrays as tensors over the same memory, also one level down; the rest unchanged."""

    def convert(value: Any) -> Any:
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    return {
        key: {name: convert(item) for name, item in value.items()} if isinstance(value, dict) else convert(value)
        for key, value in batch.items()
    }
