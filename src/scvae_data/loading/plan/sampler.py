"""What an order of cells is to those who read by it: for each epoch, windows of row groups and batches of their rows.

:class:`~scvae_data.loading.plan.epoch.Plan` is the one that a data module uses
by itself; ``ChunkedDataModule(sampler=…)`` takes another for training. A
sampler says which cells come when and touches no counts: whatever it does,
cells are read a row group at a time, so batches of few row groups are cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.loading.select.rows import RowGroup
from scvae_data.store import CellIndex
from scvae_data.system.import_path import imported

__all__ = [
    "BatchPlan", "Epoch", "ListedEpoch", "MakeSampler", "Resharing", "Sampler", "Segment", "Served",
    "TrainingCells", "as_make_sampler", "make_sampler", "name_of",
]  # fmt: skip


@dataclass(frozen=True)
class Segment:
    """Rows of a batch that come from one window."""

    window: int
    """Number of the window in its epoch."""
    slots: NDArray[np.int64]
    """Rows within the window, counting through its row groups in order; a row may come again."""


@dataclass(frozen=True)
class BatchPlan:
    """What one batch is made of."""

    number: int
    """Position in this rank's epoch, from 0."""
    segments: tuple[Segment, ...]
    """One segment, or several where the batch straddles windows."""


class Epoch(Protocol):
    """One rank's share of one epoch.

    Windows come into memory in their order, each with the next one, and leave
    it when the batches have passed them: those of a batch are never before
    those of an earlier batch.
    """

    @property
    def windows(self) -> Sequence[Sequence[int]]:
        """Row groups of every window."""

    def needed_windows(self) -> Sequence[int]:
        """Numbers of the windows that this rank's batches are made of, ascending."""

    def batches(self, start: int = 0) -> Iterator[BatchPlan]:
        """Batches of this rank from ``start`` on."""


class Sampler(Protocol):
    """The order of cells for every epoch, the same whenever and wherever it is asked for.

    Sent to worker processes, so it must be picklable.
    """

    @property
    def n_rows(self) -> int:
        """Cells of an epoch over all ranks."""

    @property
    def n_batches(self) -> int:
        """Batches of an epoch and rank; equal in all epochs and on all ranks."""

    @property
    def batch_size(self) -> int:
        """Cells of the largest batch."""

    @property
    def window(self) -> int:
        """Row groups of the largest window; twice as many are in memory."""

    @property
    def world_size(self) -> int:
        """Ranks that share an epoch."""

    def epoch(self, number: int) -> Epoch:
        """Our share of an epoch, if there are several ranks."""


@dataclass(frozen=True)
class Served:
    """What other numbers of ranks have served of an epoch."""

    epoch: int
    by: tuple[tuple[int, int], ...]
    """One after the other: the number of ranks, and the number of the batch at which each of them stopped."""


@runtime_checkable
class Resharing(Protocol):
    """A sampler that can share the rest of an epoch among another number of ranks."""

    def after(self, served: Served) -> tuple[Sampler, int]:
        """The order of which others have served a part, and the number of our first batch of what is left."""


@dataclass(frozen=True, eq=False)
class TrainingCells:
    """What a sampler is made for: its class, or whatever makes it, is called with this alone."""

    index: CellIndex
    row_groups: tuple[RowGroup, ...]
    """Training cells of each chunk that has some; ``global_rows(slice(None))`` of one are their global rows."""
    batch_size: int
    seed: int
    world_size: int
    rank: int
    """Which of ``world_size`` shares of every epoch is ours."""


MakeSampler = Callable[[TrainingCells], Sampler]


class ListedEpoch:
    """An :class:`Epoch` whose batches are listed.

    Parameters
    ----------
    windows
        Row groups of every window.
    batches
        For each batch the rows of every window that it takes from.

    Raises
    ------
    ConfigError
        If a batch goes back to a window that an earlier one has passed.
    """

    def __init__(self, windows: Sequence[Sequence[int]], batches: Sequence[Sequence[Segment]]) -> None:
        self.windows = windows
        self._batches = batches
        used = [segment.window for batch in batches for segment in batch]
        if any(later < earlier for earlier, later in pairwise(used)):
            raise ConfigError("a sampler's batches go back to a window that was passed; list them window by window")
        self._needed = list(dict.fromkeys(used))

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        return len(self._batches)

    def needed_windows(self) -> list[int]:
        """Windows that batches take from."""
        return self._needed

    def batches(self, start: int = 0) -> Iterator[BatchPlan]:
        """Batches from ``start`` on."""
        for number, segments in islice(enumerate(self._batches), start, None):
            yield BatchPlan(number, tuple(segments))


def as_make_sampler(given: str | MakeSampler | None) -> MakeSampler | None:
    """What makes samplers, imported if it is given by its import path.

    Raises
    ------
    ConfigError
        If there is no such thing, or it cannot be called.
    """
    found = imported(given, "sampler") if isinstance(given, str) else given
    if found is not None and not callable(found):
        raise ConfigError(f"sampler={given!r} must be a class or function that makes a Sampler, or its import path")
    return found


def name_of(make: MakeSampler) -> str:
    """What tells one sampler from another in a saved position: its import path, and settings bound to it."""
    inner = getattr(make, "func", make)
    settings: Mapping[str, Any] = getattr(make, "keywords", {})
    name = f"{inner.__module__}.{getattr(inner, '__qualname__', type(inner).__qualname__)}"
    return name + (f"({', '.join(f'{key}={value!r}' for key, value in settings.items())})" if settings else "")


def make_sampler(make: MakeSampler, cells: TrainingCells) -> Sampler:
    """The sampler of a rank.

    Raises
    ------
    ConfigError
        If what is made is no sampler, or not one for this number of ranks.
    """
    made = make(cells)
    needed = ("n_rows", "n_batches", "batch_size", "window", "world_size", "epoch")
    if missing := [name for name in needed if not hasattr(made, name)]:
        raise ConfigError(
            f"sampler={name_of(make)} makes {made!r}, which has no {missing[0]}; docs/extending.md has all"
        )
    if made.world_size != cells.world_size:
        raise ConfigError(
            f"sampler={name_of(make)} serves {made.world_size} rank(s), this run has {cells.world_size}: use as many "
            "devices, or share each epoch by cells.world_size and cells.rank"
        )
    return made
