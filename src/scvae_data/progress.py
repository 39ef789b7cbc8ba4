"""Progress on long work: an iterable in, the same items out, a bar on stderr."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from scvae_data.wording import counted

__all__ = ["Watcher", "progress", "waiting", "watched"]

T = TypeVar("T")
log = logging.getLogger(__name__)

Watcher = Callable[[str, int, int | None], None]
"""Told the name of the work, the items done and their total after each of them."""

_watchers: list[Watcher] = []
TICK_SECONDS = 0.5


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Tell ``watcher`` about all progress made meanwhile."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def progress(items: Iterable[T], *, total: int | None, desc: str, unit: str = "file") -> Generator[T, None, None]:
    """Yield ``items`` while showing how far along they are.

    A bar is drawn where stderr is a terminal; elsewhere (log files, batch
    jobs) one line is logged at the end, so that logs stay readable.

    Parameters
    ----------
    items
        What to pass through.
    total
        How many there will be, if known.
    desc
        Name of the work, e.g. ``"scan"``.
    unit
        What one item is.
    """
    bar = items
    if on_terminal := sys.stderr.isatty():
        from tqdm import tqdm  # here: workers, and programs without a terminal, need none

        bar = tqdm(items, total=total, desc=f"{desc:<7}", unit=unit, dynamic_ncols=True)
    started = time.perf_counter()
    n_items = 0
    for item in bar:
        yield item
        n_items += 1
        for watcher in _watchers:
            watcher(desc, n_items, total)
    if not on_terminal:
        log.info("%s: %s in %.1f s", desc, counted(n_items, unit), time.perf_counter() - started)


@contextmanager
def waiting(doing: str) -> Iterator[None]:
    """Say what takes a while and cannot tell how far along it is: a line, on a terminal with a clock that runs.

    Parameters
    ----------
    doing
        E.g. ``"loading PyTorch"``.
    """
    log.info("%s", doing)
    if not sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    over = threading.Event()
    with tqdm(desc=doing, bar_format="{desc} {elapsed}", leave=False) as clock:

        def tick() -> None:
            while not over.wait(TICK_SECONDS):
                clock.refresh()

        ticking = threading.Thread(target=tick, daemon=True)
        ticking.start()
        try:
            yield
        finally:
            over.set()
            ticking.join()
