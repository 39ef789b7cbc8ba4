"""One part of the cells in, an iterable of batches with a position out: threads or worker processes, one order.

:class:`BatchLoader` is what a training loop iterates.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scvae_data.errors import ConfigError, DamagedFileError, SelectionError
from scvae_data.loading.batch.assemble import Batch
from scvae_data.loading.plan.sampler import Resharing, Served
from scvae_data.loading.settings import StartMethod
from scvae_data.loading.stream import BatchStream, StreamCounters, StreamSpec
from scvae_data.loading.workers import Workers

if TYPE_CHECKING:
    from lightning import Trainer
from scvae_data.store.cell_index import CellIndex

__all__ = ["BatchLoader", "check_not_grown", "check_order", "shift_progress"]


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
        self._workers: Workers | None = None
        self._past = StreamCounters()
        self._batches = self._cells = 0

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
                    self._batches += 1
                    self._cells += len(batch["index"])
                    yield batch
                elif self.spec.sampler.world_size > 1:
                    raise DamagedFileError(
                        f"{self.spec.form.index.where}: damaged chunks leave a batch of this rank without cells, and "
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
        now = self._past
        for source in (self._stream, self._workers):
            now = now if source is None else now + source.counters()
        return replace(now, batches=self._batches, cells=self._cells)

    def close(self) -> None:
        """End worker processes and drop cached row groups; counters and position stay."""
        self._past = replace(self.counters(), cached_blocks=0, cached_bytes=0)
        workers, self._workers, self._stream = self._workers, None, None
        if workers is not None:
            workers.close()

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
        try:
            if self._workers is None:
                self._workers = Workers(self.spec, self.num_workers, self._start_method)
            yield from self._workers.batches(self.epoch, self.next_batch)
        except Exception:
            self.close()
            raise


def check_not_grown(index: CellIndex, content_hash: str) -> None:
    """Refuse a position in a directory that had fewer cells, and say how those are had."""
    if (number := index.grown_from(content_hash)) is not None:
        raise SelectionError(
            f"cannot resume: {index.where} has grown since; data.generations={number} has the cells of the saved run"
        )


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
