"""One part of the cells in, an iterable of batches with a position out: threads or worker processes, one order.

:class:`BatchLoader` is what a training loop iterates. With ``num_workers > 0``
it runs one stream per worker process, worker w serving batches w, w + k,
w + 2k, …, so that the order is the same for any number of workers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from scvae_data.errors import ConfigError, DamagedFileError, ScvaeDataError, SelectionError
from scvae_data.loading.batch.assemble import Batch
from scvae_data.loading.plan.sampler import Resharing, Served
from scvae_data.loading.settings import StartMethod
from scvae_data.loading.stream import BatchStream, StreamCounters, StreamSpec

if TYPE_CHECKING:
    from lightning import Trainer

__all__ = ["BatchLoader", "check_order", "shift_progress"]


class WorkerStream(IterableDataset[tuple[int, StreamCounters, Batch | ScvaeDataError | None]]):
    """The stream of one worker process: (worker, its counters, batch) for each of its batches.

    An error raised on purpose comes in place of a batch, because torch would wrap it in a traceback.

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

    def __iter__(self) -> Iterator[tuple[int, StreamCounters, Batch | ScvaeDataError | None]]:
        info = get_worker_info()
        worker, n_workers = (0, 1) if info is None else (info.id, info.num_workers)
        if self._stream is None or self._process != os.getpid():
            self._stream, self._process = BatchStream(self._spec), os.getpid()
        epoch, start = (int(value) for value in self._position)
        with closing(self._stream.batches(epoch, start + worker, n_workers)) as batches:
            try:
                for batch in batches:
                    share(batch)
                    yield worker, self._stream.counters(), batch
            except ScvaeDataError as error:
                yield worker, self._stream.counters(), error


def unchanged(item: Any) -> Any:
    """Collate function for batches that are batches already."""
    return item


def share(batch: Any) -> None:
    """Move the tensors of a worker's batch to shared memory.

    Torch would do so by itself, but in a thread whose errors end nothing: whoever waits for the batch waits for ever.

    Raises
    ------
    ScvaeDataError
        There is no room for them.
    """
    if isinstance(batch, torch.Tensor):
        try:
            batch.share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise no_room(error) from None
    elif isinstance(batch, dict | tuple):
        for item in batch.values() if isinstance(batch, dict) else batch:
            share(item)


def no_room(error: BaseException) -> ScvaeDataError:
    """Say what helps where worker processes find no memory to share."""
    return ScvaeDataError(
        f"worker processes cannot hand over batches: {' '.join(str(error).split())}; num_workers=0 does without them, "
        "fewer workers and smaller batches need less of /dev/shm, docker run --shm-size gives more"
    )


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


class BatchLoader:
    """Iterable of batches for one part of the cells; each iteration is one epoch.

    The order depends on the sampler alone. Position and counters are those of
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
        self._served: tuple[tuple[int, int], ...] = ()
        self._whole = spec.sampler  # of an epoch of which no other number of ranks has served a part
        self._resumed = False
        self._start_method = start_method
        self._stream: BatchStream | None = None
        self._workers: DataLoader[Any] | None = None
        self._position: torch.Tensor | None = None
        self._past = StreamCounters()
        self._worker_counters: dict[int, StreamCounters] = {}

    def __len__(self) -> int:
        """Batches per epoch and rank."""
        return self.spec.sampler.n_batches

    def __iter__(self) -> Iterator[Batch]:
        """The next epoch, or the rest of the one that was loaded; decided when the first batch is asked for."""
        self._begin()
        source = self._from_workers() if self.num_workers else self._from_threads()
        with closing(source):
            for number in range(self.next_batch, len(self)):
                started = time.perf_counter()
                try:
                    batch = next(source)
                except StopIteration:
                    raise ConfigError(
                        f"the sampler ends epoch {self.epoch} after {number} of its n_batches={len(self)} batches"
                    ) from None
                self.wait_seconds += time.perf_counter() - started
                self.next_batch = number + 1
                if batch is not None:
                    yield batch
                elif self.spec.sampler.world_size > 1:
                    raise DamagedFileError(
                        f"{self.spec.form.index.path}: damaged chunks leave a batch of this rank without cells, and "
                        "the ranks out of step; scvae-data verify names them, and the command that builds them again"
                    )

    def state_dict(self) -> dict[str, Any]:
        """Position after the last batch handed out, the same on all ranks: whole numbers.

        ``served`` holds pairs of them after a change of the number of ranks within the epoch; see :class:`Served`.
        """
        sampler = self.spec.sampler
        return {
            "epoch": self.epoch,
            "next_batch": self.next_batch,
            "n_rows": sampler.n_rows,
            "batch_size": sampler.batch_size,
            "world_size": sampler.world_size,
            "served": [list(pair) for pair in self._served],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a position: the next iteration yields exactly the batches that were left.

        If the number of ranks is another than that of the saved position, what
        all ranks had left of the epoch is shared anew: no cell is lost or repeated.

        Raises
        ------
        SelectionError
            If the position belongs to other cells or other batches, or what is left cannot be shared by all ranks.
        """
        sampler = self._whole
        for name, mine in (("n_rows", sampler.n_rows), ("batch_size", sampler.batch_size)):
            if state.get(name) != mine:
                raise SelectionError(
                    f"cannot resume: the saved position has {name}={state.get(name)}, this run has {mine}; "
                    "use the dataset, filters, split, sampling and batch_size of the saved run"
                )
        epoch, next_batch = state["epoch"], state["next_batch"]
        served = tuple((world_size, stopped) for world_size, stopped in state["served"])
        if state["world_size"] != sampler.world_size and next_batch > 0:
            served, next_batch = (*served, (state["world_size"], next_batch)), 0
        if served:
            if not isinstance(sampler, Resharing):
                raise SelectionError(
                    f"cannot resume: the saved run had {served[-1][0]} rank(s) and this one {sampler.world_size}, and "
                    "the sampler cannot share the rest of the epoch anew; resume with as many as before"
                )
            sampler, first_batch = sampler.after(Served(epoch, served))
            next_batch = next_batch or first_batch
        if sampler != self.spec.sampler:
            self.close()
            self.spec = replace(self.spec, sampler=sampler)
        self.epoch, self.next_batch, self._served = epoch, next_batch, served
        self._resumed = True

    def counters(self) -> StreamCounters:
        """What loading did so far, over all processes; cheap."""
        now = sum(self._worker_counters.values(), self._past)
        return now if self._stream is None else now + self._stream.counters()

    def close(self) -> None:
        """End worker processes and drop cached row groups; counters and position stay."""
        self._past = replace(self.counters(), cached_blocks=0, cached_bytes=0)
        self._worker_counters.clear()
        # Left to the garbage collector, ending the workers can wait for a timeout.
        iterator = getattr(self._workers, "_iterator", None)
        if iterator is not None:
            # A worker whose interpreter ends while it hands over a batch may abort; nobody waits for that batch.
            with suppress(RuntimeError):
                iterator._shutdown_workers()
        self._workers = None
        self._stream = None

    def _begin(self) -> None:
        finished = self.next_batch >= len(self)
        abandoned = self.next_batch > 0 and not self._resumed
        if finished or abandoned:
            self.epoch, self.next_batch, self._served = self.epoch + 1, 0, ()
        self._resumed = False

    def _from_threads(self) -> Generator[Batch | None]:
        if self._stream is None:
            self._stream = BatchStream(self.spec)
        return self._stream.batches(self.epoch, self.next_batch)

    def _from_workers(self) -> Generator[Batch | None]:
        if self._workers is None or self._position is None:
            self._position = torch.zeros(2, dtype=torch.int64)
            share(self._position)
            # A generator of its own: torch would otherwise draw from the global one, and change what follows.
            self._workers = DataLoader(
                WorkerStream(self.spec.for_worker(self.num_workers), self._position),
                batch_size=None,
                collate_fn=unchanged,
                num_workers=self.num_workers,
                persistent_workers=True,
                pin_memory=self.spec.form.pin_memory,
                multiprocessing_context=self._start_method,
                generator=torch.Generator(),
            )
        self._position.copy_(torch.tensor([self.epoch, self.next_batch]))
        try:
            for worker, counters, batch in self._workers:
                self._worker_counters[worker] = counters
                if isinstance(batch, ScvaeDataError):
                    raise batch
                yield batch
        except Exception as error:
            self.close()
            if isinstance(error, RuntimeError | OSError | EOFError):
                raise worker_fault(error) from error
            raise


def check_order(saved: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Refuse a position in another order of cells: ``mine`` are the facts that the order depends on."""
    for name, value in mine.items():
        if saved.get(name) != value:
            raise SelectionError(
                f"cannot resume: the saved run has {name}={saved.get(name)}, this one {value}; "
                "resume with the dataset and data settings of the saved run"
            )


def shift_progress(trainer: Trainer, n_batches: int) -> None:
    """Let the trainer count ``n_batches`` more of the epoch as done, so that it goes on to the end of the epoch."""
    progress = trainer.fit_loop.epoch_loop.batch_progress.current
    for name in ("ready", "started", "processed", "completed"):
        setattr(progress, name, getattr(progress, name) + n_batches)
