"""Bytes in, an LZ4 block of their runs out: for byte planes that hold little else.

Of each run the first byte is written and the others repeat it. LZ4's own
search takes twice as long to find little more, and as long to be read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.store.runs import run_starts
from scvae_data.system.jit import ahead_of, compiled

__all__ = ["lz4_runs"]

SHORTEST = 4
"""Bytes that one match repeats at least."""
LAST_LITERALS, LAST_MATCH = 5, 12
"""So many bytes at the end are no match, and before so many the last one begins: readers rely on it."""
LONG = 15
"""A length from which on it does not fit into the half of a byte that it has."""
FEW = 12
"""Runs of so many bytes on average are worth it; in shorter ones LZ4 finds more."""


@ahead_of("process", "u1[::1]")
@compiled
def lz4_runs(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Code bytes by their runs; empty where these are too short to be worth it."""
    starts = run_starts(values, values.size // FEW)
    if not starts.size:
        return np.empty(0, np.uint8)
    out = np.empty(values.size + values.size // 255 + 16, np.uint8)
    at, coded = np.uintp(0), 0
    for run in range(starts.size):
        begin = end = values.size  # behind the last run: what is left, which nothing repeats
        if run < starts.size - 1:
            begin, end = starts[run] + 1, min(starts[run + 1], values.size - LAST_LITERALS)
            if end - begin < SHORTEST or begin > values.size - LAST_MATCH:
                continue
        n_literals, n_more = begin - coded, max(0, end - begin - SHORTEST)
        out[at] = min(n_literals, LONG) << 4 | min(n_more, LONG)
        at += np.uintp(1)
        if n_literals >= LONG:
            at = _put_length(out, at, n_literals)
        for k in range(n_literals):
            out[at + np.uintp(k)] = values[np.uintp(coded + k)]
        at += np.uintp(n_literals)
        if end > begin:
            out[at] = 1  # what is repeated lies one byte before
            out[at + np.uintp(1)] = 0
            at += np.uintp(2)
            if n_more >= LONG:
                at = _put_length(out, at, n_more)
            coded = end
    return out[:at]


@compiled
def _put_length(out: NDArray[np.uint8], at: Any, length: int) -> Any:
    """Write what the half of a byte does not hold of a length; return where it ends."""
    left = length - LONG
    while left >= 0:
        out[at] = min(left, 255)
        at += np.uintp(1)
        left -= 255
    return at
