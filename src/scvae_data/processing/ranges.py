"""The order keys of all cells that stay in, the range of keys of every chunk out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scvae_data.processing.spool import Run

__all__ = ["ChunkRange", "chunk_ranges"]


@dataclass(frozen=True)
class ChunkRange:
    """The cells of one chunk.

    Parameters
    ----------
    low, high
        Their order keys: from ``low`` to below ``high``, to the last for None.
    first_row
        Global row of the first.
    """

    low: int
    high: int | None
    first_row: int


def chunk_ranges(work: Path, runs: Sequence[str], chunk_size: int) -> list[ChunkRange]:
    """Cut the cells that stay into chunks of ``chunk_size``; cells of one key stay together."""
    parts = []
    for path in runs:
        with Run(work / path) as run:
            parts.append(run.array("order")[run.totals()[0] > 0])
    keys = np.concatenate(parts)
    keys.sort()
    lows = np.unique(keys[::chunk_size])
    first_rows = np.searchsorted(keys, lows)
    ends = [*lows[1:].tolist(), None]
    return [ChunkRange(*values) for values in zip(lows.tolist(), ends, first_rows.tolist(), strict=True)]
