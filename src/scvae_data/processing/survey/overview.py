"""Headers of all inputs in; lines on what their users may not expect of them, for the dry run and the summary, out."""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

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

    Names are alike that differ in case, separators or an ``id`` at the end.
    Columns that a file has side by side are not one.

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
    for (own, given), n in times.items():
        names = {*given, *(renamed.get(name, name) for name in own if name not in ACCESSION_COLUMNS)}
        kept = [name for name in names if wanted is None or name in wanted]
        apart |= {key for key, n_names in Counter(map(spelling, kept)).items() if n_names > 1}
        for name in kept:
            n_files[spelling(name)][name] += n
    groups = [counts for key, counts in n_files.items() if len(counts) > 1 and key not in apart]
    return [dict(sorted(counts.items(), key=lambda one: (-one[1], one[0]))) for counts in sorted(groups, key=min)]


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
