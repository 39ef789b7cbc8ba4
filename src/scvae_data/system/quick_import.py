"""Much that stays in, without the garbage collector walking over it as it comes or goes, nor what none of it needs."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["absent", "collector_paused", "quick_exit"]

MANY_OBJECTS = 50_000


@contextmanager
def collector_paused() -> Iterator[None]:
    """Import, or read, without collections of garbage, but for one at the end if much has come.

    torch and Lightning make half a million objects that stay, names of genes
    as many. The collector would look at all of them many times: a seventh of
    what libraries take, a third of what genes do.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if gc.get_count()[0] > MANY_OBJECTS:
                gc.collect()  # now, when who waits waits for imports anyway, not at the first batch
            gc.enable()


@contextmanager
def absent(package: str) -> Iterator[None]:
    """Let what is imported now find a package not installed, unless it is imported already."""
    modules: dict[str, Any] = sys.modules
    if package in modules:
        yield
        return
    modules[package] = None  # as Python's import system marks what is not to be found
    try:
        yield
    finally:
        del modules[package]


def quick_exit() -> None:
    """Let this program end without collections of garbage: what is left goes with the process.

    Python would look three times at all that was imported, a tenth of a second.
    """
    atexit.register(gc.freeze)
