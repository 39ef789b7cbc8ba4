"""Ends of a run: what SIGTERM, Ctrl-C and errors mean for its exit status."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

__all__ = ["exit_code_of", "sigterm_exits"]


@contextlib.contextmanager
def sigterm_exits() -> Iterator[None]:
    """Make SIGTERM raise ``SystemExit``, so that ``finally`` blocks run and logs are closed.

    Batch systems send SIGTERM before they kill. Outside the main thread,
    where Python allows no handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_code_of(error: BaseException | None) -> int:
    """Exit status of a process that ends with ``error``; 0 for none."""
    if error is None:
        return 0
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1


def _exit(signum: int, frame: FrameType | None) -> NoReturn:
    # A second signal must not interrupt the clean-up that the first one started.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + signum)
