"""A plan and a source of blocks in, an iterable of batches out: threads or worker processes, one order.

:class:`BatchStream` makes batches in one process, with threads that decode and
one that assembles ahead. :class:`BatchLoader` is what a training loop iterates:
it knows the position in the epoch, and with ``num_workers > 0`` it runs one
stream per worker process, worker w serving batches w, w + k, w + 2k, …
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from scvae_data.errors import SelectionError
from scvae_data.loading.batch import BufferPool, RowFacts, Window, fill_rows
from scvae_data.loading.cache import BlockCache
from scvae_data.loading.fetch import BlockSource, PendingBlock, WindowFetcher
from scvae_data.loading.plan import BatchPlan, Plan, ReuseModel
from scvae_data.loading.select import BlockRows
from scvae_data.store.index import DatasetIndex

__all__ = ["Batch", "BatchLoader", "BatchStream", "StartMethod", "StreamCounters", "StreamSpec"]

Batch = dict[str, Any]
StartMethod = Literal["fork", "spawn", "forkserver"]

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

    def _assemble(self, batch: BatchPlan, handles: list[Any]) -> Batch:
        spec = self.spec
        windows: list[Window] = [handle() for handle in handles]
        rows = np.concatenate(
            [window.global_rows(segment.slots) for window, segment in zip(windows, batch.segments, strict=True)]
        )
        facts = spec.facts.take(rows)
        library_size = np.empty(rows.size, np.float32)
        matrices = {"x": (self._matrix(rows.size), spec.facts.size_factor[rows] if spec.normalized else None)}
        if spec.counts and spec.normalized:
            matrices["counts"] = (self._matrix(rows.size), None)
        for tensor, size_factor in matrices.values():
            first = 0
            for window, segment in zip(windows, batch.segments, strict=True):
                span = slice(first, first + segment.slots.size)
                factors = None if size_factor is None else size_factor[span]
                fill_rows(window.parts, segment.slots, factors, tensor.numpy()[span], library_size[span])
                first = span.stop
        made: Batch = {name: tensor for name, (tensor, _) in matrices.items()}
        if spec.counts and not spec.normalized:
            made["counts"] = made["x"]
        made["library_size"] = library_size
        made.update(facts)
        return to_tensors(made)

    def _matrix(self, n_rows: int) -> torch.Tensor:
        n_vars = self.spec.index.n_vars
        if self.spec.pin_memory:
            # torch keeps pinned memory for itself and hands it out again after the copy to the device.
            return torch.empty((n_rows, n_vars), dtype=torch.float32, pin_memory=True)
        return torch.from_numpy(self._buffers.take(n_rows, n_vars))


def to_tensors(batch: Batch) -> Batch:
    """Arrays as tensors over the same memory, also one level down; the rest unchanged."""

    def convert(value: Any) -> Any:
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    return {
        key: {name: convert(item) for name, item in value.items()} if isinstance(value, dict) else convert(value)
        for key, value in batch.items()
    }


class WorkerStream(IterableDataset[tuple[int, StreamCounters, Batch]]):
    """The stream of one worker process: (worker, its counters, batch) for each of its batches.

    Parameters
    ----------
    spec
        One worker's share.
    position
        Shared memory, int64 (2,): epoch and first batch of the next iteration.
    """

    def __init__(self, spec: StreamSpec, position: torch.Tensor) -> None:
        self._spec = spec
        self._position = position
        self._stream: BatchStream | None = None
        self._process = -1

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stream": None, "_process": -1}

    def __iter__(self) -> Iterator[tuple[int, StreamCounters, Batch]]:
        info = get_worker_info()
        worker, n_workers = (0, 1) if info is None else (info.id, info.num_workers)
        if self._stream is None or self._process != os.getpid():
            self._stream, self._process = BatchStream(self._spec), os.getpid()
        epoch, start = (int(value) for value in self._position)
        with closing(self._stream.batches(epoch, start + worker, n_workers)) as batches:
            for batch in batches:
                yield worker, self._stream.counters(), batch


def unchanged(item: Any) -> Any:
    """Collate function for batches that are batches already."""
    return item


class BatchLoader:
    """Iterable of batches for one part of the cells; each iteration is one epoch.

    The order depends on the plan alone. Position and counters are those of
    the batches handed out, whatever is decoded or assembled ahead.

    Parameters
    ----------
    spec
        What to serve.
    num_workers
        Worker processes; 0 for threads of this process only.
    start_method
        How workers are started; None for torch's default.
    """

    def __init__(self, spec: StreamSpec, num_workers: int = 0, start_method: StartMethod | None = None) -> None:
        self.spec = spec
        self.num_workers = num_workers
        self.wait_seconds = 0.0
        self.epoch = 0
        self.next_batch = 0
        self._resumed = False
        self._start_method = start_method
        self._stream: BatchStream | None = None
        self._workers: DataLoader[Any] | None = None
        self._position: torch.Tensor | None = None
        self._past = StreamCounters()
        self._worker_counters: dict[int, StreamCounters] = {}

    def __len__(self) -> int:
        """Batches per epoch and rank."""
        return self.spec.plan.n_batches

    def __iter__(self) -> Iterator[Batch]:
        """The next epoch, or the rest of the one that was loaded; decided when the first batch is asked for."""
        self._begin()
        source = self._from_workers() if self.num_workers else self._from_threads()
        with closing(source):
            for number in range(self.next_batch, len(self)):
                started = time.perf_counter()
                batch = next(source)
                self.wait_seconds += time.perf_counter() - started
                self.next_batch = number + 1
                yield batch

    def state_dict(self) -> dict[str, int]:
        """Position after the last batch handed out: plain integers."""
        plan = self.spec.plan
        return {"epoch": self.epoch, "next_batch": self.next_batch, "n_rows": plan.n_rows, "n_batches": plan.n_batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at a position: the next iteration yields exactly the batches that were left.

        Raises
        ------
        SelectionError
            If the position belongs to other cells or other batches.
        """
        for name, mine in (("n_rows", self.spec.plan.n_rows), ("n_batches", self.spec.plan.n_batches)):
            if state[name] != mine:
                raise SelectionError(
                    f"cannot resume: the saved position has {name}={state[name]}, this run has {mine}; "
                    "use the dataset, filters, split, batch_size and number of ranks of the saved run"
                )
        self.epoch, self.next_batch = state["epoch"], state["next_batch"]
        self._resumed = True

    def counters(self) -> StreamCounters:
        """What loading did so far, over all processes; cheap."""
        now = sum(self._worker_counters.values(), self._past)
        return now if self._stream is None else now + self._stream.counters()

    def close(self) -> None:
        """End worker processes and drop cached blocks; counters and position stay."""
        self._past = replace(self.counters(), cached_blocks=0, cached_bytes=0)
        self._worker_counters.clear()
        # Left to the garbage collector, ending the workers can wait for a timeout.
        iterator = getattr(self._workers, "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()
        self._workers = None
        self._stream = None

    def _begin(self) -> None:
        finished = self.next_batch >= len(self)
        abandoned = self.next_batch > 0 and not self._resumed
        if finished or abandoned:
            self.epoch, self.next_batch = self.epoch + 1, 0
        self._resumed = False

    def _from_threads(self) -> Generator[Batch]:
        if self._stream is None:
            self._stream = BatchStream(self.spec)
        return self._stream.batches(self.epoch, self.next_batch)

    def _from_workers(self) -> Generator[Batch]:
        if self._workers is None or self._position is None:
            self._position = torch.zeros(2, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
            # A generator of its own: torch would otherwise draw from the global one, and change what follows.
            self._workers = DataLoader(
                WorkerStream(self.spec.for_worker(self.num_workers), self._position),
                batch_size=None,
                collate_fn=unchanged,
                num_workers=self.num_workers,
                persistent_workers=True,
                pin_memory=self.spec.pin_memory,
                multiprocessing_context=self._start_method,
                generator=torch.Generator(),
            )
        self._position.copy_(torch.tensor([self.epoch, self.next_batch]))
        try:
            for worker, counters, batch in self._workers:
                self._worker_counters[worker] = counters
                yield batch
        except Exception:
            self.close()
            raise
