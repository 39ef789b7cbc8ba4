"""Numbers in, words for people out."""

from __future__ import annotations

__all__ = ["counted"]


def counted(n: int, noun: str) -> str:
    """Return a number with its noun in the singular or the plural.

    Examples
    --------
    >>> counted(1, "file"), counted(1200, "cell"), counted(2, "batch")
    ('1 file', '1,200 cells', '2 batches')
    """
    ending = "" if n == 1 else "es" if noun.endswith("ch") else "s"
    return f"{n:,} {noun}{ending}"
