"""Headers of all inputs in; lines on what their users may not expect of them, for the dry run and the summary, out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from scvae_data.processing.facts import InputFacts
from scvae_data.wording import counted

__all__ = ["named_otherwise", "sources_of_counts"]

Row = tuple[str, str]
"""What a line is about, and what it says."""
MAIN_MATRICES = ("X", "matrix")


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
