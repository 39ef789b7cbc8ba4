"""A folder in; the inputs below it, told apart by their names, and globs that name them out."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scvae_data.store import INDEX_FILE
from scvae_data.wording import counted

__all__ = [
    "STORE_FILES",
    "InputsBelow",
    "find_inputs",
    "in_words",
    "is_matrix",
    "is_store",
    "kind_of",
    "left_out",
    "listed_inputs",
    "patterns",
]

MOST_NAMED = 3
ENDINGS = (".h5", ".hdf5", ".loom", ".h5mu", ".zarr", ".zarr.zip")
PACKED = re.compile(
    r"\.((h5ad|h5|hdf5|loom|h5mu|h5seurat)\.(gz|bz2|xz|zst)|mtx\.(bz2|xz|zst)|tar(\.\w+)?|tgz|tbz2?|txz|zip|7z|rar)$",
    re.IGNORECASE,
)
OF_R = re.compile(r"\.(rds|rda|rdata|h5seurat|qs2?)$", re.IGNORECASE)
"""Endings of what is not read as it is, and may hold counts."""
STORE_FILES = {".zgroup", ".zattrs", ".zarray", "zarr.json"}
"""Files at the top of a Zarr store, of format 2 or 3."""
TABLE = re.compile(
    r"(?P<word>counts?|dge|umis?|express(ion|ed)|expr|matrix|readcounts?)(?![a-z]).*?(?P<ending>\.(csv|tsv|txt)(\.gz)?)$",
    re.IGNORECASE,
)
OF_EXPERIMENT = re.compile(r"(?P<word>[SEDN]RX|GSM)\d+(?P<ending>\.(csv|tsv|txt)(\.gz)?)", re.IGNORECASE)
"""A table that is called by an accession and nothing else."""
NO_COUNTS = re.compile(r"barcode|feature|gene_?s?\.|meta|annot|summary|cells?\.", re.IGNORECASE)
"""Tables of text that stand beside counts."""


@dataclass(frozen=True)
class InputsBelow:
    """Files below a folder that may be inputs, by their names, sorted.

    Parameters
    ----------
    h5ad
        ``*.h5ad``.
    others
        What is read too, but not for its folder's sake: the 10x HDF5 files,
        matrices, loom and MuData files, Zarr stores and tables of counts, by
        the kind of their names.
    hidden
        Files that are no inputs: hidden ones of these names, as macOS leaves
        ``._SRX1.h5ad`` beside a file.
    closed
        Folders that may not be opened.
    packed, of_r
        Files by whose names they may hold counts once they are unpacked, or written by R in another format.
    broken
        Links to what is not there, which may have been folders.
    """

    h5ad: list[Path] = field(default_factory=list)
    others: dict[str, list[Path]] = field(default_factory=dict)
    hidden: list[Path] = field(default_factory=list)
    closed: list[Path] = field(default_factory=list)
    packed: list[Path] = field(default_factory=list)
    of_r: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)


def find_inputs(folder: Path) -> InputsBelow:
    """Walk through a folder once, and through what its links lead to; no file is opened."""
    found = InputsBelow()
    for parent, names in folders_below(folder, found.closed):
        tell_apart(found, parent, names, folder)
        links = [parent / name for name in names if kind_of(name) is None and not unread_of(name)]
        found.broken.extend(path for path in links if path.is_symlink() and not path.exists())
    return in_order(found)


def listed_inputs(names: Iterable[str]) -> InputsBelow:
    """Tell apart what is listed below a folder of a store; names and paths are those seen from the folder."""
    inside: dict[Path, list[str]] = {}
    for path in map(Path, names):
        inside.setdefault(path.parent, []).append(path.name)
    stores = {parent for parent, files in inside.items() if not STORE_FILES.isdisjoint(files)}
    found = InputsBelow()
    for parent, files in inside.items():
        if stores.isdisjoint(parent.parents):  # what a Zarr store is made of are no inputs
            tell_apart(found, parent, files, Path())
    return in_order(found)


def tell_apart(found: InputsBelow, parent: Path, names: list[str], folder: Path) -> None:
    """Add the files of one folder, of those below ``folder``, to what was found."""
    hides = any(part.startswith(".") for part in parent.relative_to(folder).parts)
    if not STORE_FILES.isdisjoint(names):
        names = [parent.name]
        parent = parent.parent
    for path in (parent / name for name in names):
        kind = kind_of(path.name)
        if kind is None and (unread := unread_of(path.name)):
            (found.packed if unread == "packed" else found.of_r).append(path)
        if kind is None or (kind == ".h5 file" and INDEX_FILE in names):  # chunks of a dataset directory
            continue
        if hides or path.name.startswith("."):
            found.hidden.append(path)
        elif kind != "H5AD file":
            found.others.setdefault(kind, []).append(path)
        else:
            found.h5ad.append(path)


def in_order(found: InputsBelow) -> InputsBelow:
    """Sort what was found."""
    for paths in (
        found.h5ad, *found.others.values(), found.hidden, found.closed, found.packed, found.of_r, found.broken,
    ):  # fmt: skip
        paths.sort()
    return found


def kind_of(name: str) -> str | None:
    """What a file or store is by its name, in any case; None for what is no input by its name.

    >>> [kind_of(name) for name in ("a.H5AD", "a.zarr.zip", "a.HDF5", "a_matrix.mtx.gz", "a.dge.txt.gz", "meta.csv")]
    ['H5AD file', '.zarr.zip file', '.HDF5 file', '.mtx file', '*dge*.txt.gz table', None]
    >>> [kind_of(name) for name in ("SRX1.csv", "SRX1_meta.csv", "GSM1.txt.gz")]
    ['*SRX*.csv table', None, '*GSM*.txt.gz table']
    """
    if name.lower().endswith(".h5ad"):
        return "H5AD file"
    if is_matrix(name):
        return ".mtx file"
    if ending := next((ending for ending in ENDINGS if name.lower().endswith(ending)), None):
        return f"{name[-len(ending) :]} file"  # as it is written: a glob is made of it
    match = TABLE.search(name) or OF_EXPERIMENT.fullmatch(name)
    return f"*{match['word']}*{match['ending']} table" if match and not NO_COUNTS.search(name) else None


def unread_of(name: str) -> str:
    """Whether a file that is no input by its name may be one of another kind: ``"packed"``, ``"of R"`` or ``""``.

    >>> [unread_of(name) for name in ("SRX1.h5ad.gz", "GSE1_RAW.tar", "pbmc.RData", "barcodes.tsv.gz", "._SRX1.rds")]
    ['packed', 'packed', 'of R', '', '']
    """
    for kind, pattern in (("packed", PACKED), ("of R", OF_R)):
        if pattern.search(name) and not name.startswith("."):
            return kind
    return ""


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
        if not STORE_FILES.isdisjoint(entry.name for entry in entries):
            inside = {}  # what a Zarr store is made of are no inputs
        for path in inside.values():
            (links if path.is_symlink() else waiting).append(path)
        yield parent, [entry.name for entry in entries if entry.name not in inside]


def is_store(folder: Path) -> bool:
    """Whether a folder is a Zarr store, or a node of one."""
    return any((folder / name).is_file() for name in STORE_FILES)


def is_matrix(name: str) -> bool:
    """Whether a file is a matrix of text by its name."""
    return name.lower().endswith((".mtx", ".mtx.gz"))


def in_words(others: Mapping[str, Sequence[Path]]) -> str:
    """Say how many there are, e.g. ``"7 .h5 files and 1 matrix.mtx file"``; empty where there are none."""
    return " and ".join(counted(len(paths), named(kind, paths)) for kind, paths in sorted(others.items()) if paths)


def left_out(found: InputsBelow) -> str:
    """Say what is no input though it is called like one, e.g. ``"1 hidden file (._a.h5ad)"``; else ``""``."""
    kinds = (
        (found.hidden, "hidden file"),
        (found.closed, "closed folder"),
        (found.packed, "packed file"),
        (found.of_r, "R file"),
        (found.broken, "broken link"),
    )
    parts = []
    for paths, kind in kinds:
        if paths:
            more = ", …" if len(paths) > MOST_NAMED else ""
            parts.append(f"{counted(len(paths), kind)} ({', '.join(path.name for path in paths[:MOST_NAMED])}{more})")
    return " and ".join(parts)


def patterns(others: Mapping[str, Sequence[Path]]) -> list[str]:
    """Return a glob for the files of each kind, below the deepest folder that holds all of them."""
    return [pattern(paths, glob_of(named(kind, paths))) for kind, paths in sorted(others.items()) if paths]


def named(kind: str, paths: Sequence[Path]) -> str:
    """A kind, told more exactly where all files are called alike."""
    return "matrix.mtx file" if kind == ".mtx file" and all("matrix.mtx" in path.name for path in paths) else kind


def glob_of(kind: str) -> str:
    """What matches the names of a kind.

    >>> [glob_of(kind) for kind in (".h5 file", "matrix.mtx file", "*dge*.txt.gz table")]
    ['*.h5', '*matrix.mtx*', '*dge*.txt.gz']
    """
    name = kind.rpartition(" ")[0]
    return name if name.startswith("*") else f"*{name}*" if ".mtx" in name else f"*{name}"


def pattern(paths: Sequence[Path], name: str) -> str:
    """Return one glob that matches all of ``paths``."""
    parents = {path.parent for path in paths}
    deep = () if len(parents) == 1 else ("**",)
    return str(Path(glob.escape(os.path.commonpath(parents)), *deep, name))
