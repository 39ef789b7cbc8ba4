"""The work on dask: a cluster of processes here, or any scheduler on the network.

Dask runs a task of a lost worker again by itself, but after a few losses
blames whatever happened to be on that worker. So a task that dask gives up
on is only a suspect: suspects run again one by one, when nothing else does,
and only one that kills its worker then has failed.
"""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.processing.engine.base import check_retries, check_workers
from scvae_data.processing.engine.task import MAX_KILLS, Failure, Outcome, Task, killed, weighed, with_retries
from scvae_data.processing.engine.workers import preload, worker_context
from scvae_data.wording import counted

__all__ = ["DaskEngine"]

log = logging.getLogger(__name__)

CONNECT_SECONDS = 30
QUIET = {"distributed.worker.profile.enabled": False}
"""Dask samples the stacks of its workers for a page that nobody sees."""


class DaskEngine:
    """A dask cluster.

    Every worker must see inputs and output under the same paths, and have
    this package installed.

    Parameters
    ----------
    n_workers
        Processes of a cluster on this machine, None for one per available
        core; with ``scheduler``, how many tasks are kept under way at least.
    scheduler
        Address of a running scheduler, e.g. ``"tcp://10.0.0.5:8786"``; None
        starts a cluster on this machine.
    retries
        How often a fault of disk or network is tried again.
    """

    def __init__(self, n_workers: int | None = None, scheduler: str | None = None, retries: int = 1) -> None:
        self.n_workers = check_workers(n_workers)
        self.scheduler = scheduler
        self.retries = check_retries(retries)
        self.peak_rss = 0
        self._mark: Path | None = None
        self._client: Any = None
        self._open = ExitStack()

    @property
    def where(self) -> str:
        """What the work is done on, in words."""
        return self.scheduler or "the local dask cluster"

    def warm_up(self) -> None:
        """Begin to import what the workers of a cluster on this machine need."""
        if self.scheduler is None:
            preload("distributed.nanny")

    def must_see(self, folder: Path) -> None:
        """Leave a mark in a folder, without which workers do nothing."""
        self._mark = folder / f"seen-{secrets.token_hex(4)}"
        self._mark.touch()

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcome of every task as it finishes; tasks of lost workers are run again."""
        tasks = with_retries(tasks, self.retries)
        suspects: list[int] = []
        yield from self._run_together(tasks, suspects)
        if suspects:
            log.warning("a worker process was killed; %s of work run again", counted(len(suspects), "piece"))
        for position in sorted(suspects):
            yield position, self._run_alone(tasks[position])

    def close(self) -> None:
        """Let go of the cluster; one that was started here ends."""
        self._client = None
        self._open.close()

    def _run_together(self, tasks: Sequence[Task], suspects: list[int]) -> Iterator[tuple[int, Outcome]]:
        """Run all tasks, a few per worker at a time; ``suspects`` gets those that dask gave up on."""
        if not tasks:
            return
        client = self._connect()
        from distributed import as_completed
        from distributed.scheduler import KilledWorker

        queue = iter(range(len(tasks)))
        positions: dict[str, int] = {}
        finished = as_completed(loop=client.loop)
        try:
            while True:
                while len(positions) < self._width() and (position := next(queue, None)) is not None:
                    future = self._submit(tasks[position])
                    positions[future.key] = position
                    finished.add(future)
                if not positions:
                    return
                future = next(finished)
                position = positions.pop(future.key)
                try:
                    outcome = self._result(future)
                except KilledWorker:
                    suspects.append(position)
                    continue
                yield position, outcome
        finally:
            client.cancel([*finished.futures])

    def _run_alone(self, task: Task) -> Outcome:
        """Run one task when nothing else is under way, so that only it can be blamed for a lost worker."""
        from distributed.scheduler import KilledWorker

        for _ in range(MAX_KILLS):
            try:
                return self._result(self._submit(task))
            except KilledWorker:
                continue
        return killed()

    def _submit(self, task: Task) -> Any:
        """Send a task off."""
        return self._connect().submit(done_where_seen, task, self._mark, pure=False)

    def _result(self, future: Any) -> Outcome:
        """Return a task's outcome; raises `KilledWorker` where dask gave up on it."""
        from distributed import CancelledError
        from distributed.scheduler import KilledWorker

        try:
            outcome, peak = future.result()
        except (KilledWorker, ConfigError):
            raise
        except (CancelledError, OSError) as error:
            raise ScvaeDataError(
                f"lost the connection to {self.where}; nothing is lost, resume=true continues"
            ) from error
        except Exception as error:  # noqa: BLE001 - dask passes on whatever kept the task from running
            return Failure("unexpected", f"{type(error).__name__}: {error}", repr(error))
        self.peak_rss = max(self.peak_rss, peak)
        return outcome

    def _width(self) -> int:
        """Return how many tasks to keep under way: enough that no worker waits for the next."""
        return 2 * max(self.n_workers, sum(self._client.nthreads().values()) if self.scheduler else 0)

    def _connect(self) -> Any:
        """Return the client, connected or with a new cluster the first time."""
        if self._client is None:
            try:
                import_module("distributed")
            except ImportError as error:
                raise ConfigError("engine=dask needs dask and distributed: pip install 'scvae-data[dask]'") from error
            # Dask, which sets this level when it is imported, tells of every connection; what is worth it is told here.
            logging.getLogger("distributed").setLevel(logging.CRITICAL)
            with ExitStack() as opened:
                self._client = self._join(opened)
                self._open = opened.pop_all()
        return self._client

    def _join(self, opened: ExitStack) -> Any:
        """Return a client of the scheduler, or of a new cluster; what is to be closed is left with ``opened``."""
        from distributed import Client

        if self.scheduler is None:
            return opened.enter_context(Client(self._start(opened), set_as_default=False))
        try:
            client = Client(self.scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"engine.scheduler={self.scheduler} does not answer; start `dask scheduler`, check the address, "
                "or set engine.scheduler=null for a cluster on this machine"
            ) from error
        if not client.nthreads():
            log.warning("%s has no worker yet; waiting for one", self.scheduler)
        return opened.enter_context(client)

    def _start(self, opened: ExitStack) -> Any:
        """Return a new cluster on this machine."""
        import dask
        from distributed import LocalCluster

        method = {"distributed.worker.multiprocessing-method": worker_context().get_start_method()}
        # Dask must not try a killing task on one worker after the other: that is done here, one task at a time.
        opened.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": 0} | QUIET | method))
        cluster = LocalCluster(
            n_workers=self.n_workers, threads_per_worker=1, processes=True, memory_limit=0,
            scheduler_kwargs={"dashboard": False}, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL,
        )  # fmt: skip
        return opened.enter_context(cluster)


def done_where_seen(task: Task, mark: Path | None) -> tuple[Outcome, int]:
    """Run a task on a worker that sees the mark; return its outcome and the peak memory of the worker.

    Raises
    ------
    ConfigError
        The worker does not see it.
    """
    if mark is not None and not mark.exists():
        raise ConfigError(
            f"the dask worker on {socket.gethostname()} does not see {mark.parent}, where all workers leave their "
            "work; put it on a file system that all machines share, under one path"
        )
    return weighed(task)
