"""What the likelihoods have in common: rows of what a decoder says in, exponentials and sums out.

Sums run over blocks in the type of the row, which makes vector instructions,
and over the blocks in float64, so that a row of any length loses no more than a block does.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from scvae_data.models.kernels.elementary import VECTORS, exp, like

__all__ = [
    "BLOCK", "SUMMING", "add_at", "add_scaled", "dispersions", "exponentials", "longest", "measured_logits",
    "of_row", "taken", "total",
]  # fmt: skip

BLOCK = 512
UNMEASURED = -1e30
LOG_THETA = 30.0  # beyond it a dispersion changes nothing that float32 can tell

# Sums within a block may take any order.
SUMMING: dict[str, Any] = {**VECTORS, "fastmath": {"contract", "reassoc", "nsz"}}


@numba.njit(**SUMMING)  # type: ignore[untyped-decorator]
def total(values: NDArray[Any]) -> Any:
    """The sum of some values, in float64."""
    whole = 0.0
    for start in range(0, values.size, BLOCK):
        block = values[start : start + BLOCK]
        part = like(values[0], 0)
        for j in range(block.size):
            part += block[j]
        whole += part
    return whole


@numba.njit(**VECTORS)  # type: ignore[untyped-decorator]
def measured_logits(logits: NDArray[Any], measured: NDArray[np.bool_], room: NDArray[Any]) -> NDArray[Any]:
    """A row of logits, or in ``room`` one whose unmeasured genes have no share; an empty ``measured`` means all are."""
    if not measured.size:
        return logits
    for j in range(logits.size):
        room[j] = logits[j] if measured[j] else like(logits[0], UNMEASURED)
    return room


@numba.njit(**SUMMING)  # type: ignore[untyped-decorator]
def exponentials(logits: NDArray[Any], largest: Any, e: NDArray[Any]) -> Any:
    """Make ``e`` the exponentials of the logits less ``largest``; returns their sum in float64."""
    whole = 0.0
    for start in range(0, logits.size, BLOCK):
        block, out = logits[start : start + BLOCK], e[start : start + BLOCK]
        part = like(logits[0], 0)
        for j in range(block.size):
            out[j] = exp(block[j] - largest)
            part += out[j]
        whole += part
    return whole


@numba.njit(**VECTORS)  # type: ignore[untyped-decorator]
def dispersions(log_theta: NDArray[Any], theta: NDArray[Any], inverse: NDArray[Any]) -> None:
    """Make ``theta`` and ``inverse`` the inverse dispersions of a row and their inverses."""
    for j in range(log_theta.size):
        bound = like(log_theta[0], LOG_THETA)
        kept = bound if log_theta[j] > bound else log_theta[j]
        kept = -bound if kept < -bound else kept
        theta[j] = exp(kept)
        inverse[j] = exp(-kept)


@numba.njit(**VECTORS)  # type: ignore[untyped-decorator]
def of_row(values: NDArray[Any], i: int) -> Any:
    """Row ``i`` of a matrix that may have but one row for all, or none."""
    return values[i % len(values)] if len(values) else values.ravel()


@numba.njit(**VECTORS)  # type: ignore[untyped-decorator]
def longest(indptr: NDArray[np.int64], first: int, last: int) -> int:
    """Most elements of one of some CSR rows."""
    most = 0
    for i in range(first, last):
        most = max(most, indptr[i + 1] - indptr[i])
    return most


@numba.njit(**VECTORS)  # type: ignore[untyped-decorator]
def taken(values: NDArray[Any], columns: NDArray[np.int32], room: NDArray[Any]) -> NDArray[Any]:
    """``values[columns]``, in ``room``: loops over what lies scattered do not become vector instructions."""
    for k in range(columns.size):
        room[k] = values[np.uint64(columns[k])]
    return room[: columns.size]


@numba.njit(**VECTORS)  # type: ignore[untyped-decorator]
def add_at(indices: NDArray[np.int32], values: NDArray[Any], line: NDArray[Any]) -> None:
    """Add ``values`` to the columns ``indices`` of ``line``."""
    for k in range(values.size):
        line[np.uint64(indices[k])] += values[k]


@numba.njit(**VECTORS)  # type: ignore[untyped-decorator]
def add_scaled(values: NDArray[Any], factor: Any, sums: NDArray[Any]) -> None:
    """``sums += factor * values``."""
    for j in range(values.size):
        sums[j] += factor * values[j]
