"""A block of rows in; the block, checked to hold counts, and the QC metrics of its cells out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.processing.genes.species import OTHER, WANTED
from scvae_data.processing.scan.job import MappedGenes
from scvae_data.processing.settings.gene_classes import GENE_CLASSES
from scvae_data.processing.settings.qc import Metrics
from scvae_data.processing.survey.counts import FAULTS, fault_of
from scvae_data.readers.base import CsrBlock
from scvae_data.system.jit import ahead_of, compiled

__all__ = [
    "NotCounts",
    "RowSums",
    "add_columns",
    "cell_metrics",
    "checked",
    "join_metrics",
    "qc_metrics",
    "row_sums",
    "species_share",
]

NOISE = 0.001
"""A value that is nearer to a whole number may be a count with the noise of float arithmetic."""
N_CODES = 3
"""Codes of species that a column may have."""


class NotCounts(Exception):
    """A slot holds a value that is no count."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class RowSums:
    """Exact integer sums of some rows.

    Parameters
    ----------
    total, n_genes
        Sum of counts and number of genes above zero, int64, shape (n,).
    by_class
        Sum of counts over each gene class, int64, shape (n, n_classes), in the order of `GENE_CLASSES`.
    top
        Sum of the largest counts, int64, shape (n, len(percent_top)).
    """

    total: NDArray[np.int64]
    n_genes: NDArray[np.int64]
    by_class: NDArray[np.int64]
    top: NDArray[np.int64]


def checked(block: CsrBlock, genes: MappedGenes, tolerance: float) -> CsrBlock:
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
        value = float(block.data[position])
        is_noise = 0 < min(value % 1, 1 - value % 1) < NOISE
        raise NotCounts(
            FAULTS[fault],
            f"{FAULTS[fault].replace('_', ' ')} value {f'{value:.10g}' if is_noise else f'{value:g}'} in row {row}, "
            f"column {column} ({genes.names[column]})"
            f"{f', which input.count_tolerance={NOISE} rounds' if is_noise else ''}",
        )
    # Kernels are compiled for each combination of types; of these there are two, whatever files store, and uint32 holds
    # every count.
    counts = block.data if block.data.dtype == np.float32 else block.data.astype(np.uint32, copy=False)
    return replace(block, indices=np.ascontiguousarray(block.indices, np.int32), data=np.ascontiguousarray(counts))


def cell_metrics(block: CsrBlock, genes: MappedGenes, tops: Sequence[int]) -> dict[str, Any]:
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


def species_share(block: CsrBlock, species: NDArray[np.uint8] | None) -> NDArray[np.float64]:
    """Return the percentage of each row's counts in genes of the wanted species, among those of any species.

    Parameters
    ----------
    block
        All columns of the table.
    species
        Code of each column, see `row_codes`; None where the table is of one species: then nothing is measured.

    Returns
    -------
    NaN for rows without a count in a gene of any species; float64, shape (n,).
    """
    if species is None:
        return np.full(block.n_rows, np.nan)
    rows = np.repeat(np.arange(block.n_rows) * N_CODES, np.diff(block.indptr))
    sums = np.bincount(rows + species[block.indices], block.data, N_CODES * block.n_rows).reshape(-1, N_CODES)
    with np.errstate(invalid="ignore"):
        return np.asarray(sums[:, WANTED] / (sums[:, WANTED] + sums[:, OTHER]) * 100.0)


def qc_metrics(sums: RowSums, measured: Sequence[bool], percent_top: Sequence[int]) -> dict[str, Any]:
    """Return scanpy's per-cell metrics.

    Parameters
    ----------
    sums
        Integer sums of n rows.
    measured
        Per gene class, whether the file has a gene of it; if not, the
        percentage is NaN: not measured is not 0 %.
    percent_top
        The N behind ``sums.top``.
    """
    # scanpy divides float32 sums by float32 totals; sums below 2**24 are exact in float32.
    total = sums.total.astype(np.float32)
    metrics: dict[str, NDArray[np.generic]] = {
        "total_counts": sums.total,
        "n_genes_by_counts": sums.n_genes.astype(np.int32),
        "log1p_total_counts": np.log1p(total),
        "log1p_n_genes_by_counts": np.log1p(sums.n_genes.astype(np.float64)),
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        for number, gene_class in enumerate(GENE_CLASSES):
            part = sums.by_class[:, number].astype(np.float32)
            percent = part / total * np.float32(100)
            metrics[f"pct_counts_{gene_class.name}"] = percent if measured[number] else np.full_like(total, np.nan)
        for number, top in enumerate(percent_top):
            metrics[f"pct_counts_in_top_{top}_genes"] = sums.top[:, number] / sums.total * 100.0
    return metrics


def join_metrics(parts: Sequence[Metrics]) -> Metrics:
    """Join the metrics of consecutive cells."""
    return {name: concatenated([part[name] for part in parts]) for name in parts[0]}


def concatenated(arrays: Sequence[Any]) -> Any:
    """Join arrays of one type, NumPy's or pandas'."""
    if isinstance(arrays[0], np.ndarray):
        return np.concatenate(arrays)
    return pd.concat([pd.Series(array) for array in arrays]).array


@compiled
def _n_above(counts: NDArray[np.uint32], limit: np.uint32) -> np.uint32:
    """Return how many counts are above a limit."""
    n = np.uint32(0)
    for k in range(counts.size):
        n = np.uint32(n + np.uint32(counts[k] > limit))  # in 32 bits: twice as many fit into a vector as of 64
    return n


@compiled
def _sum_top(counts: NDArray[np.uint32], n_top: np.int64, limit: np.uint32) -> tuple[np.int64, np.uint32]:
    """Return the sum of the ``n_top`` largest counts, and the least that has fewer than ``n_top`` above it.

    It is looked for by halving, from 0 to ``limit``: to pass over all counts a
    dozen times takes less than to sort them.
    """
    least, most = np.uint32(0), limit
    while least < most:
        middle = np.uint32(least + (most - least) // np.uint32(2))
        if _n_above(counts, middle) >= n_top:
            least = np.uint32(middle + np.uint32(1))
        else:
            most = middle
    total = np.uint64(0)
    for k in range(counts.size):
        total += np.uint64(counts[k]) if counts[k] > least else np.uint64(0)
    return np.int64(total) + (n_top - np.int64(_n_above(counts, least))) * np.int64(least), least


@ahead_of("process", *(f"i8[::1], i4[::1], {counts}[::1], b1[::1], i8[:, ::1]" for counts in ("f4", "u4")))
@compiled
def add_columns(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[Any],
    keep: NDArray[np.bool_],
    totals: NDArray[np.int64],
) -> None:
    """Add every count to the total of its column: in ``totals[0]`` of dropped rows, in ``totals[1]`` of kept ones."""
    for row in range(keep.size):
        of_row = totals[np.uintp(keep[row])]
        entries = slice(indptr[row], indptr[row + 1])
        columns, values = indices[entries], data[entries]
        for k in range(columns.size):
            of_row[np.uintp(columns[k])] += np.int64(values[k])


@ahead_of(
    "process",
    *(
        f"i8[::1], i4[::1], {counts}[::1], u4[::1], i8[::1], i8[::1], i8[::1], i8[:, ::1], i8[:, ::1]"
        for counts in ("f4", "u4")
    ),
)
@compiled
def row_sums(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[Any],
    flags: NDArray[np.uint32],
    tops: NDArray[np.int64],
    total: NDArray[np.int64],
    n_genes: NDArray[np.int64],
    by_class: NDArray[np.int64],
    top: NDArray[np.int64],
) -> None:
    """Fill the exact sums of every row; ``tops`` is ascending, explicit zeros do not count."""
    longest = np.int64(0)
    for row in range(indptr.size - 1):
        longest = max(longest, indptr[row + 1] - indptr[row])
    scratch, classed = np.empty(longest, np.uint32), np.empty(longest + 1, np.uint32)
    for row in range(indptr.size - 1):
        entries = slice(indptr[row], indptr[row + 1])
        columns, values = indices[entries], data[entries]
        counts = scratch[: values.size]
        # Loops that do one thing to all counts become vector instructions.
        for k in range(values.size):
            counts[k] = np.uint32(values[k])
        row_total, highest = np.uint64(0), np.uint32(0)
        for k in range(values.size):
            row_total += np.uint64(counts[k])
            highest = max(highest, counts[k])
        total[row], n_genes[row] = row_total, _n_above(counts, np.uint32(0))
        n_classed = np.uintp(0)
        for k in range(values.size):  # without a jump, which would be guessed wrong at each gene of a class
            classed[n_classed] = k
            n_classed += np.uintp(flags[np.uintp(columns[k])] != 0)
        for k in classed[:n_classed]:
            flag = np.int64(flags[np.uintp(columns[k])])
            for bit in range(by_class.shape[1]):
                by_class[row, bit] += np.int64(counts[k]) * (flag >> bit & 1)
        limit = highest
        for level in range(tops.size):
            top[row, level], limit = _sum_top(counts, tops[level], limit)
