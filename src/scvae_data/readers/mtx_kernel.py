"""Compiled parser of Matrix Market entries: bytes in, rows, columns and values out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scvae_data.system.jit import compiled

__all__ = ["parse_entries"]

TAB, LINE_END, RETURN, SPACE, PLUS, MINUS, POINT = 9, 10, 13, 32, 43, 45, 46
ZERO, NINE = 48, 57
UPPER_E, UPPER_I, UPPER_N, LOWER_E, LOWER_I, LOWER_N = 69, 73, 78, 101, 105, 110
MAX_DIGITS = 10**17
"""Mantissas stop growing here, within int64; further digits only shift the exponent."""
MAX_EXPONENT = 10_000


@compiled
def _skip_blanks(text: NDArray[np.uint8], at: int) -> int:
    while text[at] == SPACE or text[at] == TAB or text[at] == RETURN:
        at += 1
    return at


@compiled
def _read_integer(text: NDArray[np.uint8], at: int) -> tuple[int, int]:
    """Digits at ``at``: their value (0 if there are none) and where they end."""
    value = 0
    while ZERO <= text[at] <= NINE and value < MAX_DIGITS:
        value = value * 10 + (text[at] - ZERO)
        at += 1
    return value, at


@compiled
def _read_digits(text: NDArray[np.uint8], at: int) -> tuple[int, int, int]:
    """Digits with or without a point: mantissa, power of ten, end."""
    digits = 0
    power = 0
    seen_point = False
    while ZERO <= text[at] <= NINE or text[at] == POINT:
        if text[at] == POINT:
            seen_point = True
        elif digits < MAX_DIGITS:
            digits = digits * 10 + (text[at] - ZERO)
            power -= int(seen_point)
        else:
            power += int(not seen_point)
        at += 1
    return digits, power, at


@compiled
def _read_number(text: NDArray[np.uint8], at: int) -> tuple[float, int]:
    """A number and where it ends; the end is ``at`` if there is none.

    A decimal is its mantissa over a power of ten, correctly rounded while
    they stay within 2**53 and 10**22.
    """
    start = at
    sign = 1.0
    if text[at] == MINUS or text[at] == PLUS:
        sign = -1.0 if text[at] == MINUS else 1.0
        at += 1
    if text[at] == LOWER_N or text[at] == UPPER_N:
        return np.nan, min(at + 3, text.shape[0] - 1)
    if text[at] == LOWER_I or text[at] == UPPER_I:
        return sign * np.inf, min(at + 3, text.shape[0] - 1)
    first_digit = at
    digits, power, at = _read_digits(text, at)
    if at == first_digit:
        return 0.0, start
    if text[at] == LOWER_E or text[at] == UPPER_E:
        at += 1
        minus = text[at] == MINUS
        if text[at] == MINUS or text[at] == PLUS:
            at += 1
        exponent, at = _read_integer(text, at)
        exponent = min(exponent, MAX_EXPONENT)
        power += -exponent if minus else exponent
    if power == 0:  # nearly always, and much faster
        return sign * digits, at
    if power < 0:
        return sign * (digits / 10.0 ** (-power)), at
    return sign * (digits * 10.0**power), at


@compiled
def parse_entries(
    text: NDArray[np.uint8],
    has_value: bool,
    n_rows: int,
    n_columns: int,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    values: NDArray[np.float64],
) -> tuple[int, int]:
    """Parse whole lines, each ``row column [value]`` with positions from 1.

    Returns
    -------
    n_entries, bad_at
        Entries written, and where the first line starts that is not an entry
        inside the matrix; −1 if all are.
    """
    n = 0
    at = 0
    while at < text.shape[0]:
        start = at
        at = _skip_blanks(text, at)
        if text[at] == LINE_END:  # an empty line
            at += 1
            continue
        row, at = _read_integer(text, at)
        column, at = _read_integer(text, _skip_blanks(text, at))
        value = 1.0
        if has_value:
            number_at = _skip_blanks(text, at)
            value, at = _read_number(text, number_at)
            if at == number_at:
                return n, start
        at = _skip_blanks(text, at)
        if text[at] != LINE_END or row < 1 or row > n_rows or column < 1 or column > n_columns:
            return n, start
        at += 1
        rows[n] = row - 1
        columns[n] = column - 1
        values[n] = value
        n += 1
    return n, -1
