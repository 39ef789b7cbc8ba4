"""Decoded rows in, a window of them out, in which each row has a number of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scvae_data.loading.select.rows import Rows
from scvae_data.store.csr import CompactCsr

__all__ = ["DecodedBlock", "Window"]


@dataclass(frozen=True, eq=False)
class DecodedBlock:
    """The rows of a block in memory, in parts that were decoded independently."""

    parts: tuple[CompactCsr, ...]
    missing: NDArray[np.bool_] | None = None
    """Rows that could not be read, (n_obs,), and hold anything; None where all could."""
    failed: bool = field(default=False, init=False)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(part.indptr.nbytes + part.indices.nbytes + part.data.nbytes for part in self.parts)


class Window:
    """Blocks whose rows are mixed; a *slot* is a row's number counting through them in order."""

    def __init__(self, blocks: Sequence[tuple[Rows, DecodedBlock | None]]) -> None:
        self._blocks = [rows for rows, _ in blocks]
        self._first_slots = np.cumsum([0, *(rows.n_rows for rows in self._blocks)])
        self.parts: list[tuple[int, CompactCsr]] = []
        self._missing = [None if block is None else block.missing for _, block in blocks]
        self._whole = all(block is not None and not _any(block.missing) for _, block in blocks)
        self._absent = np.array([block is None for _, block in blocks])
        for first, (_, block) in zip(self._first_slots.tolist(), blocks, strict=False):
            if block is None:
                continue
            low = first
            for part in block.parts:
                self.parts.append((low, part))
                low += part.n_obs

    def present(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of ``slots`` whose block, and row in it, could be read."""
        if self._whole:
            return slots
        block_of = np.searchsorted(self._first_slots, slots, side="right") - 1
        kept: NDArray[np.bool_] = ~self._absent[block_of]
        for position, missing in enumerate(self._missing):
            if missing is not None:
                mine = block_of == position
                kept[mine] &= ~missing[slots[mine] - self._first_slots[position]]
        return slots.compress(kept)

    def global_rows(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Global rows of ``slots``, same shape."""
        if len(self._blocks) == 1:
            return self._blocks[0].global_rows(slots)
        rows = np.empty(slots.shape, np.int64)
        block_of = np.searchsorted(self._first_slots, slots, side="right") - 1
        for position in np.unique(block_of).tolist():
            mine = block_of == position
            rows[mine] = self._blocks[position].global_rows(slots[mine] - self._first_slots[position])
        return rows


def _any(missing: NDArray[np.bool_] | None) -> bool:
    return missing is not None and bool(missing.any())
