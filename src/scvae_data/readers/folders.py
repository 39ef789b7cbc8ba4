"""A folder in; the inputs below it, told apart by their names, and globs that name them out."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scvae_data.store import INDEX_FILE
from scvae_data.wording import counted

__all__ = ["InputsBelow", "find_inputs", "in_words", "patterns"]

H5, MATRIX = "*.h5", "*matrix.mtx*"


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
        ``*matrix.mtx`` and ``*matrix.mtx.gz``.
    """

    h5ad: list[Path] = field(default_factory=list)
    h5: list[Path] = field(default_factory=list)
    matrices: list[Path] = field(default_factory=list)


def find_inputs(folder: Path) -> InputsBelow:
    """Walk through a folder once; no file is opened."""
    found = InputsBelow()
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".h5ad"):
                found.h5ad.append(Path(parent, name))
            elif name.endswith(".h5") and INDEX_FILE not in names:
                found.h5.append(Path(parent, name))
            elif name.endswith(("matrix.mtx", "matrix.mtx.gz")):
                found.matrices.append(Path(parent, name))
    for paths in (found.h5ad, found.h5, found.matrices):
        paths.sort()
    return found


def in_words(h5: Sequence[Path], matrices: Sequence[Path]) -> str:
    """Say how many there are, e.g. ``"7 .h5 files and 1 matrix.mtx file"``; empty where there are none."""
    kinds = ((len(h5), ".h5 file"), (len(matrices), "matrix.mtx file"))
    return " and ".join(counted(n, kind) for n, kind in kinds if n)


def patterns(h5: Sequence[Path], matrices: Sequence[Path]) -> list[str]:
    """Return a glob for the files of each kind, below the deepest folder that holds all of them."""
    return [pattern(paths, name) for paths, name in ((h5, H5), (matrices, MATRIX)) if paths]


def pattern(paths: Sequence[Path], name: str) -> str:
    """Return one glob that matches all of ``paths``."""
    parents = {path.parent for path in paths}
    deep = () if len(parents) == 1 else ("**",)
    return str(Path(glob.escape(os.path.commonpath(parents)), *deep, name))
