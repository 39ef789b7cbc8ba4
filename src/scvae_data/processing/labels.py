"""A value of any type in, the text that it is as a label out: one label is one text, however a file stores it.

A name of a column in, what it has in common with other spellings of it out.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from scvae_data.errors import InputError

__all__ = [
    "EXACT",
    "R_MISSING",
    "WRITTEN_MISSING",
    "as_label",
    "check_texts",
    "label",
    "look_alike",
    "number",
    "spelling",
]

EXACT = 2**53
"""Whole numbers up to here are exact as floats."""
R_MISSING = -(2**31)
"""The number behind R's missing integer, which programs take for one."""
WRITTEN_MISSING = (
    "", "nan", "NaN", "NAN", "<NA>", "NaT", "None", "NA", "N/A", "n/a", "#N/A", "NULL", "null", f"{R_MISSING}",
)  # fmt: skip
"""What programs write for a missing value where they make text of a column, or copy its numbers."""
LONGEST = 2.0**63
NUMBER = re.compile(r"[+-]?([0-9]+|([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?)")
WHOLE = re.compile(r"(-?[1-9][0-9]*|0)\.0")


def label(value: Any) -> str:
    """Return a value, not a missing one, as text.

    Whole numbers are written with their digits alone, whether they are
    integers or floats; booleans as ``True`` and ``False``; text stays as it is.

    Examples
    --------
    >>> [label(value) for value in (1, 1.0, "1", "1.10", 1.5, True, 2**60 + 1)]
    ['1', '1', '1', '1.10', '1.5', 'True', '1152921504606846977']
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real) and float(value).is_integer() and abs(float(value)) < LONGEST:
        return str(int(float(value)))
    return str(value)


def as_label(value: Any) -> str:
    """Return a value as text where text stands beside numbers or booleans.

    A text that spells a whole number as a float is written (``1.0``) is that
    number, and ``true`` and ``false`` in any case are the booleans. Any other
    text stays as it is.

    Examples
    --------
    >>> [as_label(value) for value in ("1.0", "TRUE", "1.10", "007", "1E2", "1.00")]
    ['1', 'True', '1.10', '007', '1E2', '1.00']
    """
    text = label(value)
    if WHOLE.fullmatch(text):
        return text[:-2]
    return text.capitalize() if text.lower() in ("true", "false") else text


def check_texts(path: object, what: str, texts: Sequence[str]) -> None:
    """Refuse a text that holds the character NUL: HDF5, where it would be written, ends texts there.

    Raises
    ------
    InputError
        Names the text.
    """
    if "\0" in "".join(texts):  # one search is many times as fast as one a text
        found = next(text for text in texts if "\0" in text)
        raise InputError(path, "unreadable", f"{what} hold the character NUL, in {found[:60]!r}; write them without")


def look_alike(labels: Iterable[str]) -> list[list[str]]:
    """Return the labels that differ in blanks, case or the encoding of letters alone, together, in their order.

    >>> look_alike(["D1", "D1 ", "d1", "D2"])
    [['D1', 'D1 ', 'd1']]
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for text in labels:
        found["".join(unicodedata.normalize("NFKC", text).casefold().split())].append(text)
    return [texts for texts in found.values() if len(texts) > 1]


def number(text: str) -> int | float:
    """Return the number that a text spells, as an integer where it is written as one.

    Raises
    ------
    ValueError
        It spells none, or one that 64 bits cannot hold.

    Examples
    --------
    >>> [number(text) for text in ("007", "-1.50", "1e3", "9007199254740993")]
    [7, -1.5, 1000.0, 9007199254740993]
    """
    if not NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is not a number")
    value = float(text) if set(text) & set(".eE") else int(text)
    if math.isinf(value) or (isinstance(value, int) and not -(2**63) <= value < 2**63):
        raise ValueError(f"{text!r} is larger than 64 bits hold")
    return value


def spelling(name: str) -> str:
    """Return what two names have in common that may be one.

    Examples
    --------
    >>> [spelling(name) for name in ("Cell.Type", "cell_type", "donorID", "id")]
    ['celltype', 'celltype', 'donor', 'id']
    """
    letters = re.sub(r"[\W_]+", "", name.casefold())
    return letters.removesuffix("id") or letters
