"""Texts in, a number for each distinct one out, and what is told by a text alone, found out once.

The tables of a corpus have tens of thousands of rows each, and share most of
their names: as numbers, whole columns are looked up and compared at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NO_TEXT", "Numbers", "OfTexts", "Texts", "grown"]

NO_TEXT = 0
"""Number of the empty text."""
UNTOLD = -2

Numbers = NDArray[np.int32]
"""Texts by their numbers, shape (n,)."""


class Texts:
    """A number for each text that comes, counted from `NO_TEXT` on.

    Examples
    --------
    >>> texts = Texts()
    >>> texts.numbers(["B", "", "A", "B"]), texts.names, texts.number("A"), len(texts)
    (array([1, 0, 2, 1], dtype=int32), ['', 'B', 'A'], 2, 3)
    """

    def __init__(self) -> None:
        self.names = [""]
        self._numbers = {"": NO_TEXT}

    def __len__(self) -> int:
        return len(self.names)

    def numbers(self, texts: Sequence[str]) -> Numbers:
        """Return the number of each text."""
        found = [*map(self._numbers.get, texts)]
        if None in found:
            new = [text for text in dict.fromkeys(texts) if text not in self._numbers]
            self._numbers.update(zip(new, range(len(self), len(self) + len(new)), strict=True))
            self.names += new
            found = [*map(self._numbers.get, texts)]
        return np.array(found, np.int32)

    def number(self, text: str) -> int:
        """Return the number of one text."""
        found = self._numbers.get(text)
        return int(self.numbers([text])[0]) if found is None else found

    def among(self, numbers: Numbers) -> NDArray[np.bool_]:
        """Return which of all texts are among some; the empty one never is."""
        there = np.zeros(len(self), bool)
        there[numbers] = True
        there[NO_TEXT] = False
        return there

    def named(self, numbers: Numbers) -> list[str]:
        """Return the texts of numbers."""
        return [*map(self.names.__getitem__, numbers.tolist())]


class OfTexts:
    """What is told by each text alone, as a number of at least -1: found out when it is asked for, and once.

    Parameters
    ----------
    texts
        The texts.
    tell
        What is told by some distinct ones.

    Examples
    --------
    >>> lengths = OfTexts(texts := Texts(), lambda some: map(len, some))
    >>> lengths.of(texts.numbers(["ACTB", "", "MT-ND1"]))
    array([4, 0, 6], dtype=int32)
    """

    def __init__(self, texts: Texts, tell: Callable[[list[str]], Iterable[int]]) -> None:
        self._texts, self._tell = texts, tell
        self._told = np.empty(0, np.int32)

    def of(self, numbers: Numbers) -> Numbers:
        """Return what each text tells."""
        self._told = grown(self._told, len(self._texts), UNTOLD)
        told = self._told[numbers]
        if (new := told == UNTOLD).any():
            some = np.unique(numbers[new])
            self._told[some] = [*self._tell(self._texts.named(some))]
            told = self._told[numbers]
        return told


def grown(values: NDArray[Any], n: int, fill: int = 0) -> NDArray[Any]:
    """Return values of at least ``n`` texts, those of new ones ``fill``; many at a time, as few are added each time."""
    if len(values) >= n:
        return values
    more = np.full(max(n, 2 * len(values)) - len(values), fill, values.dtype)
    return np.concatenate([values, more])
