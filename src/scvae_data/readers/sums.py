"""Several matrices of the same cells and genes in; the rows of their sum, added exactly, out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scvae_data.errors import InputError
from scvae_data.readers.base import CsrBlock

__all__ = ["added", "named_slot", "parts_of"]


def parts_of(slot: str) -> list[str]:
    """The matrices that a slot is made of: itself, or the layers of a sum.

    >>> parts_of("raw/X"), parts_of("sum:spliced+unspliced")
    (['raw/X'], ['layers/spliced', 'layers/unspliced'])
    """
    if not slot.startswith("sum:"):
        return [slot]
    return [name if name == "X" else f"layers/{name}" for name in slot.removeprefix("sum:").split("+")]


def named_slot(path: Path, name: str, held: Sequence[str]) -> str:
    """Return the slot that ``X``, ``raw``, ``layers/NAME`` or ``sum:NAME+NAME`` of ``input.counts`` names.

    Raises
    ------
    InputError
        ``no_counts`` if a matrix of it is none of those ``held``.
    """
    slot = "raw/X" if name == "raw" else name
    for part in parts_of(slot):
        if part not in held:
            there = ", ".join(held) or "no matrix"
            raise InputError(
                path, "no_counts", f"input.counts={name}: there is no {part}; the file has {there}; name these"
            )
    return slot


def added(path: Path, parts: Mapping[str, Iterator[CsrBlock]]) -> Iterator[CsrBlock]:
    """Add matrices, given by name, row by row; their blocks need not have the same borders.

    Raises
    ------
    InputError
        ``not_counts`` if a value is no whole number from 0 on: two fractions
        may add up to one, and a negative number may hide in a sum.
    """
    import scipy.sparse as sp  # here: few inputs need it, and every start would wait for it

    waiting: dict[str, Any] = {}
    first_row = 0
    while True:
        for name, blocks in parts.items():
            if name not in waiting and (block := next(blocks, None)) is not None:
                waiting[name] = whole(path, name, block)
        if len(waiting) < len(parts):
            return
        n_rows = min(matrix.shape[0] for matrix in waiting.values())
        total = sp.csr_array(sum(matrix[:n_rows] for matrix in waiting.values()))
        yield CsrBlock(first_row, total.indptr.astype(np.int64), total.indices, total.data, total.shape[1])
        first_row += n_rows
        waiting = {name: matrix[n_rows:] for name, matrix in waiting.items() if matrix.shape[0] > n_rows}


def whole(path: Path, name: str, block: CsrBlock) -> Any:
    """The rows of a block, checked, as float64: whole numbers below 2**53 are added exactly."""
    import scipy.sparse as sp

    data = block.data.astype(np.float64)
    bad = np.flatnonzero(~((data >= 0) & (data == np.floor(data)) & np.isfinite(data)))
    if bad.size:
        row = block.first_row + int(np.searchsorted(block.indptr, bad[0], side="right")) - 1
        where = f"row {row}, column {int(block.indices[bad[0]])}"
        raise InputError(
            path,
            "not_counts",
            f"{name} holds {data[bad[0]]:g} in {where}, which is no count; leave it out of the sum in input.counts",
        )
    return sp.csr_array((data, block.indices, block.indptr), shape=(block.n_rows, block.n_vars))
