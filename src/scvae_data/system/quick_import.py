"""Much that stays in, without the garbage collector walking over it as it comes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collector_paused"]

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
