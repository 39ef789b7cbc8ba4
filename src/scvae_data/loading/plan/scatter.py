"""Selected rows of every chunk in, row groups of short ranges from all over the directory out.

Where cells of one experiment lie together, the rows of a chunk are no sample of
the whole. Such rows are cut into ranges, and every V neighbouring ranges are
dealt to V row groups, one each in a random order. So each row group holds nearly
the same share of every stretch of the directory, is as large as a chunk, and is
decoded, cached and mixed like one.

A range begins and ends somewhere within a stored block, and decoding is by
whole stored blocks: ranges as long as r of them decode 1 + 1/r elements for
each one used, wherever their borders lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scvae_data.loading.select.rows import ChunkRows

__all__ = ["Extent", "ScatteredRows", "Selected", "blend", "scatter"]

# Separates this random stream from those of the plan, which has the same seed.
DEAL = 100


class Extent(NamedTuple):
    """Size of a row group, as far as the index tells."""

    n_obs: int
    nnz: int


@dataclass(frozen=True, eq=False)
class Selected:
    """Selected rows of a directory, chunk after chunk."""

    rows: NDArray[np.int32] | None
    """Row within its chunk, of every selected row; None where those of each chunk have no gaps."""
    begins: NDArray[np.int64]
    """First selected row within each chunk."""
    starts: NDArray[np.int64]
    """Where the rows of each row group begin, and their number; (n_groups + 1,)."""
    chunk_ids: NDArray[np.int32]
    first_rows: NDArray[np.int64]
    """Global row of the first cell of each row group's chunk."""

    @classmethod
    def of(cls, row_groups: Sequence[ChunkRows]) -> Selected:
        """Rows of row groups that lie in different chunks."""
        gapless = all(group.rows is None for group in row_groups)
        rows = [
            (group.global_rows(slice(None)) - group.first_row).astype(np.int32) for group in row_groups if not gapless
        ]
        return cls(
            None if gapless else np.concatenate(rows),
            np.array([group.start for group in row_groups], np.int64),
            np.cumsum([0, *(group.n_rows for group in row_groups)]),
            np.array([group.chunk_id for group in row_groups], np.int32),
            np.array([group.first_row for group in row_groups], np.int64),
        )


@dataclass(frozen=True, eq=False)
class ScatteredRows:
    """Ranges of rows of many chunks."""

    chunk_id: int
    """Number of the row group; by it the reader of its rows is found."""
    selected: Selected
    """The same object for all row groups."""
    piece: NDArray[np.int32]
    """Position of the chunk that each range is of, ascending."""
    low: NDArray[np.int64]
    """First of the selected rows of each range."""
    high: NDArray[np.int64]
    """One past the last."""

    @cached_property
    def borders(self) -> NDArray[np.int64]:
        """Number of the first row of each range, and the number of rows; (n_ranges + 1,)."""
        return np.concatenate([[0], np.cumsum(self.high - self.low)])

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.borders[-1])

    def locate(self, slots: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Position of the chunk, and row within it, of its rows number ``slots``."""
        of_range = np.searchsorted(self.borders, slots, side="right") - 1
        piece, places = self.piece[of_range], self.low[of_range] + slots - self.borders[of_range]
        selected = self.selected
        if selected.rows is not None:
            return piece, selected.rows[places]
        return piece, (selected.begins[piece] + places - selected.starts[piece]).astype(np.int32)

    def global_rows(self, slots: NDArray[np.int64] | slice) -> NDArray[np.int64]:
        """Global rows of its rows number ``slots``."""
        wanted = np.arange(self.n_rows)[slots] if isinstance(slots, slice) else slots
        piece, rows = self.locate(wanted)
        return self.selected.first_rows[piece] + rows

    def within_chunk(self) -> slice:
        """Its rows as an index into the rows of its reader."""
        return slice(0, self.n_rows)

    def pieces(self) -> Iterator[tuple[int, NDArray[np.int32] | slice]]:
        """Chunks of the directory with the rows of each that make up its rows, in order."""
        for chunk_id, rows, _ in self.runs(0, self.n_rows):
            yield chunk_id, rows

    def runs(self, low: int, high: int) -> Iterator[tuple[int, NDArray[np.int32], slice]]:
        """Its rows number ``low`` to ``high`` by chunk: the chunk, the rows there, and which of its own they are."""
        piece, rows = self.locate(np.arange(low, high))
        borders = [0, *(np.flatnonzero(np.diff(piece)) + 1).tolist(), rows.size]
        for begin, end in pairwise(borders if rows.size else ()):
            yield int(self.selected.chunk_ids[piece[begin]]), rows[begin:end], slice(low + begin, low + end)

    def spans(self, low: int, high: int) -> list[tuple[int, int]]:
        """Its rows number ``low`` to ``high``, as its reader numbers them."""
        return [(low, high)]


def scatter(selected: Selected, range_rows: int, seed: int) -> tuple[ScatteredRows, ...]:
    """Deal ranges of about ``range_rows`` rows to as many row groups as there are chunks; each row is in one."""
    n_groups, rows = selected.chunk_ids.size, np.diff(selected.starts)
    n_ranges = np.maximum(1, np.rint(rows / range_rows).astype(np.int64))
    piece = np.repeat(np.arange(n_groups, dtype=np.int32), n_ranges)
    within = np.arange(piece.size) - np.repeat(np.cumsum(n_ranges) - n_ranges, n_ranges)
    low, high = (selected.starts[piece] + rows[piece] * (within + end) // n_ranges[piece] for end in (0, 1))
    rounds = np.random.default_rng([seed, DEAL]).random((-(-piece.size // n_groups), n_groups))
    group_of = rounds.argsort(axis=1).ravel()[: piece.size]
    order = np.argsort(group_of, kind="stable")
    ends = np.searchsorted(group_of[order], np.arange(1, n_groups))
    return tuple(
        ScatteredRows(number, selected, piece[mine], low[mine], high[mine])
        for number, mine in enumerate(np.split(order, ends))
    )


def blend(selected: Selected, stretches: Sequence[range]) -> tuple[ScatteredRows, ...]:
    """Deal every stretch of chunks evenly to as many row groups as there are chunks; each row is in one.

    For stretches of which each is in random order by itself: a row group has
    the same share of each, in one range that is of one chunk or two.

    Parameters
    ----------
    stretches
        Positions among the selected chunks, which they cover in order.
    """
    n_groups = selected.chunk_ids.size
    cuts = [
        selected.starts[stretch.start]
        + (selected.starts[stretch.stop] - selected.starts[stretch.start]) * np.arange(n_groups + 1) // n_groups
        for stretch in stretches
    ]
    made: list[ScatteredRows] = []
    for number in range(n_groups):
        ranges = [_within_chunks(selected.starts, int(cut[number]), int(cut[number + 1])) for cut in cuts]
        borders = np.array([border for one in ranges for border in one], np.int64).reshape(-1, 2)
        if borders.size:
            piece = np.searchsorted(selected.starts, borders[:, 0], side="right") - 1
            made.append(ScatteredRows(len(made), selected, piece.astype(np.int32), borders[:, 0], borders[:, 1]))
    return tuple(made)


def _within_chunks(starts: NDArray[np.int64], low: int, high: int) -> list[tuple[int, int]]:
    """A range of selected rows as ranges that are of one chunk each; empty for an empty one."""
    inside = starts[np.searchsorted(starts, low, side="right") : np.searchsorted(starts, high)].tolist()
    return list(pairwise([low, *inside, high])) if low < high else []
