"""Decoded rows in, a window of them out, in which each row has a number of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.loading.select.rows import RowGroup, by_group
from scvae_data.loading.select.values import RowFacts
from scvae_data.store.csr import CompactCsr

__all__ = ["DecodedRowGroup", "Window"]


@dataclass(frozen=True, eq=False)
class DecodedRowGroup:
    """The rows of a row group in memory, in parts that were decoded independently."""

    parts: tuple[CompactCsr, ...]
    facts: RowFacts | None = None
    """What is known of its rows beside their counts, if that was asked for."""
    missing: NDArray[np.bool_] | None = None
    """Rows that could not be read, (n_obs,), and hold anything; None where all could."""
    failed: bool = field(default=False, init=False)

    @property
    def is_whole(self) -> bool:
        """Whether all of its rows could be read."""
        return self.missing is None or not self.missing.any()

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        counts = sum(part.indptr.nbytes + part.indices.nbytes + part.data.nbytes for part in self.parts)
        return counts if self.facts is None else counts + self.facts.nbytes


class Window:
    """Row groups whose rows are mixed; a *slot* is a row's number counting through them in order."""

    def __init__(self, row_groups: Sequence[tuple[RowGroup, DecodedRowGroup | None]]) -> None:
        self._row_groups = [rows for rows, _ in row_groups]
        self._decoded = [group for _, group in row_groups]
        self._first_slots = np.cumsum([0, *(rows.n_rows for rows in self._row_groups)])
        self._whole = all(group is not None and group.is_whole for group in self._decoded)
        self.parts: list[tuple[int, CompactCsr]] = []
        for low, group in zip(self._first_slots.tolist(), self._decoded, strict=False):
            for part in () if group is None else group.parts:
                self.parts.append((low, part))
                low += part.n_obs

    def present(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of ``slots`` whose row group, and row in it, could be read.

        Raises
        ------
        ConfigError
            If there is no such row: only a sampler of the user's own asks for one.
        """
        n_rows = int(self._first_slots[-1])
        if slots.size and not (slots.min() >= 0 and slots.max() < n_rows):
            raise ConfigError(f"the sampler asks for rows {slots.min()} to {slots.max()} of a window of {n_rows}")
        if self._whole:
            return slots
        kept = np.ones(slots.size, np.bool_)
        for position, mine in by_group(self._first_slots, slots):
            group = self._decoded[position]
            if group is None:
                kept[mine] = False
            elif group.missing is not None:
                kept[mine] = ~group.missing[slots[mine] - self._first_slots[position]]
        return slots.compress(kept)

    def global_rows(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Global rows of ``slots``, same shape."""
        if len(self._row_groups) == 1:
            return self._row_groups[0].global_rows(slots)
        rows = np.empty(slots.shape, np.int64)
        for position, mine in by_group(self._first_slots, slots):
            rows[mine] = self._row_groups[position].global_rows(slots[mine] - self._first_slots[position])
        return rows

    def facts(self, slots: NDArray[np.int64]) -> RowFacts:
        """Facts of ``slots``, all of which are present, in their order."""
        parts, places = [], []
        for position, mine in by_group(self._first_slots, slots):
            group = self._decoded[position]
            assert group is not None and group.facts is not None
            parts.append(group.facts.take(slots[mine] - self._first_slots[position]))
            places.append(mine)
        joined = RowFacts.joined(parts)
        return joined if len(parts) == 1 else joined.take(np.argsort(np.concatenate(places)))
