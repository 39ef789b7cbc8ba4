"""A folder in; the inputs below it, told apart by their names, and globs that name them out."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scvae_data.store import INDEX_FILE
from scvae_data.wording import counted

__all__ = ["InputsBelow", "find_inputs", "in_words", "is_matrix", "left_out", "patterns"]

MOST_NAMED = 3


@dataclass(frozen=True)
class InputsBelow:
    """Files below a folder that may be inputs, by their names, sorted.

    Parameters
    ----------
    h5ad
        ``*.h5ad``.
    h5
        ``*.h5``, which 10x HDF5 files are called; not those of a dataset directory.
    matrices
        ``*.mtx`` and ``*.mtx.gz``.
    hidden, empty
        Files that are no inputs: hidden ones of these names, as macOS leaves
        ``._SRX1.h5ad`` beside a file, and H5AD files without a byte.
    closed
        Folders that may not be opened.
    """

    h5ad: list[Path] = field(default_factory=list)
    h5: list[Path] = field(default_factory=list)
    matrices: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    empty: list[Path] = field(default_factory=list)
    closed: list[Path] = field(default_factory=list)


def find_inputs(folder: Path) -> InputsBelow:
    """Walk through a folder once, and through what its links lead to; no file is opened."""
    found = InputsBelow()
    for parent, names in folders_below(folder, found.closed):
        hides = any(part.startswith(".") for part in parent.relative_to(folder).parts)
        for path in (parent / name for name in names):
            if path.name.endswith(".h5ad"):
                of_kind = found.h5ad
            elif path.name.endswith(".h5") and INDEX_FILE not in names:
                of_kind = found.h5
            elif is_matrix(path.name):
                of_kind = found.matrices
            else:
                continue
            if hides or path.name.startswith("."):
                of_kind = found.hidden
            elif of_kind is found.h5ad and path.exists() and not path.stat().st_size:
                of_kind = found.empty
            of_kind.append(path)
    for paths in (found.h5ad, found.h5, found.matrices, found.hidden, found.empty, found.closed):
        paths.sort()
    return found


def folders_below(folder: Path, closed: list[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder with the names of its files, once: links are followed last, to where nothing else leads."""
    seen: set[tuple[int, int]] = set()
    waiting, links = [folder], list[Path]()
    while waiting or links:
        if not waiting:
            links.sort(reverse=True)
        parent = waiting.pop() if waiting else links.pop()
        try:
            status = parent.stat()
            entries = list(os.scandir(parent))
        except OSError:
            closed.append(parent)
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        inside = {entry.name: Path(entry.path) for entry in entries if Path(entry.path).is_dir()}
        for path in inside.values():
            (links if path.is_symlink() else waiting).append(path)
        yield parent, [entry.name for entry in entries if entry.name not in inside]


def is_matrix(name: str) -> bool:
    """Whether a file is a matrix of text by its name."""
    return name.lower().endswith((".mtx", ".mtx.gz"))


def in_words(h5: Sequence[Path], matrices: Sequence[Path]) -> str:
    """Say how many there are, e.g. ``"7 .h5 files and 1 matrix.mtx file"``; empty where there are none."""
    kinds = ((len(h5), ".h5 file"), (len(matrices), f"{matrix_name(matrices)} file"))
    return " and ".join(counted(n, kind) for n, kind in kinds if n)


def left_out(found: InputsBelow) -> str:
    """Say what is no input though it is called like one, e.g. ``"1 hidden file (._a.h5ad)"``; else ``""``."""
    kinds = ((found.hidden, "hidden file"), (found.empty, "empty file"), (found.closed, "closed folder"))
    parts = []
    for paths, kind in kinds:
        if paths:
            more = ", …" if len(paths) > MOST_NAMED else ""
            parts.append(f"{counted(len(paths), kind)} ({', '.join(path.name for path in paths[:MOST_NAMED])}{more})")
    return " and ".join(parts)


def patterns(h5: Sequence[Path], matrices: Sequence[Path]) -> list[str]:
    """Return a glob for the files of each kind, below the deepest folder that holds all of them."""
    return [pattern(paths, name) for paths, name in ((h5, "*.h5"), (matrices, f"*{matrix_name(matrices)}*")) if paths]


def matrix_name(matrices: Sequence[Path]) -> str:
    """How all of the matrices are called."""
    return "matrix.mtx" if all("matrix.mtx" in path.name for path in matrices) else ".mtx"


def pattern(paths: Sequence[Path], name: str) -> str:
    """Return one glob that matches all of ``paths``."""
    parents = {path.parent for path in paths}
    deep = () if len(parents) == 1 else ("**",)
    return str(Path(glob.escape(os.path.commonpath(parents)), *deep, name))
