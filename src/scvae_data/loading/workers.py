"""What to serve in, batches out that worker processes make: the receiver's side, and what runs in each worker.

Every worker reads windows of its own; see :mod:`scvae_data.loading.plan.share`.
Batches come through a ring of shared memory; see :mod:`scvae_data.loading.ring`.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset

from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.loading.batch.assemble import LEAST_CELLS, Batch, Made, converted, joined
from scvae_data.loading.batch.sparse import SparseRows
from scvae_data.loading.fetch.pool import BufferPool
from scvae_data.loading.fetch.window import Window
from scvae_data.loading.plan.sampler import BatchPlan
from scvae_data.loading.plan.share import WorkerShare, worker_of_window
from scvae_data.loading.ring import Parcel, Ring, SlotPlace, Slots, no_room
from scvae_data.loading.settings import StartMethod
from scvae_data.loading.shared import Enclosed, SharedMemory
from scvae_data.loading.stream import BatchStream, StreamCounters, StreamSpec, tasks_in_memory

__all__ = ["Workers"]

# Beside the values, each row has a few facts and some room at array borders.
ROW_BYTES = 256
# Sparse batches differ in size: room for so many times the average, and for so much more.
ROOM_FACTOR, ROOM_BYTES = 4, 1 << 24


class Call(NamedTuple):
    """What workers are asked for: the batches of ``epoch`` from ``start`` on; ``number`` changes when it is over."""

    number: int
    epoch: int
    start: int


class Message(NamedTuple):
    """What a worker sends."""

    counters: StreamCounters
    content: Parcel | ScvaeDataError
    """Several batches, or parts of batches; or what was raised on purpose, which torch would wrap in a traceback."""


class CallBoard:
    """The present call, where all workers see it.

    Raises
    ------
    ScvaeDataError
        There is no memory to share.
    """

    def __init__(self) -> None:
        try:
            self._memory = SharedMemory(np.dtype(np.int64).itemsize * len(Call._fields))
            self._memory.reserve(0, self._memory.n_bytes)
        except OSError as error:
            raise no_room(error) from None

    def read(self) -> Call:
        """The present call."""
        return Call(*self._numbers().tolist())

    def write(self, epoch: int = 0, start: int = 0) -> None:
        """End the call before, and begin one."""
        self._numbers()[:] = Call(self.read().number + 1, epoch, start)

    def _numbers(self) -> NDArray[np.int64]:
        return self._memory.array(0, self._memory.n_bytes).view(np.int64)


class WorkerStream(IterableDataset[Message]):
    """What one worker process runs; each iteration answers one call.

    Parameters
    ----------
    spec
        Gives the worker's share of what is to be served.
    worker, n_workers
        Which of how many.
    place
        The worker's slots.
    board
        Says what is asked for.
    """

    def __init__(
        self, spec: Callable[[], StreamSpec], worker: int, n_workers: int, place: SlotPlace, board: CallBoard
    ) -> None:
        self._spec = spec
        self._worker, self._n_workers = worker, n_workers
        self._place = place
        self._board = board
        self._running: tuple[BatchStream, Slots] | None = None

    def __iter__(self) -> Iterator[Message]:
        if self._running is None:
            self._running = BatchStream(self._spec()), Slots(self._place)
        stream, slots = self._running

        def make(plans: Sequence[BatchPlan], windows: Mapping[int, Callable[[], Window]]) -> Parcel:
            slot = slots.claim()
            return slot.enclose(stream.assembler.make(plans, windows, slot.take, least=1))

        call = self._board.read()
        try:
            share = WorkerShare(stream.spec.sampler.epoch(call.epoch), self._worker, self._n_workers)
            with closing(stream.made(share, call.epoch, make, call.start)) as parcels:
                for parcel in parcels:
                    if self._board.read() != call:
                        break
                    slots.sent(parcel.slot)
                    yield Message(stream.counters(), parcel)
        except ScvaeDataError as error:
            yield Message(stream.counters(), error)
        finally:
            slots.give_up_all()


class Workers:
    """Worker processes that make the batches of one loader.

    Parameters
    ----------
    spec
        What to serve.
    n_workers
        Their number.
    start_method
        How they are started; None for torch's default.

    Raises
    ------
    ScvaeDataError
        There is no memory to share.
    """

    def __init__(self, spec: StreamSpec, n_workers: int, start_method: StartMethod | None) -> None:
        self.spec = spec
        self.n_workers = n_workers
        self.left_out = 0
        """Cells of batches that were left out whole because damage left few."""
        self._pool = BufferPool()
        self._counters = [StreamCounters()] * n_workers
        self._board = CallBoard()
        self._ring = Ring(n_workers, tasks_in_memory(spec, n_workers), slot_bytes(spec))
        forked = multiprocessing.get_context(start_method).get_start_method() == "fork"
        share = spec.for_worker(n_workers)
        try:
            source = (lambda: share) if forked else Enclosed(share).open
        except OSError as error:
            raise no_room(error) from None
        # One torch loader for each: they are not asked in turn, but as their windows come.
        self._loaders = [
            DataLoader(
                WorkerStream(source, worker, n_workers, place, self._board),
                batch_size=None,
                collate_fn=unchanged,
                num_workers=1,
                prefetch_factor=1,
                persistent_workers=True,
                multiprocessing_context=start_method,
                # A generator of its own: torch would otherwise draw from the global one, and change what follows.
                generator=torch.Generator(),
            )
            for worker, place in enumerate(self._ring.places)
        ]
        self._answers: list[Iterator[Message]] = []

    def batches(self, epoch: int, start: int) -> Generator[Batch | None]:
        """Batches of ``epoch`` from ``start`` on, in order; None for one whose cells are all left out."""
        try:
            self._begin(epoch, start)
            if self.spec.form.pin_memory:
                yield from one_ahead(self._batches(epoch, start), pinned)
            else:
                yield from self._batches(epoch, start)
        except (RuntimeError, OSError, EOFError) as error:
            raise worker_fault(error) from error
        finally:
            self._board.write()

    def counters(self) -> StreamCounters:
        """What all workers did until they sent what was received last."""
        return sum(self._counters, StreamCounters(skipped_cells=self.left_out))

    def close(self) -> None:
        """End the processes, and free what nobody refers to."""
        for loader in self._loaders:
            # Left to the garbage collector, ending a worker can wait for a timeout.
            iterator: Any = loader._iterator
            if iterator is not None:
                # A worker whose interpreter ends while it hands over a batch may abort; nobody waits for that batch.
                with suppress(RuntimeError):
                    iterator._shutdown_workers()
        self._answers.clear()
        self._ring.close()

    def _begin(self, epoch: int, start: int) -> None:
        # What an iteration that was left has not received; workers have ended it by now, or will with their next batch.
        for worker, answers in enumerate(self._answers):
            for message in answers:
                if isinstance(message.content, Parcel):
                    self._ring.drop(worker, message.content)
        self._board.write(epoch, start)
        self._answers = [iter(loader) for loader in self._loaders]

    def _batches(self, epoch: int, start: int) -> Generator[Batch | None]:
        plan = self.spec.sampler.epoch(epoch)
        owner = worker_of_window(plan, self.n_workers)
        arrived: list[deque[Batch | None]] = [deque() for _ in self._loaders]
        for batch in plan.batches(start):
            parts = []
            for segment in batch.segments:
                worker = owner[segment.window]
                if not arrived[worker]:
                    arrived[worker].extend(self._receive(worker))
                parts.append(arrived[worker].popleft())
            yield self._whole(batch, [part for part in parts if part is not None])

    def _receive(self, worker: int) -> list[Batch | None]:
        try:
            message = next(self._answers[worker])
        except StopIteration:
            raise ConfigError(
                "the sampler has fewer batches in a worker process than here; it must give the same ones everywhere"
            ) from None
        self._counters[worker] = message.counters
        if isinstance(message.content, ScvaeDataError):
            raise message.content
        made: Made = self._ring.open(worker, message.content)
        return made.batches()

    def _whole(self, plan: BatchPlan, parts: Sequence[Batch]) -> Batch | None:
        """A batch of what workers have made of it."""
        n_planned = sum(segment.slots.size for segment in plan.segments)
        n_cells = sum(len(part["index"]) for part in parts)
        if n_cells < min(n_planned, LEAST_CELLS):
            self.left_out += n_cells
            return None
        return joined(parts, self._pool.take) if parts else None


def unchanged(item: Any) -> Any:
    """Collate function for what needs no collating."""
    return item


def slot_bytes(spec: StreamSpec) -> int:
    """Room for what a worker makes at a time; sparse batches may exceed it, and then are slower."""
    n_rows, form = spec.sampler.batch_size * spec.together, spec.form
    values = form.n_bytes(n_rows)
    if form.x_format != "dense":
        values = ROOM_FACTOR * values + ROOM_BYTES
    return values + n_rows * (ROW_BYTES + 8 * len(form.obs_keys)) + ROOM_BYTES // 256


def pinned(batch: Batch | None) -> Batch | None:
    """A copy in memory that a device can fetch from by itself."""

    def pin(value: Any) -> Any:
        if isinstance(value, SparseRows):
            return SparseRows(*(pin(part) for part in value))
        return value.pin_memory() if isinstance(value, torch.Tensor) else value

    return None if batch is None else converted(batch, pin)


def one_ahead(
    batches: Generator[Batch | None], make: Callable[[Batch | None], Batch | None]
) -> Generator[Batch | None]:
    """What ``make`` makes of each batch, in a thread while the consumer has the one before."""
    ready: deque[Future[Batch | None]] = deque()
    with closing(batches), ThreadPoolExecutor(1, thread_name_prefix="scvae-pin") as thread:
        for batch in batches:
            ready.append(thread.submit(make, batch))
            if len(ready) > 1:
                yield ready.popleft().result()
        while ready:
            yield ready.popleft().result()


def worker_fault(error: RuntimeError | OSError | EOFError) -> Exception:
    """What to raise in place of an error of torch or the system about worker processes."""
    # A worker that ends while it hands over a batch shows in the connection first.
    if isinstance(error, ConnectionError | FileNotFoundError | EOFError) or "DataLoader worker" in str(error):
        text = " ".join(str(error).split()) or type(error).__name__
        return ScvaeDataError(
            f"a worker process has ended: {text}; the system log says whether memory ran out, which memory_gb or fewer "
            "num_workers prevent"
        )
    return no_room(error) if isinstance(error, OSError) or "shared memory" in str(error) else error
