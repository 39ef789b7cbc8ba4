"""A program whose reader has gone away in; its end without a traceback, as of any program in a shell, out."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["until_closed"]


@contextmanager
def until_closed() -> Iterator[None]:
    """End the program where nobody reads what it prints any more, with the status that a shell gives to SIGPIPE.

    A pipe that broke elsewhere is an error as before.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not is_closed():
            raise
        # What is still to be printed goes nowhere, or the interpreter would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def is_closed() -> bool:
    """Whether standard output is a pipe that nobody reads."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))
