"""Independent pieces of work in, their outcomes out as they finish.

A killed worker breaks a plain process pool and loses every task in it, so
engines submit again what was lost, and run what was in flight one by one to
find the piece that kills.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children
from pathlib import Path
from typing import Any

from scvae_data.processing.engine.base import check_retries, check_workers
from scvae_data.processing.engine.task import MAX_KILLS, Outcome, Task, killed, weighed, with_retries
from scvae_data.processing.engine.workers import end_with_parent, preload, worker_context
from scvae_data.wording import counted

__all__ = ["LocalEngine"]

log = logging.getLogger(__name__)


class LocalEngine:
    """A pool of processes on this machine.

    Parameters
    ----------
    n_workers
        Number of processes; None takes one per available core.
    retries
        How often a fault of disk or network is tried again.
    """

    def __init__(self, n_workers: int | None = None, retries: int = 1) -> None:
        self.n_workers = check_workers(n_workers)
        self.retries = check_retries(retries)
        self.peak_rss = 0
        self._shared: ProcessPoolExecutor | None = None

    def warm_up(self) -> None:
        """Begin to import what workers need, while this process imports the same."""
        preload()

    def must_see(self, folder: Path) -> None:
        """Do nothing: workers are where the folder is."""

    def close(self) -> None:
        """End the worker processes; the next `run` starts new ones."""
        if self._shared is not None:
            self._shared.shutdown(cancel_futures=True)
            self._shared = None

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcome of every task as it finishes; tasks of a killed worker are run again."""
        tasks = with_retries(tasks, self.retries)
        waiting = list(range(len(tasks)))
        while waiting:
            lost: list[int] = []
            yield from self._run_pool(tasks, waiting, lost)
            if lost:
                log.warning("a worker process was killed; %s of work run again", counted(len(lost), "piece"))
            suspects, waiting = lost[: 2 * self.n_workers], lost[2 * self.n_workers :]
            for position in suspects:
                yield position, self._run_alone(tasks[position])

    def _pool(self, n_workers: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(n_workers, mp_context=worker_context(), initializer=end_with_parent)

    def _run_pool(self, tasks: Sequence[Task], positions: list[int], lost: list[int]) -> Iterator[tuple[int, Outcome]]:
        """Run tasks until all are done or a worker dies; then ``lost`` has the rest, those in flight first."""
        queue = iter(positions)
        running: dict[Future[Any], int] = {}
        done: set[Future[Any]] = set()
        position: int | None = None
        # One pool serves all stages: a new process may take a second to import what it needs.
        pool = self._shared = self._shared or self._pool(self.n_workers)
        try:
            while True:
                # Before outcomes are given to whoever may be busy with them while workers wait.
                while len(running) - len(done) < 2 * self.n_workers and (position := next(queue, None)) is not None:
                    running[pool.submit(weighed, tasks[position])] = position
                for future in done:
                    position = running[future]
                    outcome = self._weigh(future)
                    del running[future]
                    yield position, outcome
                if not running:
                    return
                done = wait(running, return_when=FIRST_COMPLETED).done
        except BrokenProcessPool:
            self.close()
            in_flight = {*running.values()} | ({position} if position is not None else set())
            lost.extend(sorted(in_flight))
            lost.extend(left for left in queue if left not in in_flight)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            self._shared = None
            raise

    def _weigh(self, future: Future[tuple[Outcome, int]]) -> Outcome:
        """Return a task's outcome, and note the memory of its worker."""
        outcome, peak = future.result()
        self.peak_rss = max(self.peak_rss, peak)
        return outcome

    def _run_alone(self, task: Task) -> Outcome:
        """Run one task in a process of its own, so that only it can be blamed for a killed worker."""
        for _ in range(MAX_KILLS):
            others = set(active_children())
            with self._pool(1) as pool:
                future = pool.submit(weighed, task)
                started = set(active_children()) - others
                try:
                    return self._weigh(future)
                except BrokenProcessPool:
                    continue
        return killed(next((worker.exitcode for worker in started), None))
