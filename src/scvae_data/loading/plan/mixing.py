"""How the directory orders its cells in, what is decoded together and how much of it is mixed out.

Cells that were stored in hash order are a random sample wherever one reads: a
row group is the selected rows of a chunk. Where cells were added to a directory,
each generation is a random sample of its own: a row group has its share of
every generation. In any other order, row groups are
made of ranges from all over the directory (see
:mod:`scvae_data.loading.plan.scatter`), as long as batches allow that are nearly
as diverse as in random order: long ranges read little that is not used, short
ones mix better.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import SelectionError
from scvae_data.loading.plan.diversity import ENOUGH, Diversity, label_counts, measure_diversity
from scvae_data.loading.plan.epoch import Plan
from scvae_data.loading.plan.sampling import Draws
from scvae_data.loading.plan.scatter import Selected, blend, scatter
from scvae_data.loading.select.rows import ChunkRows, RowGroup, to_row_groups
from scvae_data.loading.select.sizes import decoded_bytes
from scvae_data.loading.select.values import CellValues
from scvae_data.store import SRX_COLUMN, CellIndex

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Mixing", "diversity_table", "mix", "tell_of_mixing"]

# Ranges in stored blocks, the longest that suffices is taken; a quarter decodes five elements for each one used.
RANGES = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25)
# A window of less is not worth the diversity it costs, however small the chunks.
LEAST_WINDOW_BYTES = 64_000_000
# Diversity is measured on some batches; what barely suffices there may not elsewhere.
MARGIN = 0.001
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mixing:
    """What is decoded together, how it is mixed, and what that does to batches."""

    row_groups: tuple[RowGroup, ...]
    plan: Plan
    """Of one rank."""
    range_rows: int | None = None
    """Rows of a range; None where a row group is the rows of a chunk."""
    decoded_per_used: float = 1.0
    """Elements decoded for each one that is used."""
    diversity: Mapping[str, Diversity] | None = None
    """By obs column; None where the order on disk makes every batch a random sample."""

    @property
    def worst(self) -> tuple[str, Diversity] | None:
        """The obs column by which batches come least close to random order, and how close."""
        found = self.diversity or {}
        return min(found.items(), key=lambda item: item[1].share, default=None)

    @property
    def share(self) -> float:
        """Entropy of batches in shares of that in random order; 1 where the order on disk is random."""
        return 1.0 if self.worst is None else self.worst[1].share

    def repeated(self, passes: int) -> Mixing:
        """The same with epochs that go through all cells several times."""
        return replace(self, plan=replace(self.plan, passes=passes))

    def describe(self) -> str:
        """What is read together and mixed."""
        mixed = f"{self.plan.window} of {len(self.row_groups)} mixed at a time"
        if self.range_rows is None:
            return f"whole chunks, {mixed}"
        return (
            f"ranges of {self.range_rows} cells dealt into blocks of a chunk's size, {mixed}, "
            f"{self.decoded_per_used:.1f} cells decoded for each one used"
        )


def mix(
    index: CellIndex,
    row_groups: tuple[ChunkRows, ...],
    columns: Sequence[str],
    *,
    batch_size: int,
    seed: int = 0,
    window: int | None = None,
    range_rows: int | None = None,
    drawn: tuple[str, NDArray[np.float64]] | None = None,
) -> Mixing:
    """Choose row groups and window.

    Parameters
    ----------
    index
        The directory.
    row_groups
        Selected rows of each chunk.
    columns
        Categorical obs columns whose values batches should mix.
    batch_size, seed
        Of the plan.
    window
        Row groups to mix. None: one in hash order, else two, but at least 64 MB. The
        window in use and the next are both in memory.
    range_rows
        Rows of a range; None to choose.
    drawn
        For weighted draws, a categorical obs column and how often cells of each value are drawn.
    """
    hashed = index.order["kind"] == "hash"
    if window is None:
        least = LEAST_WINDOW_BYTES * len(row_groups) / max(1, decoded_bytes(index, row_groups))
        window = 1 if hashed else min(len(row_groups), max(2, int(np.ceil(least))))
    values = None if drawn is None else CellValues(index, drawn[:1])

    def mixing_of(made: tuple[RowGroup, ...], n_rows: int | None, decoded_per_used: float) -> Mixing:
        draws = None if drawn is None or values is None else Draws(made, values, *drawn, seed)
        plan = Plan(tuple(group.n_rows for group in made), batch_size, seed, window, draws=draws)
        return Mixing(made, plan, n_rows, decoded_per_used)

    stretches = _stretches(index, row_groups)
    if hashed and range_rows is None and len(stretches) > 1:
        return mixing_of(blend(Selected.of(row_groups), stretches), None, 1.0)
    candidates = (mixing_of(*one) for one in _candidates(index, row_groups, seed, range_rows))
    return next(candidates) if hashed else _best(index, candidates, columns)


def _best(index: CellIndex, candidates: Iterable[Mixing], columns: Sequence[str]) -> Mixing:
    """The first that mixes the values of obs columns well enough, else the one that mixes them best."""
    best: Mixing | None = None
    counts: dict[str, NDArray[np.int64]] = {}
    codes = {column: index.codes(column) for column in columns}
    for mixing in candidates:
        plan, made = mixing.plan, mixing.row_groups
        counts = counts or {column: label_counts(plan, made, codes[column]) for column in columns}
        found = {column: measure_diversity(plan, made, codes[column], counts[column]) for column in columns}
        measured = replace(mixing, diversity=found)
        if best is None or measured.share > best.share:
            best = measured
        if measured.share >= ENOUGH + MARGIN:
            break
    assert best is not None
    return best


def tell_of_mixing(mixing: Mixing, order: str, chunk_cache_size: int | None) -> None:
    """Say how cells that are in no random order are mixed, and warn where that does not suffice.

    ``order`` is the kind of order that the cells are stored in, ``chunk_cache_size`` as the user set it.
    """
    if mixing.worst is None:
        return
    column, found = mixing.worst
    share = 100 * found.share
    if found.share >= ENOUGH or mixing.plan.window >= len(mixing.row_groups):  # more than all cannot be mixed
        log.info(
            "cells are stored in %s order: %s; batches have %.1f %% of the entropy of a random order by %s",
            order, mixing.describe(), share, column,
        )  # fmt: skip
        return
    # The entropy that is missing falls as the window grows.
    wanted = min(len(mixing.row_groups), int(np.ceil(mixing.plan.window * (1 - found.share) / (1 - ENOUGH))))
    log.warning(
        "batches have %.1f %% of the entropy of a random order by %s (%.2f of %.2f bits, %.1f of %.1f values), and "
        "training suffers: cells are stored in %s order (%s); process the data with chunking.order=hash, or set "
        "max_chunks_in_memory=%d chunk_cache_size=%d",
        share, column, found.entropy, found.random_entropy, found.labels, found.random_labels,
        order, mixing.describe(), wanted, max(chunk_cache_size or 0, wanted),
    )  # fmt: skip


def diversity_table(
    index: CellIndex,
    batch_size: int = 256,
    max_chunks_in_memory: int | None = None,
    columns: Sequence[str] | None = None,
) -> tuple[Mixing, pd.DataFrame]:
    """How all cells of a directory are mixed, and how diverse that makes batches, by obs column.

    Parameters
    ----------
    index
        The directory.
    batch_size, max_chunks_in_memory
        As of :class:`~scvae_data.ChunkedDataModule`.
    columns
        Categorical obs columns; None for all with more than one value.
    """
    import pandas as pd  # here: a start of training needs none of it

    if columns is None:
        columns = [name for name, known in index.obs_columns.items() if len(known.categories or ()) > 1]
    if not columns:
        raise SelectionError(f"{index.where} has no categorical obs column with more than one value")
    mixing = mix(
        index,
        to_row_groups(None, index.first_rows),
        [SRX_COLUMN],
        batch_size=min(batch_size, index.n_obs),
        window=max_chunks_in_memory,
    )
    rows = []
    plan, row_groups = mixing.plan, mixing.row_groups
    for column in columns:
        codes = index.codes(column)
        found = measure_diversity(plan, row_groups, codes, label_counts(plan, row_groups, codes))
        rows.append({"column": column, **vars(found), "share": found.share})
    return mixing, pd.DataFrame(rows)


def _stretches(index: CellIndex, row_groups: Sequence[ChunkRows]) -> list[range]:
    """Positions of the row groups of each generation that has any: each was shuffled by itself."""
    chunk_ids = [group.chunk_id for group in row_groups]
    borders = [bisect_left(chunk_ids, chunks.start) for chunks in index.chunks_of_generations]
    return [range(low, high) for low, high in pairwise([*borders, len(chunk_ids)]) if low < high]


def _candidates(
    index: CellIndex, row_groups: tuple[ChunkRows, ...], seed: int, range_rows: int | None
) -> Iterator[tuple[tuple[RowGroup, ...], int | None, float]]:
    """Row groups, rows of a range and elements decoded for each one used: from the cheapest to the best mixed."""
    stored = index.block_elements / max(1.0, index.nnz / index.n_obs)
    if range_rows is not None:
        yield scatter(Selected.of(row_groups), range_rows, seed), range_rows, 1 + stored / range_rows
        return
    yield row_groups, None, 1.0
    longest, selected = max(group.n_rows for group in row_groups), Selected.of(row_groups)
    for n_rows in dict.fromkeys(max(1, round(stored * size)) for size in RANGES):
        if n_rows < longest:
            yield scatter(selected, n_rows, seed), n_rows, 1 + stored / n_rows
