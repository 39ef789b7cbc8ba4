"""A folder, or a matrix file, in; the three files that make a 10x matrix, and their lines, out."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from scvae_data.errors import InputError
from scvae_data.readers.folders import find_inputs, in_words, is_matrix, left_out, patterns
from scvae_data.readers.mtx_text import open_text, read_header, reading_text
from scvae_data.readers.table_lines import first_column
from scvae_data.system.hdf5_guard import DEFAULT_LIMITS
from scvae_data.wording import counted

__all__ = ["MtxTriple", "find_states", "find_triple", "names_of_matrix", "naming_matrix", "read_lines"]

# The usual names: these go together by what stands before them.
PART = re.compile(r"(?P<prefix>.*?)(?P<part>matrix\.mtx|barcodes?\.tsv|(?:features|genes?)\.tsv)(?:\.gz)?", re.DOTALL)
TABLE = re.compile(r"\.(tsv|txt|csv)(\.gz)?", re.IGNORECASE)
CELLS = re.compile(r"barcode|(?<![a-z])cells?(?![a-z])")
FEATURES = re.compile(r"feature|gene")
BOTH = re.compile(r"cells?_(x|by)_(genes?|features?)|count_matrix", re.IGNORECASE)
"""Names of matrices that speak of cells and genes."""
OF_ALEVIN = re.compile(r"(?P<sample>.*)quants_mat_(?P<side>rows|cols)\.txt(\.gz)?", re.DOTALL)
CELLS_FIRST = re.compile(r"cells?_(x|by)_|(?<![a-z])dge(?![a-z])|count_matrix|quants_mat", re.IGNORECASE)
OF_KALLISTO = re.compile(r"(?P<matrix>.+)\.(barcodes|genes(\.names)?)\.txt(\.gz)?", re.DOTALL)
STATE = re.compile(
    r"(?P<prefix>(.*[._-])?)(?P<state>spliced|unspliced|ambiguous|mature|nascent|cell|nucleus|total)\.mtx(\.gz)?",
    re.DOTALL,
)
"""Matrices of STARsolo's Velocyto, and of kallisto with nascent and mature transcripts."""
HASHED_BYTES = 2**20
NO_NAMES = re.compile(
    r"matri(x|ces)|mtx|tsv|txt|csv|gz|barcodes?|features?|genes?"
    r"|(?<![a-z])(all|cells?|metadata|dge|counts?|expression|ids?|rows|cols)"
    r"(?![a-z])"
)
"""What tells no sample from another."""


@dataclass(frozen=True)
class MtxTriple:
    """The three files of one 10x matrix."""

    matrix: Path
    barcodes: Path
    features: Path
    beside: tuple[str, ...] = ()
    """Names of other matrices of the folder, which are not meant."""

    @property
    def symbols(self) -> Path | None:
        """The file of symbols that kallisto writes beside that of ids."""
        name = self.features.name.replace("genes.txt", "genes.names.txt")
        path = self.features.with_name(name)
        return path if path != self.features and path.is_file() else None

    @property
    def has_cells_first(self) -> bool:
        """Whether rows of the matrix are cells by its name, which tells where there are as many genes as cells."""
        return CELLS_FIRST.search(self.matrix.name) is not None


def find_triple(path: Path) -> MtxTriple:
    """Files of the matrix in a folder, or beside a given matrix file.

    Names may share a prefix (``GSM123_matrix.mtx.gz``); a folder must hold
    one matrix only. Of other names (``cells_x_genes.mtx`` of kallisto,
    ``DGE.mtx`` of Parse, ``GSM1_matrix_s1.mtx``) those go together that say
    the same of the sample, and have as many lines as the matrix has rows or columns.

    Raises
    ------
    InputError
        ``not_single_cell`` if there is none, ``ambiguous`` if there are
        several, ``missing`` if one of the three files is.
    """
    folder = path if path.is_dir() else path.parent
    parts = _parts_by_prefix(folder)
    files = sorted(file for file in folder.iterdir() if not file.name.startswith(".") and file.is_file())
    if not path.is_dir():
        match = PART.fullmatch(path.name)
        found = parts.get(match["prefix"], {}) if match else {}
        return _usual(found | {"matrix": [path]}) or _matched(path, path, files)
    usual = [found["matrix"][0] for _, found in sorted(parts.items()) if "matrix" in found]
    matrices = usual or _matrices(files)
    if not matrices:
        raise InputError(path, "not_single_cell", _what_else(path))
    if len(matrices) > 1:
        named = ", ".join(file.name for file in matrices[:3]) + (", …" if len(matrices) > 3 else "")
        raise InputError(
            path,
            "ambiguous",
            f"the folder holds {len(matrices)} matrices ({named}); give one of the files, or all with "
            f"input.paths='[\"{patterns({'.mtx file': matrices})[0]}\"]'",
        )
    match = PART.fullmatch(matrices[0].name)
    triple = (match and _usual(parts[match["prefix"]])) or _matched(path, matrices[0], files)
    # Of a plain and a gzip copy only one is there.
    return replace(triple, beside=tuple(file.name for file in _matrices(files) if file != triple.matrix))


def find_states(path: Path) -> dict[str, Path]:
    """Matrices of one folder that hold the molecules of each state of splicing, by the state; nothing in others."""
    if not path.is_dir():
        return {}
    files = sorted(file for file in path.iterdir() if not file.name.startswith(".") and file.is_file())
    found = [(STATE.fullmatch(file.name), file) for file in _matrices(files)]
    states = {match["state"]: file for match, file in found if match}
    prefixes = {match["prefix"] for match, _ in found if match}
    is_whole = len(states) == len(found) > 1 and len(prefixes) == 1
    return states if is_whole else {}


def names_of_matrix(name: str) -> tuple[str, ...]:
    """What the matrix may be called that a file of barcodes or features goes with, by its name; nothing for others.

    >>> names_of_matrix("GSM1_barcodes.tsv.gz"), names_of_matrix("matrix.mtx"), names_of_matrix("barcodes.csv")
    (('GSM1_matrix.mtx', 'GSM1_matrix.mtx.gz'), (), ())
    """
    if (match := PART.fullmatch(name)) and match["part"] != "matrix.mtx":
        matrix = f"{match['prefix']}matrix.mtx"
    elif match := OF_ALEVIN.fullmatch(name):
        matrix = f"{match['sample']}quants_mat.mtx"
    elif match := OF_KALLISTO.fullmatch(name):
        matrix = f"{match['matrix']}.mtx"
    else:
        return ()
    return matrix, f"{matrix}.gz"


def naming_matrix(path: Path) -> Path:
    """The matrix file that a folder stands for, whose name tells the sample whichever is given; else the path."""
    return find_triple(path).matrix if path.is_dir() and not find_states(path) else path


def _what_else(folder: Path) -> str:
    """What a folder without a matrix of its own holds, and how to name it."""
    below = find_inputs(folder)
    if below.h5ad:
        return f"a folder with {counted(len(below.h5ad), 'H5AD file')} ({below.h5ad[0].name}, …); name the files"
    if seen := in_words(below.others):
        globs = ",".join(f'"{pattern}"' for pattern in patterns(below.others))
        return f"the folder holds no matrix.mtx itself and no H5AD file, but {seen}; give input.paths='[{globs}]'"
    beside = f", but {said}" if (said := left_out(below)) else ""
    return f"the folder holds neither matrix.mtx nor H5AD files{beside}; give a 10x folder, or files"


def _parts_by_prefix(folder: Path) -> dict[str, dict[str, list[Path]]]:
    parts: dict[str, dict[str, list[Path]]] = {}
    for file in sorted(folder.iterdir()):  # of a plain and a gzip copy the plain one sorts first
        match = PART.fullmatch(file.name)
        if match and not file.name.startswith(".") and file.is_file():
            kind = {"m": "matrix", "b": "barcodes"}.get(match["part"][0], "features")
            parts.setdefault(match["prefix"], {}).setdefault(kind, []).append(file)
    return parts


def _usual(found: dict[str, list[Path]]) -> MtxTriple | None:
    """The three files, if all have the usual names."""
    if len(found) < 3:
        return None
    matrix = _one_of("matrix", found["matrix"], found["matrix"][0])
    barcodes, features = (_one_of(kind, found[kind], matrix) for kind in ("barcodes", "features"))
    return MtxTriple(matrix, barcodes, features)


def _one_of(kind: str, files: Sequence[Path], matrix: Path) -> Path:
    """The first of several files of one name and kind, if all say the same, else the one that has the matrix's size.

    Raises
    ------
    InputError
        ``ambiguous`` if that leaves several.
    """
    said = [_said(kind, file, file.stat().st_mtime_ns) for file in files] if len(files) > 1 else [""]
    if len(set(said)) == 1:
        return files[0]
    fitting = [file for file in files if kind != "matrix" and _fits(matrix, file)]
    if len(fitting) == 1:
        return fitting[0]
    named = " and ".join(file.name for file in files)
    raise InputError(
        matrix.parent,
        "ambiguous",
        f"{named} differ, and which of them is meant cannot be told; leave one of them in the folder",
    )


@lru_cache(maxsize=1024)
def _said(kind: str, file: Path, _changed: int) -> str:
    """A hash of what a file says, packed or not: a matrix all of it, a table the names in its first column."""
    digest = hashlib.sha256()
    if kind == "matrix":
        with reading_text(file), open_text(file) as text:
            while data := text.read(HASHED_BYTES):
                digest.update(data)
    else:
        names = first_column(file, read_lines(file, DEFAULT_LIMITS.max_table_bytes))
        digest.update("\n".join(names).encode())
    return digest.hexdigest()


def _matched(path: Path, matrix: Path, files: Sequence[Path]) -> MtxTriple:
    """The matrix with the tables whose names are most like its own, and that have its numbers of rows and columns."""
    tables = [file for file in files if TABLE.search(file.name)]
    alone = len(_matrices(files)) == 1
    found: dict[str, Path] = {}
    for kind, name in (("barcodes", "barcodes.tsv"), ("features", "features.tsv or genes.tsv")):
        likeness = {file: _unlikeness(matrix, file, alone) for file in tables if _kind(file) == kind}
        candidates = [file for file, unlike in likeness.items() if unlike is not None]
        fitting = candidates if len(candidates) == 1 else [file for file in candidates if _fits(matrix, file)]
        least = min((likeness[file] or 0 for file in fitting), default=0)
        best = [file for file in fitting if likeness[file] == least]
        if not best:
            there = f" (there are {', '.join(map(repr, (file.name for file in likeness)))})" if likeness else ""
            raise InputError(path, "missing", f"{matrix.name} has no {name} of its own beside it{there}; add it")
        if len({file.name.removesuffix(".gz") for file in best}) > 1:
            named = ", ".join(file.name for file in best)
            raise InputError(
                path,
                "ambiguous",
                f"{matrix.name} goes with each of {named}; leave the one that belongs to it in the folder",
            )
        found[kind] = best[0]
    return MtxTriple(matrix, found["barcodes"], found["features"])


def _matrices(files: Sequence[Path]) -> list[Path]:
    """The matrices among sorted files; of a plain and a gzip copy the plain one."""
    named = {file.name.removesuffix(".gz"): file for file in reversed(files) if is_matrix(file.name)}
    return list(named.values())[::-1]


def _kind(file: Path) -> str:
    """Which table a file is by its name: ``"barcodes"``, ``"features"`` or ``""``."""
    name = BOTH.sub("", file.name).lower().replace("_", " ")
    if match := OF_ALEVIN.fullmatch(file.name):
        return "barcodes" if match["side"] == "rows" else "features"
    if "barcode" in name:
        return "barcodes"
    return "features" if FEATURES.search(name) else "barcodes" if CELLS.search(name) else ""


def _names(file: Path) -> set[str]:
    """What a file's name says of the sample."""
    name = BOTH.sub("", file.name).lower().replace("_", " ")
    return set(re.split(r"[\W_]+", NO_NAMES.sub(" ", name))) - {""}


def _unlikeness(matrix: Path, table: Path, alone: bool) -> int | None:
    """How many words only one of two names has; None where they speak of different samples.

    A table may serve several matrices, and say less; it says more only beside a matrix that is ``alone``.
    """
    ours, theirs = _names(matrix), _names(table)
    more, less = theirs - ours, ours - theirs
    if more and (less or not alone):
        return None
    return len(more) + len(less)


def _fits(matrix: Path, table: Path) -> bool:
    """Whether a table has as many lines as the matrix has rows or columns, with or without a header."""
    with reading_text(matrix), open_text(matrix) as file:
        header = read_header(file, matrix)
    n_lines = len(read_lines(table, DEFAULT_LIMITS.max_table_bytes))
    return bool({n_lines, n_lines - 1} & {header.n_rows, header.n_columns})


def read_lines(path: Path, max_bytes: int) -> list[str]:
    """Lines of a text file, plain or gzip, without empty ones at the end; a text above ``max_bytes`` is refused."""
    with reading_text(path), open_text(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InputError(path, "unsafe", f"holds more text than input.max_table_bytes={max_bytes}; it is not read")
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:  # names from before UTF-8 was the rule
        text = data.decode("latin-1")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines
