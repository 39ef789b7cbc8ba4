"""What was noticed in each file in; a line for each kind of note, warnings and the most frequent first, out."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from scvae_data.processing.facts import InputFacts
from scvae_data.wording import counted

__all__ = ["MOST_NOTES", "frequent_notes", "tell_by_kind"]

log = logging.getLogger(__name__)

MOST_NOTES = 12
# Notes of one kind differ in numbers, and in what stands in brackets.
VARIABLE = re.compile(r"\d[\d,.]*|\([^()]*\)")


def frequent_notes(files: Sequence[InputFacts]) -> list[str]:
    """Return each kind of note as the first file has it, and how many more files have one.

    Parameters
    ----------
    files
        In order of their names.
    """
    warnings = by_kind((file.source_file, text) for file in files for text in file.warnings)
    notes = by_kind((file.source_file, text) for file in files for text in file.notes)
    return [*(f"WARNING: {line}" for line in warnings), *notes]


def tell_by_kind(level: int, told: Sequence[tuple[str, str]]) -> None:
    """Log a line for each of the most frequent kinds of note; those of each file are for the level of debugging.

    Parameters
    ----------
    level
        That of the lines.
    told
        Files and what is told of each, in order of the files' names.
    """
    lines = by_kind(told)
    for line in lines[:MOST_NOTES]:
        log.log(level, "%s", line)
    if len(lines) > MOST_NOTES:
        more = counted(len(lines) - MOST_NOTES, "more kind")
        log.log(level, "… and %s of notes; hydra.verbose=%s tells them file by file", more, __name__)
    if not len(told) == len(lines) <= MOST_NOTES:
        for file, text in told:
            log.debug("%s: %s", file, text)


def by_kind(told: Iterable[tuple[str, str]]) -> list[str]:
    """Return each kind of text as the first file has it, and how many more files have one, the most frequent first."""
    of_kind: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for file, text in told:
        of_kind[VARIABLE.sub("#", text)].setdefault(file, text)
    lines = []
    for texts in sorted(of_kind.values(), key=lambda texts: (-len(texts), next(iter(texts.items())))):
        file, text = next(iter(texts.items()))
        more = f" and {counted(len(texts) - 1, 'more file')}" if len(texts) > 1 else ""
        lines.append(f"{file}{more}: {text}")
    return lines
