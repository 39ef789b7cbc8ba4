"""Bytes in, where their runs begin out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scvae_data.system.jit import compiled, instruction

__all__ = ["run_starts"]

trailing_zeros = instruction("trailing_zeros")


@compiled
def run_starts(values: NDArray[np.uint8], most: int) -> NDArray[np.int64]:
    """Return where each run of equal bytes begins, and where the last one ends; int64, (runs + 1,).

    Parameters
    ----------
    most
        Of more runs than these nothing is returned, (0,).
    """
    begins = np.zeros((values.size + 7) // 8 * 8, np.uint8)
    for i in range(1, values.size):  # these loops become vector instructions
        begins[i] = values[i] != values[i - 1]
    n_runs = int(values.size > 0)
    for i in range(values.size):
        n_runs += begins[i]
    if n_runs > most:
        return np.empty(0, np.int64)
    starts = np.empty(n_runs + 1, np.int64)
    starts[0], starts[n_runs] = 0, values.size
    run = 1
    eights = begins.view(np.uint64)
    for k in range(eights.size):
        left = eights[k]
        while left:
            starts[run] = 8 * k + (np.int64(trailing_zeros(left)) >> 3)
            run += 1
            left &= left - np.uint64(1)
    return starts
