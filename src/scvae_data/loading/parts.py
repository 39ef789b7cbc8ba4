"""A directory's index, a filter and a split in, the blocks of every part out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from scvae_data.errors import SelectionError
from scvae_data.loading.select import BlockRows, select_codes, to_blocks
from scvae_data.loading.split import HashSplit, Part
from scvae_data.store import DatasetIndex, count_dtype, index_dtype

__all__ = ["Blocks", "LoaderPart", "check_parts", "decoded_bytes", "select_parts"]

LoaderPart = Literal["train", "val", "test", "predict"]
Blocks = Mapping[LoaderPart, tuple[BlockRows, ...]]

SRX_COLUMN = "SRX_accession"
SPLIT_PARTS: tuple[Part, ...] = ("train", "val", "test")


def select_parts(
    index: DatasetIndex, include: Sequence[str] | None, exclude: Sequence[str] | None, split: HashSplit
) -> Blocks:
    """Blocks of the three parts of the split and, as ``predict``, of every selected cell.

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
    blocks: dict[LoaderPart, tuple[BlockRows, ...]] = {"predict": to_blocks(chosen, index.first_rows)}
    if not blocks["predict"]:
        raise SelectionError(
            f"no cell is left: include_srx_accessions={_short(include)}, exclude_srx_accessions={_short(exclude)}; "
            "relax one of them"
        )
    split_hash = index.obs_reader.read(["split_hash"])["split_hash"].to_numpy(dtype=np.uint32)
    for part in SPLIT_PARTS:
        mask = split.mask(split_hash, part)
        blocks[part] = to_blocks(mask if chosen is None else mask & chosen, index.first_rows)
    return blocks


def check_parts(blocks: Blocks, split: HashSplit, batch_size: int) -> None:
    """Raise SelectionError if a part is empty that should not be, or training has less than a batch."""
    cells = {part: sum(block.n_rows for block in selected) for part, selected in blocks.items()}
    for part in SPLIT_PARTS:
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


def decoded_bytes(index: DatasetIndex, blocks: Sequence[BlockRows]) -> int:
    """Estimate the bytes of all ``blocks`` once decoded, from the mean number of counts per cell of each chunk."""
    total = 0.0
    for block in blocks:
        chunk = index.chunks[block.chunk_id]
        itemsize = index_dtype(index.n_vars).itemsize + count_dtype(chunk.max_count).itemsize
        total += block.n_rows * (chunk.nnz / chunk.n_obs * itemsize + 8)
    return round(total)


def _short(names: Sequence[str] | None, limit: int = 5) -> str:
    if names is None:
        return "null"
    more = f", … ({len(names)} in all)" if len(names) > limit else ""
    return f"[{', '.join(names[:limit])}{more}]"
