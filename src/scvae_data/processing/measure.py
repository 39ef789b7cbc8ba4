"""A block of rows in; the block, checked to hold counts, and the QC metrics of its cells out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.processing.kernels import FAULTS, first_fault, row_sums
from scvae_data.processing.qc import GENE_CLASSES, RowSums, qc_metrics
from scvae_data.processing.scan_job import TableGenes
from scvae_data.readers import CsrBlock

__all__ = ["NotCounts", "checked", "measure"]


class NotCounts(Exception):
    """A slot holds a value that is no count."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def checked(block: CsrBlock, genes: TableGenes, tolerance: float) -> CsrBlock:
    """Return the block, rounded where that is allowed.

    Parameters
    ----------
    tolerance
        How far a value may be from a whole number and still be rounded to it.

    Raises
    ------
    NotCounts
        Names the first value that is no count.
    """
    if tolerance and block.data.dtype.kind == "f":
        whole = np.rint(block.data)
        near = np.abs(block.data - whole) <= tolerance
        block = replace(block, data=np.where(near, whole, block.data))
    position, fault = fault_of(block.data)
    if fault:
        row = block.first_row + int(np.searchsorted(block.indptr, position, side="right")) - 1
        column = int(block.indices[position])
        raise NotCounts(
            FAULTS[fault],
            f"{FAULTS[fault].replace('_', ' ')} value {block.data[position]:g} in row {row}, column {column} "
            f"({genes.names[column]})",
        )
    return block


def fault_of(data: NDArray[Any]) -> tuple[int, int]:
    """Return the position of the first value that is no count, and its fault as in `FAULTS`; 0 for none."""
    if data.dtype.kind in "ub" and data.dtype.itemsize <= 4:
        return -1, 0
    if data.dtype.kind in "iu":
        bad = np.flatnonzero((data < 0) | (data > 2**32 - 1))
        return (int(bad[0]), 2 if data[bad[0]] < 0 else 4) if bad.size else (-1, 0)
    position, fault = first_fault(data if data.dtype.itemsize >= 4 else data.astype(np.float32))
    return int(position), int(fault)


def measure(block: CsrBlock, genes: TableGenes, tops: Sequence[int]) -> pd.DataFrame:
    """Return the QC metrics of a block's rows.

    Parameters
    ----------
    tops
        Numbers of top genes whose share is measured, ascending.
    """
    n_rows = len(block.indptr) - 1
    sums = RowSums(
        np.zeros(n_rows, np.int64),
        np.zeros(n_rows, np.int64),
        np.zeros((n_rows, len(GENE_CLASSES)), np.int64),
        np.zeros((n_rows, len(tops)), np.int64),
    )
    row_sums(
        block.indptr, block.indices, block.data, genes.flags, np.array(tops, np.int64),
        sums.total, sums.n_genes, sums.by_class, sums.top,
    )  # fmt: skip
    return qc_metrics(sums, genes.measured, tops)
