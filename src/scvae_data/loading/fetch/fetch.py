"""Wanted windows in, decoded windows out: threads that read and decode ahead of their use.

Reading (``pread``), checksums and decompression release the interpreter lock,
so the threads run while the model trains. One row group is cut into parts that are
decoded side by side, straight into their place in the row group, whose memory comes
from a pool. Look-ahead is one window: memory holds the window in use and the
next, however small the cache.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from scvae_data.errors import DamagedFileError
from scvae_data.loading.fetch.cache import RowGroupCache
from scvae_data.loading.fetch.damage import DamagePolicy
from scvae_data.loading.fetch.pool import BufferPool
from scvae_data.loading.fetch.readers import Reader, ScatteredReader
from scvae_data.loading.fetch.window import DecodedRowGroup, Window
from scvae_data.loading.plan.reuse import ReuseModel
from scvae_data.loading.plan.sampler import Epoch
from scvae_data.loading.select.rows import RowGroup
from scvae_data.loading.select.values import FactsReader, RowFacts
from scvae_data.store.csr import CompactCsr

__all__ = ["PendingRowGroup", "RowGroupSource", "WindowFetcher", "part_borders", "run_now"]

# Parts are large enough that re-decoding the HDF5 chunk at their border costs little,
# and small enough that the threads finish a row group together.
PART_NNZ = 4_000_000
MIN_PART_NNZ = 500_000
Submit = Callable[..., "Future[None]"]


class RowGroupMemory:
    """Where a row group is decoded to: made by the thread that needs it first, in the size that indptr tells."""

    def __init__(
        self, reader: Reader, rows: RowGroup, pool: BufferPool, room: int, facts: FactsReader | None = None
    ) -> None:
        self._reader: Reader | None = reader
        self._facts = facts
        self.facts: RowFacts | None = None
        """Of its rows, once they are read."""
        self._rows = rows
        self._pool = pool
        self._room = room
        self._lock = threading.Lock()
        self._made: CompactCsr | None = None
        self.missing = reader.missing if isinstance(reader, ScatteredReader) else None
        """Rows that could not be read, once all parts are done."""

    def made(self) -> CompactCsr:
        """The row group, filled or not."""
        with self._lock:
            if self._made is None:
                reader = self._reader
                assert reader is not None
                starts = reader.indptr
                lengths = np.diff(starts)[self._rows.within_chunk()]
                indptr = np.zeros(lengths.size + 1, np.int64)
                lengths.cumsum(out=indptr[1:])
                nnz = int(indptr[-1])
                room = (max(nnz, self._room),)
                indices = self._pool.take(room, reader.index_dtype)[:nnz]
                data = self._pool.take(room, reader.count_dtype)[:nnz]
                self._made = CompactCsr(indptr, indices, data, reader.n_vars)
            return self._made

    def read(self, low: int, high: int) -> None:
        """Decode the row group's rows number ``low`` to ``high``."""
        group, reader = self.made(), self._reader
        assert reader is not None
        place = slice(int(group.indptr[low]), int(group.indptr[high]))
        reader.read_into(self._rows.spans(low, high), group.indices[place], group.data[place])

    def read_facts(self) -> None:
        """Read what is known of the rows beside their counts."""
        if self._facts is not None:
            self.facts = self._facts.of(self._rows)

    def finish(self) -> None:
        """Let the reader and its open file go: nothing is left to read."""
        self._reader = None


class PendingRowGroup:
    """A row group whose parts are decoded, being decoded, or failed."""

    def __init__(self, memory: RowGroupMemory, parts: Sequence[Future[None]]) -> None:
        self._memory: RowGroupMemory | None = memory
        self._parts = parts
        self._group: DecodedRowGroup | None = None

    @property
    def failed(self) -> bool:
        """True if a part was cancelled or raised."""
        return any(part.cancelled() or (part.done() and part.exception() is not None) for part in self._parts)

    @property
    def nbytes(self) -> int:
        """Bytes in memory, 0 until the row group is complete."""
        if self.failed or not all(part.done() for part in self._parts):
            return 0
        return self.result().nbytes

    def result(self) -> DecodedRowGroup:
        """Wait for the row group; raises what decoding it raised."""
        for part in self._parts:
            part.result()
        memory = self._memory
        if self._group is None and memory is not None:
            self._group = DecodedRowGroup((memory.made(),), memory.facts, memory.missing)
            self._memory = None
        assert self._group is not None
        return self._group


class RowGroupSource:
    """Starts to read row groups, and counts the bytes read from disk; safe for threads.

    A reader lives as long as its row group is being decoded, so that neither open
    files nor row tables add up over many chunks.

    Parameters
    ----------
    row_groups
        The row groups, known by their position.
    open_reader
        Makes a reader of a chunk, by chunk id.
    room
        Elements that memory for a row group has room for at least: if that is those
        of the largest, any row group can have the memory of any other.
    damage
        What is done with a row group that cannot be read.
    part_nnz
        Elements that one thread decodes at a time, about.
    facts
        Reads what batches carry beside counts; None for nothing.
    """

    def __init__(
        self,
        row_groups: Sequence[RowGroup],
        open_reader: Callable[[int], Reader],
        room: int = 0,
        damage: DamagePolicy | None = None,
        part_nnz: int = PART_NNZ,
        facts: FactsReader | None = None,
    ) -> None:
        self.row_groups = row_groups
        self.damage = DamagePolicy() if damage is None else damage
        self._room = room
        self._part_nnz = part_nnz
        self._facts = facts
        self._pool = BufferPool()
        self._open_reader = open_reader
        self._lock = threading.Lock()
        self._readers: dict[int, Reader] = {}
        self._bytes_done = 0
        self._loads = 0

    @property
    def bytes_read(self) -> int:
        """Bytes read from disk so far."""
        with self._lock:
            return self._bytes_done + sum(reader.bytes_read for reader in self._readers.values())

    def start(self, group: int, submit: Submit, n_threads: int) -> PendingRowGroup:
        """Hand the parts of row group number ``group`` to ``submit``, in order."""
        rows = self.row_groups[group]
        reader = self._open_reader(rows.chunk_id)
        with self._lock:
            self._loads += 1
            load = self._loads
            self._readers[load] = reader
        nnz_per_row = reader.entry.nnz / max(1, reader.entry.n_obs)
        borders = part_borders(rows.n_rows, nnz_per_row, n_threads, self._part_nnz)
        left = len(borders) - 1

        def finish(_: Future[None]) -> None:
            nonlocal left
            with self._lock:
                left -= 1
                if left == 0:
                    self._bytes_done += self._readers.pop(load).bytes_read
                    memory.finish()

        memory = RowGroupMemory(reader, rows, self._pool, self._room, self._facts)
        parts = [] if self._facts is None else [submit(memory.read_facts)]
        for low, high in pairwise(borders):
            part = submit(memory.read, low, high)
            part.add_done_callback(finish)
            parts.append(part)
        return PendingRowGroup(memory, parts)


def part_borders(n_rows: int, nnz_per_row: float, n_threads: int, part_nnz: int = PART_NNZ) -> list[int]:
    """Where to cut ``n_rows`` rows into parts of near-equal size."""
    nnz = n_rows * nnz_per_row
    n_parts = max(nnz / part_nnz, min(n_threads, nnz / MIN_PART_NNZ))
    n_parts = min(max(1, round(n_parts)), n_rows)
    return [n_rows * part // n_parts for part in range(n_parts + 1)]


def run_now(read: Callable[..., None], *args: Any) -> Future[None]:
    """Like ``Executor.submit``, in this thread."""
    future: Future[None] = Future()
    try:
        read(*args)
        future.set_result(None)
    except Exception as error:  # noqa: BLE001 - raised again by whoever asks for the result
        future.set_exception(error)
    return future


class WindowFetcher:
    """Serves the windows of one epoch in order, decoding one window ahead.

    Only the owner's thread may call :meth:`advance`; what :meth:`handle`
    returns may be resolved in any thread.

    Parameters
    ----------
    epoch
        The windows.
    source, cache
        Where row groups come from and where they stay.
    reuse
        Is told every request, to predict hits.
    n_threads
        Threads that read and decode.
    """

    def __init__(
        self,
        epoch: Epoch,
        source: RowGroupSource,
        cache: RowGroupCache[PendingRowGroup],
        reuse: ReuseModel,
        n_threads: int,
    ) -> None:
        self._windows = epoch.windows
        self._needed = epoch.needed_windows()
        self._source = source
        self._cache = cache
        self._reuse = reuse
        self._n_threads = n_threads
        self._held: dict[int, list[tuple[int, PendingRowGroup]]] = {}
        self._closed = False
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="scvae-decode")

    def advance(self, first: int, last: int) -> None:
        """Give back the windows before ``first``; begin to decode ``first`` to ``last``, or one more if that is one."""
        for window in [held for held in self._held if held < first]:
            self._release(window)
        begin = bisect_left(self._needed, first)
        for window in self._needed[begin : max(bisect_right(self._needed, last), begin + 2)]:
            if window not in self._held:
                self._held[window] = [(group, self._request(group)) for group in self._windows[window]]

    def handle(self, window: int) -> Callable[[], Window]:
        """A function that waits for ``window`` and returns it, or raises what decoding raised."""
        held = self._held[window]
        row_groups = self._source.row_groups

        def resolve() -> Window:
            return Window([(row_groups[group], self._result(group, pending)) for group, pending in held])

        return resolve

    def close(self) -> None:
        """Stop the threads and give everything back; parts not yet begun are dropped."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        for window in list(self._held):
            self._release(window)

    def _result(self, group: int, pending: PendingRowGroup) -> DecodedRowGroup | None:
        """The row group; None if it is damaged and to be left out."""
        try:
            try:
                return pending.result()
            except CancelledError:
                if self._closed:
                    raise
                # Another iterator over the same cache began this row group and was closed before it was done.
                return self._source.start(group, run_now, 1).result()
        except DamagedFileError as error:
            self._source.damage.leave_out(error)
            return None

    def _request(self, group: int) -> PendingRowGroup:
        self._reuse.request(group)
        return self._cache.acquire(group, lambda: self._source.start(group, self._submit, self._n_threads))

    def _submit(self, read: Callable[..., None], *args: Any) -> Future[None]:
        return self._pool.submit(read, *args)

    def _release(self, window: int) -> None:
        for group, pending in self._held.pop(window):
            self._cache.release(group, pending)
