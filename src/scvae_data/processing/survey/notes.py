"""What was noticed in each file in; a line for each kind of note, warnings and the most frequent first, out."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from scvae_data.processing.facts import InputFacts
from scvae_data.readers.mtx import MtxReader
from scvae_data.readers.mtx_folder import find_triple
from scvae_data.remote.location import is_remote
from scvae_data.wording import counted, named

__all__ = ["MOST_NOTES", "frequent_notes", "tell_by_kind", "tell_shared_cells"]

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


def tell_shared_cells(files: Sequence[InputFacts]) -> None:
    """Warn of matrices that have one file of barcodes: each of its cells is there once for each of them."""
    alike: defaultdict[tuple[Path, int], list[Path]] = defaultdict(list)
    for file in files:
        if file.format == MtxReader.format and not is_remote(file.path) and not Path(file.path).is_dir():
            alike[Path(file.path).parent, file.n_obs].append(Path(file.path))
    shared: defaultdict[Path, list[str]] = defaultdict(list)
    for paths in alike.values():
        for path in paths if len(paths) > 1 else ():
            shared[find_triple(path).barcodes].append(path.name)
    told = [(barcodes, names) for barcodes, names in sorted(shared.items()) if len(names) > 1]
    for barcodes, names in told[:MOST_NOTES]:
        log.warning(
            "%s have their cells from one file, %s: each cell is there once for each matrix; give the matrix that is "
            "meant, or each its own barcodes", named(names), barcodes,
        )  # fmt: skip
    if len(told) > MOST_NOTES:
        log.warning("… and %s of barcodes of several matrices", counted(len(told) - MOST_NOTES, "more file"))


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
