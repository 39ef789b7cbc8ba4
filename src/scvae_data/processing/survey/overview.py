"""Headers of all inputs in; lines on what their users may not expect of them, for the dry run and the summary, out."""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations

from scvae_data.calling import override
from scvae_data.processing.facts import InputFacts
from scvae_data.processing.labels import spelling
from scvae_data.processing.settings.inputs import ACCESSION_COLUMNS
from scvae_data.wording import counted, named

__all__ = ["columns_alike", "named_otherwise", "sources_of_counts", "tell_alike", "tell_missing"]

Row = tuple[str, str]
"""What a line is about, and what it says."""
MAIN_MATRICES = ("X", "matrix")
MOST_ALIKE = 5
LEAST_LETTERS = 6
"""Shorter names may differ by a letter without a mistake: ``age`` and ``page``."""


def named_otherwise(files: Sequence[InputFacts]) -> list[Row]:
    """Say how many experiments have a name that their file does not have; none, no line."""
    renamed = [file for file in files if file.named_otherwise]
    if not renamed:
        return []
    of = f"{len(renamed):,} of {counted(len(files), 'file')}"
    example = f"{renamed[0].source_file} is {renamed[0].accession}"
    return [
        ("named", f"{of} by a part of the name or by the folder, e.g. {example}; input=manifest names them otherwise")
    ]


def sources_of_counts(slots: Iterable[str]) -> list[Row]:
    """Say of how many files which matrix is taken; no line where it is the only one or ``X`` of all."""
    times = Counter(slots)
    if times.keys() <= set(MAIN_MATRICES):
        return []
    named = ", ".join(
        f"{slot} of {counted(n, 'file')}" for slot, n in sorted(times.items(), key=lambda one: (-one[1], one[0]))
    )
    return [("matrix", f"{named}; input.counts chooses another")]


def columns_alike(
    files: Sequence[InputFacts], renamed: Mapping[str, str], wanted: Collection[str] | None
) -> list[dict[str, int]]:
    """Return obs columns that may be one under several names: the files that have each, the most frequent name first.

    Names are alike that differ in case, separators or an ``id`` at the end, and those of `LEAST_LETTERS` letters
    or more that differ by one. Columns that a file has side by side are not one.

    Parameters
    ----------
    renamed
        What columns of the files are called, where not by their own name.
    wanted
        The columns that are kept; None for all.
    """
    times = Counter((file.obs_columns, tuple(file.obs_values)) for file in files)
    n_files: defaultdict[str, Counter[str]] = defaultdict(Counter)
    apart: set[str] = set()
    in_files = []
    for (own, given), n in times.items():
        names = {*given, *(renamed.get(name, name) for name in own if name not in ACCESSION_COLUMNS)}
        kept = [name for name in names if wanted is None or name in wanted]
        apart |= {key for key, n_names in Counter(map(spelling, kept)).items() if n_names > 1}
        in_files.append(set(map(spelling, kept)))
        for name in kept:
            n_files[spelling(name)][name] += n
    together = {key: {key} for key in n_files if key not in apart}
    for first, other in typed_alike(together):
        if not any(first in keys and other in keys for keys in in_files):
            joined = together[first] | together[other]
            together |= dict.fromkeys(joined, joined)
    sums = [sum((n_files[key] for key in keys), Counter()) for first, keys in together.items() if first == min(keys)]
    groups = [counts for counts in sums if len(counts) > 1]
    return [dict(sorted(counts.items(), key=lambda one: (-one[1], one[0]))) for counts in sorted(groups, key=min)]


def typed_alike(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of names that differ by one letter, as by a mistake in typing, sorted.

    Two such are equal where a letter is left out of one of them, or of each: so names are compared that have such a
    text in common.

    Examples
    --------
    >>> typed_alike(["celltype", "celtype", "donor1", "donor2", "age", "page", "tissue", "tisseu"])
    [('celltype', 'celtype'), ('tisseu', 'tissue')]
    """
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        if sum(map(str.isalpha, name)) >= LEAST_LETTERS:
            for text in {name, *(name[:at] + name[at + 1 :] for at, letter in enumerate(name) if letter.isalpha())}:
                alike[text].append(name)
    pairs = {pair for together in alike.values() for pair in combinations(together, 2)}
    return sorted(pair for pair in pairs if one_letter_apart(*pair))


def one_letter_apart(first: str, other: str) -> bool:
    """Whether one letter is added, left out, another one, or in the place of the next."""
    start = n_common(first, other)
    end = n_common(first[start:][::-1], other[start:][::-1])
    ours, theirs = first[start : len(first) - end], other[start : len(other) - end]
    swapped = len(ours) == 2 and ours == theirs[::-1]
    return (swapped or max(len(ours), len(theirs)) == 1) and (ours + theirs).isalpha()


def n_common(first: str, other: str) -> int:
    """How many characters two texts begin with that are the same."""
    return next(
        (at for at, (a, b) in enumerate(zip(first, other, strict=False)) if a != b), min(len(first), len(other))
    )


def tell_alike(groups: Sequence[Mapping[str, int]]) -> list[Row]:
    """Say which obs columns may be one, and what makes them so; none, no line."""
    lines = []
    for counts in groups[:MOST_ALIKE]:
        plain = [name for name in counts if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII)]
        called = plain[0] if plain else re.sub(r"\W+", "_", next(iter(counts)))
        others = [name for name in counts if name != called]
        found = ", ".join(f"{name} ({counted(n, 'file')})" for name, n in counts.items())
        remedy = shlex.quote(override("input.join_columns", {called: others}))
        lines.append(f"{found} may be one column; {remedy} makes it one")
    if more := [min(counts) for counts in groups[MOST_ALIKE:]]:
        lines.append(f"other columns have names alike too: {named(more)}")
    return [("columns", line) for line in lines]


def tell_missing(counts: Mapping[str, Mapping[str, int]], missing: Collection[str]) -> list[Row]:
    """Say which labels may stand for missing values, or do so by the settings; none, no line.

    Parameters
    ----------
    counts
        Column → text → number of cells.
    missing
        The texts that stand for a missing value.
    """
    ordered = sorted(
        ((n, column, text) for column, texts in counts.items() for text, n in texts.items()),
        key=lambda one: (-one[0], *one[1:]),
    )
    gone = [f'"{text}" in {column} ({counted(n, "cell")})' for n, column, text in ordered if text in missing]
    kept = [f'"{text}" in {column} ({counted(n, "cell")})' for n, column, text in ordered if text not in missing]
    rows = []
    if gone:
        rows.append(("missing", f"{named(gone)} mean a missing value (input.missing_labels)"))
    if kept:
        remedy = override("input.missing_labels", [*dict.fromkeys([*missing, *(text for _, _, text in ordered)])])
        rows.append(("labels", f"{named(kept)} stay labels; if they mean a missing value: {shlex.quote(remedy)}"))
    return rows
