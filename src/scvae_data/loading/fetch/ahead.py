"""The plan of an epoch in, files of a remote directory on this machine's disk out, before they are needed.

The plan knows when each chunk is needed, in this epoch and in the next one:
so threads copy files in that order, as far ahead as there is free room and
a few windows ahead where there is none, and tell the disk cache when each will be needed again, by which it makes room.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from scvae_data.errors import ScvaeDataError
from scvae_data.loading.fetch.readers import chunks_of
from scvae_data.loading.plan.sampler import Epoch
from scvae_data.loading.select.rows import RowGroup
from scvae_data.remote.disk_cache import NO_OTHERS, Refused
from scvae_data.remote.location import Location
from scvae_data.store.cell_index import CellIndex
from scvae_data.store.remote_files import CachedFiles

__all__ = ["Ahead", "FilesAhead", "files_ahead"]

log = logging.getLogger(__name__)

N_THREADS = 4
"""Files that are copied at a time: a store serves one of them slower than a network carries."""
MAKING_ROOM = 4
"""Windows ahead for which others are given up. For those further ahead only free room is taken: they would take that
of what begins the next epoch, which is needed later than they are, but would have to be copied again."""
WINDOW_SECONDS = 3600.0
"""What the disk cache is told that a window takes: longer than any does, so that what is needed later never looks
overdue before it is needed."""
NEVER_WINDOWS = 80_000
"""For what no plan needs again: later than anything else."""


class Ahead(Protocol):
    """Is told where the consumer is."""

    def advance(self, window: int) -> None:
        """The consumer is at a window; those before are done with."""

    def close(self) -> None:
        """End what runs."""


class NothingAhead:
    """For files that lie on this machine."""

    def advance(self, window: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class FilesAhead:
    """Copies the files of an epoch ahead of the consumer.

    Parameters
    ----------
    index
        The directory, or several.
    needed
        Remote chunks of each window of the epoch, in order of their use.
    later
        The same of the next epoch.
    """

    def __init__(
        self, index: CellIndex, needed: Sequence[tuple[int, Sequence[int]]], later: Sequence[Sequence[int]]
    ) -> None:
        self._index = index
        self._windows = [window for window, _ in needed]
        self._chunks = [chunks for _, chunks in needed]
        # Where each chunk is needed, as a number of windows from the beginning of the epoch.
        self._places: dict[int, list[int]] = {}
        for place, chunks in enumerate([*self._chunks, *later]):
            for chunk_id in chunks:
                self._places.setdefault(chunk_id, []).append(place)
        self._order = [(place, chunk_id) for place, chunks in enumerate(self._chunks) for chunk_id in chunks]
        self._at = self._next = 0
        self._begun = time.time()
        self._told: dict[int, int] = {}
        self._closed = False
        self._moved = threading.Condition()
        self._copies = {chunk_id: self._copy_of(chunk_id) for chunk_id in self._places}
        # Threads that begin take the interpreter from whoever prepares the first batch: none do where all is there.
        is_whole = all(self._is_there(chunk_id) for chunk_id in {chunk_id for _, chunk_id in self._order})
        self._threads = [
            threading.Thread(target=self._run, name=f"scvae-copy-{number}", daemon=True)
            for number in range(0 if is_whole else N_THREADS)
        ]
        for chunk_id in self._places:
            self._expect(chunk_id)
        for thread in self._threads:
            thread.start()

    def advance(self, window: int) -> None:
        """Tell when what was used before ``window`` is used again, and go on with what comes."""
        place = bisect_right(self._windows, window) - 1
        if place <= self._at:
            return
        done = {chunk_id for chunks in self._chunks[self._at : place] for chunk_id in chunks}
        with self._moved:
            self._at = place
            self._moved.notify_all()
        for chunk_id in done:
            self._expect(chunk_id)

    def close(self) -> None:
        """Copy no more; what is under way ends first."""
        with self._moved:
            self._closed = True
            self._moved.notify_all()
        for thread in self._threads:
            thread.join()

    def _is_there(self, chunk_id: int) -> bool:
        files, path = self._files_of(chunk_id)
        return self._copies[chunk_id].exists() or not files.is_copied(path)

    def _copy_of(self, chunk_id: int) -> Path:
        files, path = self._files_of(chunk_id)
        return files.place(path)

    def _files_of(self, chunk_id: int) -> tuple[CachedFiles, Location]:
        path, files = self._index.place(chunk_id)
        assert isinstance(files, CachedFiles)
        return files, path

    def _expect(self, chunk_id: int) -> None:
        files, _ = self._files_of(chunk_id)
        self._told[chunk_id] = files.cache.expect(self._copies[chunk_id], self._due(chunk_id), self._told.get(chunk_id))

    def _due(self, chunk_id: int) -> float:
        """Seconds until a chunk is needed next, as the disk cache is told: by windows from the epoch's beginning."""
        later = next((place for place in self._places[chunk_id] if place >= self._at), NEVER_WINDOWS)
        return self._begun + later * WINDOW_SECONDS - time.time()

    def _run(self) -> None:
        try:
            while (found := self._take()) is not None:
                self._copy(*found)
        except ScvaeDataError as error:
            log.debug("copied no further ahead: %s", error)  # whoever needs the file raises what is wrong

    def _take(self) -> tuple[int, int] | None:
        """The next place and the chunk to copy for it; None when there is nothing more to do."""
        with self._moved:
            while not self._closed and self._next < len(self._order):
                place, chunk_id = self._order[self._next]
                self._next += 1
                if place >= self._at:
                    return place, chunk_id
        return None

    def _copy(self, place: int, chunk_id: int) -> None:
        files, path = self._files_of(chunk_id)
        if not files.is_copied(path):
            return
        while not self._closed:
            at = self._at
            try:
                files.copy(path, due=self._due(chunk_id) if place <= at + MAKING_ROOM else NO_OTHERS)
            except Refused:
                with self._moved:
                    self._moved.wait_for(lambda at=at: self._closed or self._at != at)  # type: ignore[misc]
            else:
                self._expect(chunk_id)
                return


def files_ahead(
    index: CellIndex, row_groups: Sequence[RowGroup], epoch: Epoch, following: Callable[[], Epoch]
) -> Ahead:
    """What copies the files of an epoch ahead of its use; of a directory on this machine there is nothing to copy."""
    if not any(isinstance(source, CachedFiles) for source in index.sources):
        return NothingAhead()

    def chunks(windows: Epoch, window: int) -> list[int]:
        found = [chunk_id for group in windows.windows[window] for chunk_id in chunks_of(row_groups[group])]
        return [chunk_id for chunk_id in found if isinstance(index.place(chunk_id)[1], CachedFiles)]

    needed = [(window, chunks(epoch, window)) for window in epoch.needed_windows()]
    after = following()
    return FilesAhead(index, needed, [chunks(after, window) for window in after.needed_windows()])
