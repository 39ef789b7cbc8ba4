"""Values in, whether they are counts out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.system.jit import ahead_of, compiled

__all__ = ["FAULTS", "fault_of", "first_fault", "looks_integral"]

FAULTS = {1: "not_finite", 2: "negative", 3: "fractional", 4: "too_large"}


@ahead_of("process", "f4[::1]", "f8[::1]")
@compiled
def first_fault(data: NDArray[np.floating[Any]]) -> tuple[int, int]:
    """Return (position, fault) of the first float that is no count, or (-1, 0).

    Faults: 1 not finite, 2 negative, 3 fractional, 4 above 2**32 - 1.
    """
    n_faults = 0
    for position in range(data.size):  # a loop without a way out becomes vector instructions
        value = data[position]
        n_faults += not (value >= 0 and value <= 4294967295.0 and value == np.floor(value))
    if not n_faults:
        return -1, 0
    for position in range(data.size):
        value = data[position]
        if not np.isfinite(value):
            return position, 1
        if value < 0:
            return position, 2
        if value > 4294967295.0:
            return position, 4
        if value != np.floor(value):
            return position, 3
    return -1, 0


def fault_of(data: NDArray[Any]) -> tuple[int, int]:
    """Return the position of the first value that is no count, and its fault as in `FAULTS`; 0 for none."""
    if data.dtype.kind in "ub" and data.dtype.itemsize <= 4:
        return -1, 0
    if data.dtype.kind in "iu":
        bad = np.flatnonzero((data < 0) | (data > 2**32 - 1))
        return (int(bad[0]), 2 if data[bad[0]] < 0 else 4) if bad.size else (-1, 0)
    position, fault = first_fault(data if data.dtype.itemsize >= 4 else data.astype(np.float32))
    return int(position), int(fault)


def looks_integral(data: Any) -> bool:
    """Whether values are finite, non-negative and whole."""
    if data.dtype.kind == "i":
        return bool((data >= 0).all())
    return bool(first_fault(data if data.dtype == np.float32 else data.astype(np.float64))[1] not in FAULTS)
