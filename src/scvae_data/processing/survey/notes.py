"""What was noticed in each file in; a line for each kind of note, warnings and the most frequent first, out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from scvae_data.processing.facts import InputFacts
from scvae_data.wording import counted

__all__ = ["frequent_notes"]

# Notes of one kind differ in numbers, and in what stands in brackets.
VARIABLE = re.compile(r"\d[\d,.]*|\([^()]*\)")


def frequent_notes(files: Sequence[InputFacts]) -> list[str]:
    """Return each kind of note as the first file has it, and how many more files have one.

    Parameters
    ----------
    files
        In order of their names.
    """
    example: dict[tuple[bool, str], tuple[str, str]] = {}
    n_files: Counter[tuple[bool, str]] = Counter()
    for file in files:
        texts = {(is_note, VARIABLE.sub("#", text)): text for is_note, text in told(file)}
        n_files.update(texts.keys())
        for kind, text in texts.items():
            example.setdefault(kind, (file.source_file, text))
    lines = []
    for kind in sorted(example, key=lambda kind: (kind[0], -n_files[kind], example[kind])):
        file_name, text = example[kind]
        more = f" and {counted(n_files[kind] - 1, 'more file')}" if n_files[kind] > 1 else ""
        lines.append(f"{'' if kind[0] else 'WARNING: '}{file_name}{more}: {text}")
    return lines


def told(file: InputFacts) -> list[tuple[bool, str]]:
    """Return what is told of a file, and of each whether it is a note, not a warning."""
    return [(False, text) for text in file.warnings] + [(True, text) for text in file.notes]
