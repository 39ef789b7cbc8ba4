"""One piece of work in, its outcome out: a result, or a failure to report.

A piece is a call of a module-level function with picklable arguments. What
it raises on purpose is an outcome like any other: one bad file must not end
a run. A fault of a disk or network that may pass is retried where it
happened, after a pause.
"""

from __future__ import annotations

import errno
import logging
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scvae_data.errors import RemoteError, ScvaeDataError
from scvae_data.processing.engine.workers import (
    allow_open_files,
    limit_heap,
    peak_rss_bytes,
    release_memory,
)

__all__ = ["MAX_KILLS", "Failure", "Outcome", "Task", "killed", "stop_without_room", "weighed", "with_retries"]

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
Outcome = Any


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
        allow_open_files()
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


def weighed(task: Task) -> tuple[Outcome, int]:
    """Run a task; return its outcome, and the peak memory so far of the process that ran it, in bytes."""
    return task(), peak_rss_bytes()


def killed(exit_code: int | None = None) -> Failure:
    """Return the outcome of a piece that killed every worker it was given; the last one's exit code tells by what."""
    told = f"killed its worker process {MAX_KILLS} times (out of memory?); leave it out or give more memory"
    if exit_code == -signal.SIGBUS:
        told = (
            f"killed its worker process {MAX_KILLS} times (SIGBUS: a file that it read was cut off meanwhile, or its "
            "disk fails); look at the disk"
        )
    return Failure("worker_killed", told)


def stop_without_room(outcome: Outcome) -> None:
    """Raise the error of a piece that found no room on the disk, or no store: no other piece will."""
    if isinstance(outcome, Failure) and outcome.reason in ("no_room", RemoteError.reason) and outcome.error is not None:
        raise outcome.error
