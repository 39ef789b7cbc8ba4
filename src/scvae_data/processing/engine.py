"""Independent pieces of work in, their outcomes out as they finish.

A piece is a call of a module-level function with picklable arguments. What
it raises on purpose is an outcome like any other: one bad file must not end
a run. A killed worker breaks a plain process pool and loses every task in
it, so engines submit again what was lost, and run what was in flight one by
one to find the piece that kills. A fault of a disk or network that may pass
is retried where it happened, after a pause.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import connection
from multiprocessing.context import BaseContext
from typing import Any, Protocol

from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.processing.memory import limit_heap, peak_rss_bytes, release_memory

__all__ = [
    "MAX_KILLS",
    "Engine",
    "Failure",
    "LocalEngine",
    "Outcome",
    "SerialEngine",
    "Task",
    "check_retries",
    "check_workers",
    "killed",
    "stop_without_room",
    "weighed",
    "with_retries",
]

log = logging.getLogger(__name__)

MAX_KILLS = 2
# The pause before the first retry; it doubles with each.
BACK_OFF_SECONDS = 0.5
# A reader turns what the system says into an error about the file; these may pass all the same.
PASSING = frozenset(
    getattr(errno, name)
    for name in ("EIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "EBUSY", "ENETDOWN", "ENETUNREACH", "ECONNRESET", "EREMOTEIO")
)


# Of the disk that is written to, whatever input is being read: the run stops instead of leaving the input out.
NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS))


@dataclass(frozen=True)
class Task:
    """One call: a module-level function and its arguments.

    Parameters
    ----------
    retries
        How often a fault of the system is tried again; an engine sets it.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    retries: int = 0

    def __call__(self) -> Any:
        """Run the task; what it raises becomes a `Failure`, programming errors with their traceback."""
        limit_heap()
        try:
            for attempt in range(self.retries):
                outcome, may_pass = self._attempt()
                if not may_pass:
                    return outcome
                pause = BACK_OFF_SECONDS * 2**attempt
                log.warning("%s; trying again in %g s", outcome.message, pause)
                time.sleep(pause)
            return self._attempt()[0]
        finally:
            release_memory()

    def _attempt(self) -> tuple[Any, bool]:
        """Return the outcome of one call, and whether it is a fault that may pass."""
        try:
            return self.function(*self.arguments), False
        except ScvaeDataError as error:
            failure = Failure(getattr(error, "reason", "error"), str(error), "", error)
            return failure, caused_by_system(error)
        except OSError as error:
            if error.errno in NO_ROOM:
                text = f"{error.filename or 'a file'}: {error.strerror}; make room, then resume=true continues"
                return Failure("no_room", text, error=ScvaeDataError(text)), False
            return Failure("unreadable", f"{type(error).__name__}: {error}", traceback.format_exc()), True
        except MemoryError as error:
            return Failure("unreadable", f"{type(error).__name__}: {error}", traceback.format_exc()), False
        except Exception as error:  # noqa: BLE001 - an unknown fault of one piece is reported, not fatal to the rest
            return Failure("unexpected", f"{type(error).__name__}: {error}", traceback.format_exc()), False


def caused_by_system(error: BaseException) -> bool:
    """Whether a passing fault of disk or network is behind an error."""
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in PASSING:
            return True
        cause = cause.__cause__
    return False


def with_retries(tasks: Sequence[Task], retries: int) -> list[Task]:
    """Return the tasks with an engine's number of retries."""
    return [replace(task, retries=retries) for task in tasks]


def check_retries(retries: int) -> int:
    """Return a number of retries, or refuse it."""
    if retries < 0:
        raise ConfigError(f"engine.retries={retries} must be 0 or more")
    return retries


def check_workers(n_workers: int | None) -> int:
    """Return a number of workers, one per available core for None, or refuse it."""
    if n_workers is not None and n_workers < 1:
        raise ConfigError(f"engine.n_workers={n_workers} must be 1 or more, or null for one per core")
    return n_workers or len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Failure:
    """A piece of work that did not succeed.

    Parameters
    ----------
    reason
        Code for reports.
    message
        One line.
    details
        Traceback, for faults nobody foresaw.
    error
        The error raised on purpose, if it was one.
    """

    reason: str
    message: str
    details: str = ""
    error: ScvaeDataError | None = None


def killed() -> Failure:
    """Return the outcome of a piece that killed every worker it was given."""
    return Failure(
        "worker_killed",
        f"killed its worker process {MAX_KILLS} times (out of memory?); leave it out or give more memory",
    )


def stop_without_room(outcome: Outcome) -> None:
    """Raise the error of a piece that found no room on the disk: no other piece will."""
    if isinstance(outcome, Failure) and outcome.reason == "no_room" and outcome.error is not None:
        raise outcome.error


Outcome = Any


def weighed(task: Task) -> tuple[Outcome, int]:
    """Run a task; return its outcome, and the peak memory so far of the process that ran it, in bytes."""
    return task(), peak_rss_bytes()


class Engine(Protocol):
    """Runs tasks; the results do not depend on which engine does."""

    n_workers: int

    @property
    def peak_rss(self) -> int:
        """Peak memory of the largest worker process so far, in bytes; 0 without workers."""
        ...

    def warm_up(self) -> None:
        """Begin to make workers ready, and return at once."""
        ...

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        """Yield (position, result or `Failure`) of every task, in any order."""
        ...

    def close(self) -> None:
        """Let workers go; the next `run` starts new ones."""
        ...


@dataclass(frozen=True)
class SerialEngine:
    """One task after the other, in this process.

    Parameters
    ----------
    n_workers
        Always 1.
    retries
        How often a fault of disk or network is tried again.
    """

    n_workers: int = 1
    retries: int = 1

    def __post_init__(self) -> None:
        if self.n_workers != 1:
            raise ConfigError(f"engine.n_workers={self.n_workers}: engine=serial has one worker; use engine=local")
        check_retries(self.retries)

    @property
    def peak_rss(self) -> int:
        """Always 0: the work is done in this process."""
        return 0

    def warm_up(self) -> None:
        """Do nothing: there is no worker."""

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcome of every task in order."""
        for position, task in enumerate(with_retries(tasks, self.retries)):
            yield position, task()

    def close(self) -> None:
        """Do nothing: there is no worker."""


@lru_cache(maxsize=1)
def worker_context() -> BaseContext:
    """Return how worker processes start.

    Never as a fork of this process, which would copy the locks of HDF5 and of
    running threads. On Linux they are forks of a server that has one thread,
    has imported all they need, and shares that memory with them.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scvae_data.processing.pipeline"])
    return context


def end_with_parent() -> None:
    """Make this worker process end when the one that gives it work does, however that ends, and without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


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
        if worker_context().get_start_method() == "forkserver":
            from multiprocessing import forkserver

            forkserver.ensure_running()

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
                log.warning("a worker process was killed; %d pieces of work are run again", len(lost))
            suspects, waiting = lost[: 2 * self.n_workers], lost[2 * self.n_workers :]
            for position in suspects:
                yield position, self._run_alone(tasks[position])

    def _pool(self, n_workers: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(n_workers, mp_context=worker_context(), initializer=end_with_parent)

    def _run_pool(self, tasks: Sequence[Task], positions: list[int], lost: list[int]) -> Iterator[tuple[int, Outcome]]:
        """Run tasks until all are done or a worker dies; then ``lost`` has the rest, those in flight first."""
        queue = iter(positions)
        running: dict[Future[Any], int] = {}
        position: int | None = None
        # One pool serves all stages: a new process may take a second to import what it needs.
        pool = self._shared = self._shared or self._pool(self.n_workers)
        try:
            while True:
                while len(running) < 2 * self.n_workers and (position := next(queue, None)) is not None:
                    running[pool.submit(weighed, tasks[position])] = position
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    position = running[future]
                    outcome = self._weigh(future)
                    del running[future]
                    yield position, outcome
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
            with self._pool(1) as pool:
                try:
                    return self._weigh(pool.submit(weighed, task))
                except BrokenProcessPool:
                    continue
        return killed()
