"""A directory's index, a filter and a split in, the row groups of every part out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import SelectionError
from scvae_data.filter import Filter
from scvae_data.loading.select.filter import filter_mask
from scvae_data.loading.select.rows import ChunkRows, select_codes, to_row_groups
from scvae_data.loading.select.split import PARTS, GroupSplit, HashSplit, Part, Split
from scvae_data.store import SRX_COLUMN, DatasetIndex

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "LoaderPart",
    "RowGroups",
    "check_parts",
    "leakage",
    "part_masks",
    "select_parts",
]

LoaderPart = Literal["train", "val", "test", "predict"]
RowGroups = Mapping[LoaderPart, tuple[ChunkRows, ...]]


def select_parts(
    index: DatasetIndex,
    include: Sequence[str] | None,
    exclude: Sequence[str] | None,
    split: Split,
    given: Filter | None = None,
) -> RowGroups:
    """Row groups of the three parts of the split and, as ``predict``, of every selected cell.

    Raises
    ------
    SelectionError
        If an accession is not in the directory, or no cell is left.
    """
    chosen = None
    if include is not None or exclude is not None:
        n_categories = len(index.obs_columns[SRX_COLUMN].categories or ())
        codes = [None if names is None else index.srx_codes(names) for names in (include, exclude)]
        chosen = select_codes(index.codes(SRX_COLUMN), n_categories, *codes)
    if given is not None:
        kept = filter_mask(index, given)
        chosen = kept if chosen is None else chosen & kept
    row_groups: dict[LoaderPart, tuple[ChunkRows, ...]] = {"predict": to_row_groups(chosen, index.first_rows)}
    if not row_groups["predict"]:
        raise SelectionError(
            f"no cell is left of {index.n_obs:,}: include_srx_accessions={_short(include)}, "
            f"exclude_srx_accessions={_short(exclude)}, filter={given or 'null'}; relax one of them"
        )
    for part, mask in part_masks(index, split, chosen).items():
        row_groups[part] = to_row_groups(mask, index.first_rows)
    return row_groups


def part_masks(index: DatasetIndex, split: Split, chosen: NDArray[np.bool_] | None) -> dict[Part, NDArray[np.bool_]]:
    """Cells of every part of a split among those chosen (None: all), each (n_obs,)."""
    if isinstance(split, HashSplit):
        split_hash = index.obs_reader.numbers("split_hash").astype(np.uint32)
        masks = {part: split.mask(split_hash, part) for part in PARTS}
        return masks if chosen is None else {part: mask & chosen for part, mask in masks.items()}
    column = split.by if isinstance(split, GroupSplit) else split.column
    rows = np.arange(index.n_obs) if chosen is None else np.flatnonzero(chosen)
    codes = index.codes(column)[rows]
    parts = split.parts_of(codes, index.obs_columns[column].categories or ())
    masks = {part: np.zeros(index.n_obs, np.bool_) for part in PARTS}
    for place, part in enumerate(PARTS):
        masks[part][rows[parts == place]] = True
    return masks


def leakage(index: DatasetIndex, row_groups: RowGroups) -> pd.DataFrame:
    """How far validation and test share the groups of training, for every categorical obs column.

    Returns
    -------
    One row per column and part: ``column``, ``part``, ``groups`` in the part,
    ``groups_in_train`` of them, and ``cells_in_train``, the share of the
    part's cells whose group training has too. Cells without a value count to no group.
    """
    import pandas as pd  # here: a start of training needs none of it

    rows = {
        part: np.concatenate([np.zeros(0, np.int64), *(group.global_rows(slice(None)) for group in row_groups[part])])
        for part in PARTS
    }
    report = []
    for column, known in index.obs_columns.items():
        if known.categories is None:
            continue
        sizes = {
            part: np.bincount(index.codes(column)[of], minlength=len(known.categories) + 1)[:-1]
            for part, of in rows.items()
        }
        for part in ("val", "test"):
            here = sizes[part]
            if here.sum():
                shared = sizes["train"] > 0
                groups, both = np.count_nonzero(here), np.count_nonzero(here[shared])
                report.append((column, part, groups, both, here[shared].sum() / here.sum()))
    return pd.DataFrame(report, columns=["column", "part", "groups", "groups_in_train", "cells_in_train"])


def check_parts(row_groups: RowGroups, split: Split, batch_size: int) -> None:
    """Raise SelectionError if a part is empty that should not be, or training has less than a batch."""
    cells = {part: sum(group.n_rows for group in selected) for part, selected in row_groups.items()}
    for part in PARTS:
        if cells[part] == 0 and split.fraction(part) > 0:
            raise SelectionError(
                f"the {part} part ({split.fraction(part):.3g} of {cells['predict']:,} cells) is empty; "
                "change split, or select more cells"
            )
    if batch_size > cells["train"]:
        raise SelectionError(
            f"batch_size={batch_size} exceeds the {cells['train']:,} cells to train on; "
            "lower batch_size or select more cells"
        )


def _short(names: Sequence[str] | None, limit: int = 5) -> str:
    if names is None:
        return "null"
    more = f", … ({len(names)} in all)" if len(names) > limit else ""
    return f"[{', '.join(names[:limit])}{more}]"
