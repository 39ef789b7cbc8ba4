"""Blocks, a plan and per-cell facts in, batches of tensors out: what one process does.

Threads decode ahead and as many more assemble ahead; the cache lasts over epochs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from scvae_data.loading.batch import Piece, RowFacts, Window, count_elements, fill_csr, fill_dense
from scvae_data.loading.cache import BlockCache
from scvae_data.loading.damage import DamagePolicy, OnBadChunk, check_totals
from scvae_data.loading.fetch import BlockSource, PendingBlock, WindowFetcher
from scvae_data.loading.kernels import NO_GENES
from scvae_data.loading.memory import decoded_elements
from scvae_data.loading.plan import BatchPlan, Plan, ReuseModel
from scvae_data.loading.pool import BufferPool
from scvae_data.loading.scatter import reader_of
from scvae_data.loading.select import Rows
from scvae_data.loading.sparse import SparseRows
from scvae_data.store.csr import count_dtype
from scvae_data.store.directory import DatasetIndex

__all__ = [
    "Batch",
    "BatchStream",
    "StreamCounters",
    "StreamSpec",
    "XFormat",
    "batches_in_memory",
    "compact_dtypes",
    "to_tensors",
]

Batch = dict[str, Any]
XFormat = Literal["dense", "csr", "compact"]

# Assembled batches that wait for the consumer; more would only cost memory, blocks are decoded further ahead.
READY_BATCHES = 2
# A batch of which damage leaves fewer cells is left out whole: a BatchNorm needs two.
LEAST_CELLS = 2


@dataclass(frozen=True, eq=False)
class StreamSpec:
    """All that a process needs to make batches; sent to worker processes."""

    index: DatasetIndex
    blocks: tuple[Rows, ...]
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
    x_format: XFormat = "dense"
    genes: NDArray[np.int32] | None = None
    """Output column of every gene, ``n_columns`` for none; None for all genes in their order."""
    n_columns: int | None = None
    """Columns of ``x``; None for all genes."""
    on_bad_chunk: OnBadChunk = "raise"
    """``"skip"`` leaves the cells of a chunk that cannot be read out of the batches."""

    @property
    def width(self) -> int:
        """Columns of ``x``."""
        return self.index.n_vars if self.n_columns is None else self.n_columns

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
        self._cache: BlockCache[PendingBlock] = BlockCache(spec.cache_blocks, spec.cache_bytes)
        room = max((decoded_elements(spec.index, block) for block in spec.blocks), default=0)
        self._source = BlockSource(
            spec.blocks, reader_of(spec.index, spec.blocks), room + room // 50, DamagePolicy(spec.on_bad_chunk)
        )
        self._genes = NO_GENES if spec.genes is None else spec.genes
        self._row_types = row_types(spec)
        # A window needs its blocks at once, however small the cache.
        self._reuse = ReuseModel(max(spec.cache_blocks, spec.plan.window))
        self._cache.max_blocks = self._reuse.capacity
        self._buffers = BufferPool()
        self._lock = threading.Lock()
        self._batches = self._cells = self._skipped = 0

    def batches(self, epoch: int, start: int = 0, step: int = 1) -> Generator[Batch | None]:
        """Batches ``start``, ``start + step``, … of ``epoch``, in order; None for one whose cells are all left out.

        Threads run while the generator does, and are gone before it yields the
        last batch, when it is closed, and when it raises.
        """
        plan = self.spec.plan.epoch(epoch)
        ready: deque[tuple[int, Future[Batch | None]]] = deque()
        assembler = ThreadPoolExecutor(self.spec.n_threads, thread_name_prefix="scvae-assemble")
        n_ready = READY_BATCHES + self.spec.n_threads - 1
        fetcher = WindowFetcher(plan, self._source, self._cache, self._reuse, self.spec.n_threads)
        try:
            for batch in plan.batches(start, step):
                windows = [segment.window for segment in batch.segments]
                # A window is given back when no batch on its way is made of it: then its memory can be used again.
                fetcher.advance(ready[0][0] if ready else windows[0], windows[-1])
                handles = [fetcher.handle(window) for window in windows]
                ready.append((windows[0], assembler.submit(self._assemble, batch, handles)))
                if len(ready) > n_ready:
                    yield self._take(ready)
            while len(ready) > 1:
                yield self._take(ready)
            last = [self._take(ready)] if ready else []
        finally:
            fetcher.close()
            assembler.shutdown(wait=True, cancel_futures=True)
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
            batches=self._batches,
            cells=self._cells,
            bad_chunks=self._source.damage.n_chunks,
            skipped_cells=self._skipped,
        )

    def _take(self, ready: deque[tuple[int, Future[Batch | None]]]) -> Batch | None:
        batch = ready.popleft()[1].result()
        if batch is not None:
            self._batches += 1
            self._cells += len(batch["index"])
        return batch

    def _assemble(self, batch: BatchPlan, handles: list[Callable[[], Window]]) -> Batch | None:
        spec = self.spec
        pieces = [(handle(), segment.slots) for handle, segment in zip(handles, batch.segments, strict=True)]
        n_planned = sum(slots.size for _, slots in pieces)
        pieces = [(window, window.present(slots)) for window, slots in pieces]
        n_present = sum(slots.size for _, slots in pieces)
        if n_present < min(n_planned, LEAST_CELLS):
            n_present = 0
        with self._lock:
            self._skipped += n_planned - n_present
        if not n_present:
            return None
        rows = np.concatenate([window.global_rows(slots) for window, slots in pieces])
        taken: list[Piece] = [(window.parts, slots) for window, slots in pieces]
        library_size = np.empty(rows.size, np.float32)
        factors = spec.facts.size_factor[rows] if spec.normalized else None
        fill = self._dense if spec.x_format == "dense" else self._sparse
        made: Batch = {"x": fill(taken, factors, library_size)}
        if spec.counts:
            # Compact rows are counts until they are made dense.
            same = not spec.normalized or spec.x_format == "compact"
            made["counts"] = made["x"] if same else fill(taken, None, library_size)
        check_totals(spec.index, rows, library_size, spec.facts.size_factor[rows])
        return to_tensors({**made, "library_size": library_size, **spec.facts.take(rows)})

    def _dense(
        self, pieces: list[Piece], factors: NDArray[np.float64] | None, library_size: NDArray[np.float32]
    ) -> torch.Tensor:
        x = self._buffer((library_size.size, self.spec.width), np.float32)
        fill_dense(pieces, self._genes, factors, x.numpy(), library_size)
        return x

    def _sparse(
        self, pieces: list[Piece], factors: NDArray[np.float64] | None, library_size: NDArray[np.float32]
    ) -> SparseRows:
        width = self.spec.width
        starts = count_elements(pieces, self._genes, width)
        nnz = int(starts[-1])
        columns, values = (self._buffer((nnz + 1,), kind) for kind in self._row_types)
        kept = None if self.spec.x_format == "compact" else factors
        fill_csr(pieces, self._genes, width, kept, starts, columns.numpy(), values.numpy(), library_size)
        return SparseRows(torch.from_numpy(starts), columns[:nnz], values[:nnz], width)

    def _buffer(self, shape: tuple[int, ...], kind: DTypeLike) -> torch.Tensor:
        if self.spec.pin_memory:
            # torch keeps pinned memory for itself and hands it out again after the copy to the device.
            like = torch.from_numpy(np.empty(0, kind))
            return torch.empty(shape, dtype=like.dtype, pin_memory=True)
        return torch.from_numpy(self._buffers.take(shape, kind))


def batches_in_memory(spec: StreamSpec, n_workers: int) -> int:
    """Estimate the bytes of batches on their way: ready, being made, and those that the consumer has and had before."""
    rows, width, index = spec.plan.batch_size, spec.width, spec.index
    x = 4 * rows * width
    if spec.x_format != "dense":
        itemsize = sum(np.dtype(kind).itemsize for kind in row_types(spec))
        x = round(rows * index.nnz / index.n_obs * itemsize * width / index.n_vars)
    # A worker hands batches over through shared memory.
    n_batches = READY_BATCHES + spec.n_threads + 1 + (n_workers > 0)
    return n_batches * x * (2 if spec.counts and spec.normalized and spec.x_format != "compact" else 1)


def row_types(spec: StreamSpec) -> tuple[DTypeLike, DTypeLike]:
    """Types of columns and values in sparse batches."""
    return compact_dtypes(spec.index, spec.width) if spec.x_format == "compact" else (np.int32, np.float32)


def compact_dtypes(index: DatasetIndex, n_columns: int) -> tuple[DTypeLike, DTypeLike]:
    """Types of columns and counts in compact batches: uint16, or the signed type that torch computes with."""
    counts = count_dtype(max((chunk.max_count for chunk in index.chunks), default=0))
    wide = {2: np.uint16, 4: np.int32 if all(chunk.max_count < 1 << 31 for chunk in index.chunks) else np.int64}
    return np.uint16 if n_columns < 1 << 16 else np.int32, wide.get(counts.itemsize, np.int64)


def to_tensors(batch: Batch) -> Batch:
    """Arrays as tensors over the same memory, also one level down; the rest unchanged."""

    def convert(value: Any) -> Any:
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    return {
        key: {name: convert(item) for name, item in value.items()} if isinstance(value, dict) else convert(value)
        for key, value in batch.items()
    }
