"""Requests for row groups in, decoded row groups out, each decoded once while it stays: a counted LRU.

Entries are asked for with :meth:`RowGroupCache.acquire` and given back with
:meth:`RowGroupCache.release`. Between the two they are pinned: counted, never
evicted. So the row groups of the windows in use may exceed the bounds for a while;
what stays after they are released does not.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from scvae_data.errors import ConfigError

__all__ = ["CacheCounters", "Loadable", "RowGroupCache"]


class Loadable(Protocol):
    """A row group that is decoded, being decoded, or failed to decode."""

    @property
    def nbytes(self) -> int:
        """Bytes in memory, as far as decoded."""

    @property
    def failed(self) -> bool:
        """True if decoding ended without a row group."""


Value = TypeVar("Value", bound=Loadable)


@dataclass(frozen=True)
class CacheCounters:
    """What a cache did so far."""

    hits: int
    misses: int
    evictions: int
    blocks: int
    """Row groups held now."""
    nbytes: int
    """Bytes held now."""

    @property
    def hit_rate(self) -> float:
        """Hits per request; 0 before the first request."""
        requests = self.hits + self.misses
        return self.hits / requests if requests else 0.0


@dataclass
class Entry(Generic[Value]):
    """A cached value and how many users hold it."""

    value: Value
    pins: int = 0
    nbytes: int = 0


class RowGroupCache(Generic[Value]):
    """Least recently used row groups, bounded in number and in bytes; safe for threads.

    Parameters
    ----------
    max_groups
        Row groups to keep.
    max_bytes
        Bytes to keep; None for no bound.
    """

    def __init__(self, max_groups: int, max_bytes: int | None = None) -> None:
        if max_groups < 1:
            raise ConfigError(f"chunk_cache_size={max_groups} must be at least 1")
        if max_bytes is not None and max_bytes < 1:
            raise ConfigError(f"cache_bytes={max_bytes} must be at least 1, or null for no bound")
        self.max_groups = max_groups
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, Entry[Value]] = OrderedDict()
        self._lock = threading.Lock()
        self._hits = self._misses = self._evictions = self._nbytes = 0

    def acquire(self, key: Hashable, start: Callable[[], Value]) -> Value:
        """The value of ``key``, pinned; on a miss ``start()`` begins to decode it.

        ``start`` must return at once (it runs under the lock, so that nobody
        else starts the same row group): what it returns may still be decoding.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.value.failed:
                self._remove(key)
                entry = None
            if entry is None:
                self._misses += 1
                self._shrink(coming=1)  # before the row group begins, so that it can have the memory of one that goes
                entry = self._entries[key] = Entry(start())
            else:
                self._hits += 1
            entry.pins += 1
            self._entries.move_to_end(key)
            self._shrink()
            return entry.value

    def release(self, key: Hashable, value: Value) -> None:
        """Give back one pin of ``value``; the row group stays as long as the bounds allow."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry.value is not value:
                return  # failed and asked for anew
            entry.pins -= 1
            self._shrink()

    def counters(self) -> CacheCounters:
        """A consistent copy of the counters."""
        with self._lock:
            self._weigh()
            return CacheCounters(self._hits, self._misses, self._evictions, len(self._entries), self._nbytes)

    def _remove(self, key: Hashable) -> None:
        self._nbytes -= self._entries.pop(key).nbytes

    def _weigh(self) -> None:
        """Add the bytes of row groups decoded meanwhile; drop those that failed and nobody waits for."""
        for key, entry in [item for item in self._entries.items() if item[1].nbytes == 0]:
            if entry.value.failed and entry.pins == 0:
                self._remove(key)
            else:
                entry.nbytes = entry.value.nbytes
                self._nbytes += entry.nbytes

    def _shrink(self, coming: int = 0) -> None:
        self._weigh()
        # Pinned entries are the most recent requests, so skipping them keeps the order of an exact LRU.
        for key in [key for key, entry in self._entries.items() if entry.pins == 0]:
            n_groups = len(self._entries) + coming
            if n_groups <= self.max_groups and (self.max_bytes is None or self._nbytes <= self.max_bytes):
                return
            self._remove(key)
            self._evictions += 1
