"""Filters on cells in, per chunk the selected rows out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError

__all__ = [
    "ChunkRows", "RowGroup", "as_names", "by_group", "chunk_rows", "sampled", "to_row_groups", "to_spans",
    "wanted_codes",
]  # fmt: skip


class RowGroup(Protocol):
    """Rows that are decoded and cached together."""

    @property
    def chunk_id(self) -> int:
        """What the reader of the rows is found by."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""

    def global_rows(self, slots: NDArray[np.int64] | slice) -> NDArray[np.int64]:
        """Global rows of its rows number ``slots``."""

    def within_chunk(self) -> NDArray[np.int32] | slice:
        """Its rows as an index into the rows of its reader."""

    def spans(self, low: int, high: int) -> list[tuple[int, int]]:
        """Runs [start, stop) of its reader's rows that make up its rows number ``low`` to ``high``."""

    def pieces(self) -> Iterator[tuple[int, NDArray[np.int32] | slice]]:
        """Chunks of the directory with the rows of each that make up its rows, in order."""


@dataclass(frozen=True, eq=False)
class ChunkRows:
    """Selected rows of one chunk."""

    chunk_id: int
    first_row: int
    """Global row of the chunk's first cell."""
    start: int
    """First selected row within the chunk."""
    stop: int
    """One past the last selected row within the chunk."""
    rows: NDArray[np.int32] | None
    """Selected rows within the chunk, ascending; None where all of start…stop are."""

    @property
    def n_rows(self) -> int:
        """Number of selected rows."""
        return self.stop - self.start if self.rows is None else self.rows.size

    def global_rows(self, slots: NDArray[np.int64] | slice) -> NDArray[np.int64]:
        """Global rows of its rows number ``slots``."""
        if self.rows is not None:
            return self.first_row + self.rows[slots].astype(np.int64)
        if isinstance(slots, slice):
            return self.first_row + np.arange(self.start, self.stop, dtype=np.int64)[slots]
        return self.first_row + self.start + slots

    def within_chunk(self) -> NDArray[np.int32] | slice:
        """Its rows as an index into the rows of the chunk."""
        return slice(self.start, self.stop) if self.rows is None else self.rows

    def spans(self, low: int, high: int) -> list[tuple[int, int]]:
        """Runs [start, stop) within the chunk that make up its rows number ``low`` to ``high``."""
        if self.rows is None:
            return [(self.start + low, self.start + high)]
        return to_spans(self.rows[low:high])

    def pieces(self) -> Iterator[tuple[int, NDArray[np.int32] | slice]]:
        """Its chunk with its rows."""
        yield self.chunk_id, self.within_chunk()

    def where(self, mask: NDArray[np.bool_]) -> ChunkRows | None:
        """Those of its rows for which a mask over its rows is true; None if there is none."""
        rows = np.arange(self.start, self.stop, dtype=np.int32) if self.rows is None else self.rows
        return chunk_rows(self.chunk_id, self.first_row, rows[mask])

    def between(self, low: int, high: int) -> ChunkRows | None:
        """Those of its rows that are rows ``low`` to ``high`` (excluded) of the chunk; None if there is none."""
        if self.rows is not None:
            inside = slice(*np.searchsorted(self.rows, [low, high]).tolist())
            return chunk_rows(self.chunk_id, self.first_row, self.rows[inside])
        low, high = max(low, self.start), min(high, self.stop)
        return ChunkRows(self.chunk_id, self.first_row, low, high, None) if low < high else None


def chunk_rows(chunk_id: int, first_row: int, rows: NDArray[Any]) -> ChunkRows | None:
    """The rows of a chunk with the given ascending numbers; None for no rows."""
    if not rows.size:
        return None
    start, stop = int(rows[0]), int(rows[-1]) + 1
    gapless = stop - start == rows.size
    return ChunkRows(chunk_id, first_row, start, stop, None if gapless else rows.astype(np.int32))


def sampled(groups: Sequence[ChunkRows], n: int, rng: np.random.Generator) -> tuple[ChunkRows, ...]:
    """A random choice of ``n`` rows of ``groups``, in their order; all if there are no more."""
    ends = np.cumsum([group.n_rows for group in groups])
    if not groups or n >= int(ends[-1]):
        return tuple(groups)
    chosen = np.sort(rng.choice(int(ends[-1]), n, replace=False, shuffle=False))
    parts = np.split(chosen, np.searchsorted(chosen, ends))[: len(groups)]
    picked = []
    for group, part, end in zip(groups, parts, ends.tolist(), strict=True):
        rows = group.global_rows(part - (end - group.n_rows)) - group.first_row
        if (found := chunk_rows(group.chunk_id, group.first_row, rows)) is not None:
            picked.append(found)
    return tuple(picked)


def to_spans(rows: NDArray[np.int32]) -> list[tuple[int, int]]:
    """Runs [start, stop) that make up ascending ``rows``, of which there is at least one."""
    breaks = np.flatnonzero(np.diff(rows) > 1) + 1
    starts = rows[np.concatenate([[0], breaks])]
    stops = rows[np.concatenate([breaks - 1, [rows.size - 1]])] + 1
    return list(zip(starts.tolist(), stops.tolist(), strict=True))


def by_group(first_slots: NDArray[np.int64], slots: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Position of each row group that slots are of, given the first slot of each, and where these slots stand."""
    group_of = np.searchsorted(first_slots, slots, side="right") - 1
    for position in np.unique(group_of).tolist():
        yield position, np.flatnonzero(group_of == position)


def as_names(key: str, value: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Names given as one string or a sequence of them; None stays None.

    A plain string is one name, not a sequence of letters.
    """
    if value is None:
        return None
    names = (value,) if isinstance(value, str) else tuple(value)
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"{key} holds {name!r}, which is not a name; give strings such as SRX9000001")
    if not names:
        raise ConfigError(f"{key}=[] names nothing; give at least one name, or null for no filter")
    return names


def wanted_codes(
    n_categories: int, include: NDArray[np.int32] | None, exclude: NDArray[np.int32] | None
) -> NDArray[np.bool_] | None:
    """Which codes are kept, shape (n_categories + 1,), the last for no category; None where all are.

    Parameters
    ----------
    n_categories
        Number of categories.
    include
        Codes to keep; None for all.
    exclude
        Codes to drop, also from what ``include`` keeps; None for none.
    """
    if include is None and exclude is None:
        return None
    wanted = np.full(n_categories + 1, include is None)
    if include is not None:
        wanted[include] = True
    if exclude is not None:
        wanted[exclude] = False
    return wanted


def to_row_groups(mask: NDArray[np.bool_] | None, first_rows: NDArray[np.int64]) -> tuple[ChunkRows, ...]:
    """One row group per chunk that has selected rows.

    Parameters
    ----------
    mask
        Selected cells, shape (n_obs,); None for all.
    first_rows
        Global row of every chunk's first cell, and n_obs; shape (n_chunks + 1,).
    """
    row_groups = []
    for chunk_id, (first, end) in enumerate(pairwise(first_rows.tolist())):
        if mask is not None:
            group = chunk_rows(chunk_id, first, np.flatnonzero(mask[first:end]))
        else:
            group = ChunkRows(chunk_id, first, 0, end - first, None) if end > first else None
        if group is not None:
            row_groups.append(group)
    return tuple(row_groups)
