"""A RAM budget and what there is to load in, how many decoded chunks it has room for out, and what loading will take.

What is counted is the resident memory of all processes of this machine: what
the process of each rank has before the first batch, worker processes, batches
on their way, and decoded chunks: those in the cache, at least the window in use
and the next, for training and validation. The model is not counted.
"""

from __future__ import annotations

import resource
import sys
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scvae_data.errors import ConfigError
from scvae_data.loading.select.rows import RowGroup
from scvae_data.loading.select.sizes import group_sizes
from scvae_data.loading.settings import StartMethod
from scvae_data.loading.stream import StreamSpec, batches_in_memory

__all__ = ["DEFAULT_CHUNKS", "MemoryNeed", "need_of", "resident_bytes", "worker_bytes"]

DEFAULT_CHUNKS = 4
"""Decoded chunks that are kept where neither their number nor a budget is given."""

# Compiled kernels, and what threads keep for the row groups they decode.
KERNEL_BYTES = 60_000_000
# What a forked worker writes to, and so does not share with its parent.
FORKED_BYTES = 60_000_000


@dataclass(frozen=True)
class MemoryNeed:
    """What loading takes on this machine, for any number of chunks."""

    resident: int
    """Bytes that the process of a rank has before the first batch."""
    worker: int
    """Bytes that a worker process has before it decodes anything."""
    batches: int
    """Bytes of the batches that one stream of batches has in memory."""
    train: tuple[int, ...]
    """Decoded bytes of every row group of training cells, largest first."""
    val: tuple[int, ...] = ()
    """The same of validation cells; empty without validation."""
    n_workers: int = 0
    """Worker processes of each loader; 0 for threads of the rank's process."""
    n_ranks: int = 1
    """Ranks on this machine."""
    cache_bytes: int | None = None
    """Bound on the decoded bytes kept; None for none."""

    @property
    def streams(self) -> int:
        """Streams of batches in each process that makes batches, or processes for them."""
        return 2 if self.val else 1

    def held(self, sizes: tuple[int, ...], chunks: int, window: int) -> int:
        """How many of the row groups of given sizes one process keeps, of ``chunks`` on the machine."""
        processes = max(1, self.n_workers)
        kept = max(1, chunks // processes)
        if self.cache_bytes is not None and sizes:
            kept = min(kept, self.cache_bytes // processes // max(1, sizes[0]))
        return min(len(sizes), max(kept, 2 * window))

    def total(self, chunks: int, window: int = 1) -> int:
        """Bytes of all processes if ``chunks`` are kept and ``window`` of them mixed."""
        decoded = 0
        for sizes, mixed in ((self.train, window), (self.val, 1)):
            # A row group may have the memory of a larger one.
            held = self.held(sizes, chunks, mixed)
            decoded += sum(sizes) if held == len(sizes) else held * sizes[0]
        made = max(1, self.n_workers) * (decoded + self.streams * self.batches)
        return self.n_ranks * (self.resident + KERNEL_BYTES + made + self.streams * self.n_workers * self.worker)

    def room(self, memory_gb: float, window: int = 1) -> int:
        """Most chunks that a budget has room for; 0 if not even a window and the next."""
        sizes = range(1, max(1, self.n_workers) * len(self.train) + 1)
        return bisect_right(sizes, memory_gb * 1e9, key=lambda chunks: self.total(chunks, window))

    def check(self, memory_gb: float, chunks: int, window: int) -> None:
        """Raise ConfigError, saying what would fit, unless ``chunks`` and ``window`` do."""
        needed = self.total(chunks, window)
        if needed <= memory_gb * 1e9:
            return
        room = self.room(memory_gb, window)
        enough = f"memory_gb={-(-needed // 10**7) / 100:g}"
        remedy = f"chunk_cache_size={room}, or {enough}" if room else f"{enough}, or fewer workers or smaller chunks"
        raise ConfigError(f"memory_gb={memory_gb:g} does not suffice: {self.describe(chunks, window)}; set {remedy}")

    def describe(self, chunks: int, window: int) -> str:
        """What takes how much, in one line."""
        held, processes = self.held(self.train, chunks, window), self.n_ranks * max(1, self.n_workers)
        return (
            f"loading takes {self.total(chunks, window) / 1e9:.2f} GB in all: {self.n_ranks * self.resident / 1e9:.2f} "
            f"before the first batch, {processes} × {held} decoded chunks of {max(self.train) / 1e6:,.1f} MB, "
            f"{processes} × {self.streams * self.batches / 1e6:,.1f} MB of batches on their way, and what is smaller"
        )


def need_of(
    spec: StreamSpec,
    val: Sequence[RowGroup],
    *,
    n_workers: int = 0,
    start_method: StartMethod | None = None,
    n_ranks: int = 1,
) -> MemoryNeed:
    """What loading takes, for any number of chunks.

    Parameters
    ----------
    spec
        Of training.
    val
        Validation cells.
    n_workers, start_method
        Worker processes of each loader, and how they are started.
    n_ranks
        Ranks on this machine.
    """
    resident, index = resident_bytes(), spec.form.index
    return MemoryNeed(
        resident=resident,
        worker=worker_bytes(resident, start_method),
        batches=batches_in_memory(spec, n_workers),
        train=group_sizes(index, spec.row_groups),
        val=group_sizes(index, val),
        n_workers=n_workers,
        n_ranks=n_ranks,
        cache_bytes=spec.cache_bytes,
    )


def worker_bytes(resident: int, start_method: StartMethod | None) -> int:
    """Bytes of a worker process before it decodes: a forked one shares what its parent has, others load it again."""
    return FORKED_BYTES if start_method in (None, "fork") and sys.platform == "linux" else resident


def resident_bytes() -> int:
    """Resident memory of this process; its peak so far where the system does not tell more."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
