"""Numbers in, words for people out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

__all__ = ["counted", "did_you_mean", "first_line", "named", "shown", "similar"]


def counted(n: int, noun: str) -> str:
    """Return a number with its noun in the singular or the plural.

    Examples
    --------
    >>> counted(1, "file"), counted(1200, "cell"), counted(2, "batch")
    ('1 file', '1,200 cells', '2 batches')
    >>> counted(2, "category"), counted(2, "day")
    ('2 categories', '2 days')
    """
    if n == 1:
        return f"1 {noun}"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{n:,} {noun[:-1]}ies"
    return f"{n:,} {noun}{'es' if noun.endswith('ch') else 's'}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error that says anything, else its kind."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def did_you_mean(close: Iterable[str], otherwise: str) -> str:
    """Return the question whether one of some names was meant, or what to say where none is close."""
    names = ", ".join(close)
    return f"did you mean {names}?" if names else otherwise


def named(names: Sequence[object], most: int = 5) -> str:
    """Return the first names, and how many more there are.

    Examples
    --------
    >>> named(["a", "b", "c", "d"], most=2), named([1, 2])
    ('a, b and 2 more', '1, 2')
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def similar(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known names that may be meant: those of the same letters, great or small, else those spelt alike.

    Examples
    --------
    >>> similar("nsun2", ["NSUN1", "NSUN2", "sun2"]), similar("NSUN", ["NSUN2", "GENE1"])
    (['NSUN2'], ['NSUN2'])
    """
    names = list(known)
    same = [one for one in names if one.casefold() == name.casefold()]
    return same[:most] or get_close_matches(name, names, n=most)


def shown(path: object) -> str:
    """Return a path as seen from the current directory where it lies below; an address in a store as it is."""
    if not isinstance(path, Path):
        return str(path)
    path = path.absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
