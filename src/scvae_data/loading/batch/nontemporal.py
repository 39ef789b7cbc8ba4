"""A dense row in the cache in, the same row in memory out, past the caches.

A batch of dense rows is larger than the caches. An ordinary store first reads
the line it changes, and takes the place of lines that are needed again; a
*non-temporal* store writes whole lines and does neither. numba has no name for
it, so it is spelt out in LLVM's terms.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

__all__ = ["LINE", "STREAMED_BYTES", "aligned_zeros", "misplaced", "move_row", "settle"]

LINE = 16
"""float32 values in a cache line."""
STREAMED_BYTES = 8 << 20
"""Batches from this size on are streamed: a few of them exceed what the caches hold."""


@intrinsic  # type: ignore[untyped-decorator]
def _stream(_: Any, target: Any, at: Any, source: Any, start: Any) -> Any:
    """``target[at : at + LINE] = source[start : start + LINE]``, 1-d float32; the target begins a cache line."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        line = ir.VectorType(ir.FloatType(), LINE).as_pointer()
        places = []
        for kind, array, first in zip(signature.args[::2], arguments[::2], arguments[1::2], strict=True):
            data = context.make_array(kind)(context, builder, value=array).data
            places.append(builder.bitcast(builder.gep(data, [first]), line))
        store = builder.store(builder.load(places[1], align=4), places[0], align=4 * LINE)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def settle(_: Any) -> Any:
    """Make streamed stores visible to other threads before anything that follows."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def aligned_zeros(n: int) -> NDArray[np.float32]:
    """Zeros from the begin of a cache line on, room for ``n`` values wherever in the first line they start."""
    room = np.zeros(n + 2 * LINE, np.float32)
    return room[-misplaced(room, 0) % LINE :]


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def misplaced(x: NDArray[np.float32], at: int) -> int:
    """Values between the begin of a cache line and ``x[at]``."""
    return (np.int64(x.ctypes.data) // 4 + at) % LINE  # type: ignore[return-value]


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def move_row(line: NDArray[np.float32], x: NDArray[np.float32], at: int, streamed: bool) -> None:
    """``x[at : at + line.size] = line`` and ``line[:] = 0``; fastest if both lie alike in their cache lines."""
    n = line.size
    first = min(n, -misplaced(x, at) % LINE) if streamed else n
    n_lines = (n - first) // LINE
    _move(line[:first], x[at : at + first])
    for j in range(np.uint64(first), np.uint64(first + n_lines * LINE), np.uint64(LINE)):
        _stream(x, at + j, line, j)
        for k in range(j, j + np.uint64(LINE)):
            line[k] = 0
    first += n_lines * LINE
    _move(line[first:], x[at + first : at + n])


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def _move(source: NDArray[np.float32], target: NDArray[np.float32]) -> None:
    for j in range(source.size):
        target[j] = source[j]
        source[j] = 0
