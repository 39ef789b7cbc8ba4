"""Signals that ask a program to end in, an exception where it can be obeyed, and an exit status, out."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopRequest", "Stopped", "exit_code_of", "going_on", "interruptible", "stoppable"]


class Stopped(SystemExit):
    """A signal has asked the program to end; its exit status is 128 and the signal's number.

    Parameters
    ----------
    signum
        The signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signal.Signals(signum)
        self.remedy = ""
        """How to go on, where it is known."""


class StopRequest:
    """What signals have asked for.

    While it is ``awaited`` somebody looks at ``signum`` again and again, and
    ends the program at the next good moment; else :class:`Stopped` is raised
    where the program is. A second signal is not kept waiting.
    """

    def __init__(self, signums: Iterable[int] = ()) -> None:
        self.signums = tuple(signums)
        self.signum = 0
        self.awaited = False

    def __call__(self, signum: int, frame: FrameType | None = None) -> None:
        """Take a signal; the handler."""
        first, self.signum = not self.signum, signum
        if not (first and self.awaited):
            # Another signal must not interrupt the clean-up that this one starts.
            for other in self.signums:
                signal.signal(other, signal.SIG_IGN)
            raise Stopped(signum)


@contextmanager
def stoppable(*signums: signal.Signals) -> Iterator[StopRequest]:
    """Let signals end what runs meanwhile, so that ``finally`` blocks run and logs are closed.

    Batch systems send SIGTERM before they kill. Outside the main thread,
    where Python allows no handlers, nothing changes.
    """
    request = StopRequest(signums)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {signum: signal.signal(signum, request) for signum in signums}
    try:
        yield request
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the program with a word, what else is known, and the status that shells give to SIGINT."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        print("; ".join(["interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


@contextmanager
def going_on() -> Iterator[None]:
    """Let who interrupts know that what the program has done is kept."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on with what is done") from None


def exit_code_of(error: BaseException | None) -> int:
    """Exit status of a process that ends with ``error``; 0 for none."""
    if error is None:
        return 0
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
