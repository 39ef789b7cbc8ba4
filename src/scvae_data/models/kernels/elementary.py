"""Numbers in, exponentials and logarithms out, in loops that become vector instructions.

A compiler makes no vector instructions of a loop that calls the C library.
In float32 the functions are therefore polynomials on the bits of a number,
right to 2e-7 of its value (those of Cephes, Moshier 1989); in float64, which is there to check against, they
are those of the C library. Not-a-number comes out as it goes in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

__all__ = ["INLINED", "VECTORS", "exp", "like", "log", "log1p", "log1p_excess", "row_max", "softplus"]

# Products are added without rounding in between; sums keep their order, on which the corrections below depend.
VECTORS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
# A loop that calls a function becomes no vector instructions either.
INLINED: dict[str, Any] = {**VECTORS, "forceinline": True}

F = np.float32
SMALLEST = F(-87.0)  # its exponential is the least number of full precision: below it zero
LARGEST = F(88.0)
LOG2_E = F(math.log2(math.e))
ROUNDS = F(1.5 * 2**23)  # adding it leaves the nearest whole number in the last bits
LN2_HIGH, LN2_LOW = F(0.693359375), F(-2.12194440e-4)
FINITE = np.finfo(np.float32).max
SQRT_HALF_BITS = 0x3F3504F3


@intrinsic  # type: ignore[untyped-decorator]
def _bits(_: Any, x: Any) -> Any:
    """The bits of a float32 as an int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def _of_bits(_: Any, bits: Any) -> Any:
    """The float32 of the last 32 bits of an int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.trunc(arguments[0], ir.IntType(32)), ir.FloatType())

    return types.float32(types.int64), generate


@numba.njit(**INLINED)  # type: ignore[untyped-decorator]
def _exp(x: np.float32) -> Any:
    bounded = LARGEST if x > LARGEST else x
    shifted = bounded * LOG2_E + ROUNDS
    n = shifted - ROUNDS
    r = bounded - n * LN2_HIGH - n * LN2_LOW
    p = F(1.9875691500e-4)
    p = p * r + F(1.3981999507e-3)
    p = p * r + F(8.3334519073e-3)
    p = p * r + F(4.1665795894e-2)
    p = p * r + F(1.6666665459e-1)
    p = p * r + F(5.0000001201e-1)
    p = p * r * r + r + F(1)
    scaled = _of_bits(_bits(p) + (np.int64(_bits(shifted)) << 23))
    return F(0) if x < SMALLEST else scaled


@numba.njit(**INLINED)  # type: ignore[untyped-decorator]
def _log_near_one(f: np.float32, exponent: Any, lead: np.float32) -> Any:
    """``log((1 + f) * 2**exponent)`` for 1 + f between the roots of 1/2 and 2, with ``lead`` in place of its term f."""
    p = F(7.0376836292e-2)
    p = p * f + F(-1.1514610310e-1)
    p = p * f + F(1.1676998740e-1)
    p = p * f + F(-1.2420140846e-1)
    p = p * f + F(1.4249322787e-1)
    p = p * f + F(-1.6668057665e-1)
    p = p * f + F(2.0000714765e-1)
    p = p * f + F(-2.4999993993e-1)
    p = p * f + F(3.3333331174e-1)
    square = f * f
    return lead + (p * f * square + exponent * LN2_LOW - F(0.5) * square) + exponent * LN2_HIGH


@numba.njit(**INLINED)  # type: ignore[untyped-decorator]
def _log1p(x: np.float32) -> Any:
    exponent = (np.int64(_bits(F(1) + x)) - SQRT_HALF_BITS) >> 23
    scale = _of_bits((127 - exponent) << 23)
    f = x * scale + (scale - F(1))
    return _log_near_one(f, F(exponent), f)


@numba.njit(**INLINED)  # type: ignore[untyped-decorator]
def _log1p_excess(x: np.float32) -> Any:
    exponent = (np.int64(_bits(F(1) + x)) - SQRT_HALF_BITS) >> 23
    scale = _of_bits((127 - exponent) << 23)
    f = x * scale + (scale - F(1))
    share = x / (F(1) + x)
    # Of a small x, which is f itself, what it has above its share is the product of both.
    return _log_near_one(f, F(exponent), x * share if scale == F(1) else f - share)


@numba.njit(**INLINED)  # type: ignore[untyped-decorator]
def _log(x: np.float32) -> Any:
    exponent = (np.int64(_bits(x)) - SQRT_HALF_BITS) >> 23
    f = _of_bits(np.int64(_bits(x)) - (exponent << 23)) - F(1)
    found = _log_near_one(f, F(exponent), f)
    return found if x <= FINITE else x  # neither infinite nor not a number


@numba.njit(**VECTORS)  # type: ignore[untyped-decorator]
def _row_max(row: NDArray[np.float32]) -> Any:
    # Bits of floats, those of negative ones turned over, are ordered as the floats are; those of NaN are above all.
    bits, best = row.view(np.int32), np.int32(-(1 << 31))
    for j in range(bits.size):
        ordered = np.int32(bits[j] ^ ((bits[j] >> 31) & 0x7FFFFFFF))
        best = ordered if ordered > best else best
    return _of_bits(np.int64(best ^ ((best >> 31) & 0x7FFFFFFF)))


def exp(x: Any) -> Any:
    """``e**x``; in float32 zero below -87, and as of 88 above that."""
    return np.exp(x)


def log(x: Any) -> Any:
    """Natural logarithm of a positive number, in float32 above 1e-37."""
    return np.log(x)


def log1p(x: Any) -> Any:
    """``log(1 + x)`` for x ≥ 0."""
    return np.log1p(x)


def log1p_excess(x: Any) -> Any:
    """``log(1 + x) - x / (1 + x)`` for x ≥ 0, in float32 without cancellation."""
    return np.log1p(x) - x / (1 + x)


def row_max(row: NDArray[Any]) -> Any:
    """The largest number of a row."""
    return row.max()


def like(x: Any, value: float) -> Any:
    """``value`` in the type of the number ``x``; a bare literal would widen what it is added to."""
    return type(x)(value)


@overload(like, jit_options=INLINED, strict=False)  # type: ignore[untyped-decorator]
def _like(x: Any, value: float) -> Any:
    return (lambda x, value: np.float32(value)) if x == types.float32 else (lambda x, value: np.float64(value))


def _by_type(function: Callable[[Any], Any], narrow: Any, wide: Callable[[Any], Any]) -> None:
    """Have compiled code that calls ``function`` call ``narrow`` for float32, and for float64 ``wide``."""

    @overload(function, jit_options=INLINED, strict=False)  # type: ignore[untyped-decorator]
    def _chosen(x: Any) -> Any:
        return narrow.py_func if getattr(x, "dtype", x) == types.float32 else wide


_by_type(exp, _exp, lambda x: math.exp(x))
_by_type(log, _log, lambda x: math.log(x))
_by_type(log1p, _log1p, lambda x: math.log1p(x))
_by_type(log1p_excess, _log1p_excess, lambda x: math.log1p(x) - x / (1 + x))
_by_type(row_max, _row_max, lambda row: row.max())


@numba.njit(**INLINED)  # type: ignore[untyped-decorator]
def softplus(x: Any) -> Any:
    """``log(1 + exp(x))``."""
    positive = x if x > like(x, 0) else like(x, 0)
    return positive + log1p(exp(-abs(x)))
