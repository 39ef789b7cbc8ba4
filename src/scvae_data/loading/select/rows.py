"""Filters on cells in, per chunk the selected rows out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError

__all__ = ["ChunkRows", "RowGroup", "as_names", "select_codes", "to_row_groups", "to_spans"]


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


def to_spans(rows: NDArray[np.int32]) -> list[tuple[int, int]]:
    """Runs [start, stop) that make up ascending ``rows``, of which there is at least one."""
    breaks = np.flatnonzero(np.diff(rows) > 1) + 1
    starts = rows[np.concatenate([[0], breaks])]
    stops = rows[np.concatenate([breaks - 1, [rows.size - 1]])] + 1
    return list(zip(starts.tolist(), stops.tolist(), strict=True))


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


def select_codes(
    codes: NDArray[np.int32],
    n_categories: int,
    include: NDArray[np.int32] | None,
    exclude: NDArray[np.int32] | None,
) -> NDArray[np.bool_] | None:
    """Mask of cells by the category they belong to, shape (n_obs,); None where all cells are selected.

    Parameters
    ----------
    codes
        Category of every cell, shape (n_obs,); ``n_categories`` = none.
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
    return wanted[codes]


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
    for chunk_id, (first, end) in enumerate(zip(first_rows[:-1].tolist(), first_rows[1:].tolist(), strict=True)):
        if mask is None:
            if end > first:
                row_groups.append(ChunkRows(chunk_id, first, 0, end - first, None))
            continue
        rows = np.flatnonzero(mask[first:end])
        if rows.size:
            start, stop = int(rows[0]), int(rows[-1]) + 1
            gapless = stop - start == rows.size
            row_groups.append(ChunkRows(chunk_id, first, start, stop, None if gapless else rows.astype(np.int32)))
    return tuple(row_groups)
