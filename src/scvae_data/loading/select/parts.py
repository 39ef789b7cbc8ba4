"""A directory's index, a filter and a split in, the row groups of every part out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import SelectionError
from scvae_data.filter import Filter
from scvae_data.loading.select.filter import filter_mask
from scvae_data.loading.select.rows import ChunkRows, to_row_groups, wanted_codes
from scvae_data.loading.select.split import PARTS, ColumnSplit, GroupSplit, HashSplit, Part, Split
from scvae_data.store import SRX_COLUMN, CellIndex
from scvae_data.store.row_table import HASH_RANGE

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "LoaderPart", "RowGroups", "check_parts", "group_counts", "leakage", "parts_of", "select_parts", "split_groups",
]  # fmt: skip

LoaderPart = Literal["train", "val", "test", "predict"]
RowGroups = Mapping[LoaderPart, tuple[ChunkRows, ...]]
Cut = Callable[[ChunkRows], Mapping[Part, ChunkRows | None]]


def select_parts(
    index: CellIndex,
    include: Sequence[str] | None,
    exclude: Sequence[str] | None,
    split: Split,
    given: Filter | None = None,
    train_fraction: float = 1.0,
) -> RowGroups:
    """Row groups of the three parts of the split and, as ``predict``, of every selected cell.

    ``train_fraction`` of the cells for training are trained on: those with the
    lowest hashes, so that a smaller fraction is part of any larger one.

    Raises
    ------
    SelectionError
        If an accession is not in the directory, or no cell is left.
    """
    predict = tuple(_chosen(index, include, exclude, given))
    if not predict:
        limits = {"include_srx_accessions": _short(include), "exclude_srx_accessions": _short(exclude), "filter": given}
        told = [f"{name}={limit}" for name, limit in limits.items() if limit is not None]
        remedy = "relax it" if len(told) == 1 else "relax one of them"
        raise SelectionError(f"no cell is left of {index.n_obs:,}: {', '.join(told)}; {remedy}")
    row_groups: dict[LoaderPart, tuple[ChunkRows, ...]] = {"predict": predict}
    row_groups.update(split_groups(index, split, predict).items())
    if train_fraction < 1:
        row_groups["train"] = tuple(_lowest(index, row_groups["train"], split.hash_end, train_fraction))
    return row_groups


def _lowest(index: CellIndex, row_groups: Iterable[ChunkRows], hash_end: int, fraction: float) -> Iterator[ChunkRows]:
    """Row groups of the fraction of cells with the lowest hashes, which begin at ``hash_end``."""
    limit = hash_end + round(fraction * (HASH_RANGE - hash_end))
    hashed = index.order["kind"] == "hash"
    bounds = index.cells.split_bounds(limit).tolist() if hashed else []
    for group in row_groups:
        if hashed:
            left = group.between(0, bounds[group.chunk_id])
        else:
            split_hash = index.cells.array(group.chunk_id, "split_hash")[group.within_chunk()]
            left = group.where(split_hash.astype(np.int64) < limit)
        if left is not None:
            yield left


def _chosen(
    index: CellIndex, include: Sequence[str] | None, exclude: Sequence[str] | None, given: Filter | None
) -> Iterator[ChunkRows]:
    """Row groups of all selected cells."""
    n_categories = len(index.obs_columns[SRX_COLUMN].categories or ())
    codes = (None if names is None else index.srx_codes(names) for names in (include, exclude))
    wanted = wanted_codes(n_categories, *codes)
    for group in to_row_groups(None, index.first_rows):
        left: ChunkRows | None = group
        if wanted is not None:
            left = group.where(wanted[index.codes(SRX_COLUMN, group.chunk_id)])
        if left is not None and given is not None:
            left = left.where(filter_mask(index, group.chunk_id, given)[left.within_chunk()])
        if left is not None:
            yield left


def split_groups(index: CellIndex, split: Split, selected: tuple[ChunkRows, ...]) -> dict[Part, tuple[ChunkRows, ...]]:
    """Row groups of every part of a split among selected cells."""
    cut = _cut_of(index, split, selected)
    found = [cut(group) for group in selected]
    return {part: tuple(rows for cells in found if (rows := cells[part]) is not None) for part in PARTS}


def _cut_of(index: CellIndex, split: Split, selected: tuple[ChunkRows, ...]) -> Cut:
    """What cuts a row group into parts; reads what the split goes by, chunk by chunk."""
    if isinstance(split, HashSplit):
        return _cut_by_hash(index, split)
    column = split.by if isinstance(split, GroupSplit) else split.column
    part_of = split.parts_of(group_counts(index, column, selected), index.categories(column))
    cut_rest = _cut_by_hash(index, split.rest) if isinstance(split, ColumnSplit) and split.hash_end else None

    def cut(group: ChunkRows) -> dict[Part, ChunkRows | None]:
        parts = part_of[index.codes(column, group.chunk_id)[group.within_chunk()]]
        found = {part: group.where(parts == place) for place, part in enumerate(PARTS)}
        rest = found["train"]
        if cut_rest is None or rest is None:
            return found
        # A part has values or a share, never both.
        return {part: rows if part == "train" else found[part] or rows for part, rows in cut_rest(rest).items()}

    return cut


def _cut_by_hash(index: CellIndex, split: HashSplit) -> Cut:
    if index.order["kind"] != "hash":

        def cut(group: ChunkRows) -> dict[Part, ChunkRows | None]:
            split_hash = index.cells.array(group.chunk_id, "split_hash")[group.within_chunk()]
            return {part: group.where(split.mask(split_hash, part)) for part in PARTS}

        return cut
    # Rows of a chunk ascend by their hash: each part is a range.
    val_end, test_end = (index.cells.split_bounds(limit).tolist() for limit in split.limits)

    def cut_range(group: ChunkRows) -> dict[Part, ChunkRows | None]:
        low, high = val_end[group.chunk_id], test_end[group.chunk_id]
        return {
            "train": group.between(high, index.chunks[group.chunk_id].n_obs),
            "val": group.between(0, low),
            "test": group.between(low, high),
        }

    return cut_range


def parts_of(index: CellIndex, row_groups: RowGroups, rows: NDArray[np.int64]) -> NDArray[np.int8]:
    """Part of ascending global rows, as its position in :data:`PARTS`; -1 where a cell is in none."""
    found = np.full(rows.size, -1, np.int8)
    borders = np.searchsorted(rows, index.first_rows)
    for place, part in enumerate(PARTS):
        for group in row_groups[part]:
            here = slice(*borders[group.chunk_id : group.chunk_id + 2].tolist())
            inside = np.zeros(index.chunks[group.chunk_id].n_obs, bool)
            inside[group.within_chunk()] = True
            found[here][inside[rows[here] - group.first_row]] = place
    return found


def leakage(index: CellIndex, row_groups: RowGroups, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """How far validation and test share the groups of training, for categorical obs columns, all of them if None.

    Returns
    -------
    One row per column and part: ``column``, ``part``, ``groups`` in the part,
    ``groups_in_train`` of them, and ``cells_in_train``, the share of the
    part's cells whose group training has too. Cells without a value count to no group.
    """
    import pandas as pd  # here: a start of training needs none of it

    report = []
    if columns is None:
        columns = [column for column, known in index.obs_columns.items() if known.categories is not None]
    for column in columns:
        sizes = {part: group_counts(index, column, row_groups[part])[:-1] for part in PARTS}
        for part in ("val", "test"):
            here = sizes[part]
            if here.sum():
                shared = sizes["train"] > 0
                groups, both = np.count_nonzero(here), np.count_nonzero(here[shared])
                report.append((column, part, groups, both, here[shared].sum() / here.sum()))
    return pd.DataFrame(report, columns=["column", "part", "groups", "groups_in_train", "cells_in_train"])


def group_counts(index: CellIndex, column: str, row_groups: Iterable[ChunkRows]) -> NDArray[np.int64]:
    """Cells of every category of a column, and last of none; (n_categories + 1,)."""
    counts = np.zeros(len(index.categories(column)) + 1, np.int64)
    for group in row_groups:
        codes = index.codes(column, group.chunk_id)[group.within_chunk()]
        counts += np.bincount(codes, minlength=counts.size)
    return counts


def check_parts(row_groups: RowGroups, split: Split, batch_size: int, times: int = 1) -> None:
    """Raise SelectionError if a part is empty that should not be, or an epoch, of so many passes, is below a batch."""
    cells = {part: sum(group.n_rows for group in selected) for part, selected in row_groups.items()}
    for part in PARTS:
        if cells[part] == 0 and split.fraction(part) > 0:
            raise SelectionError(
                f"the {part} part ({split.fraction(part):.3g} of {cells['predict']:,} cells) is empty; "
                "change split, or select more cells"
            )
    if batch_size > cells["train"] * times:
        raise SelectionError(
            f"batch_size={batch_size} exceeds the {cells['train']:,} cells to train on; "
            "lower batch_size or select more cells"
        )


def _short(names: Sequence[str] | None, limit: int = 5) -> str | None:
    if names is None:
        return None
    more = f", … ({len(names)} in all)" if len(names) > limit else ""
    return f"[{', '.join(names[:limit])}{more}]"
