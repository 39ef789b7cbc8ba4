"""A folder, or a matrix file, in; the three files that make a 10x matrix, and their lines, out."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from scvae_data.errors import InputError
from scvae_data.readers.folders import find_inputs, in_words, left_out, patterns
from scvae_data.readers.mtx_text import open_text, reading_text

__all__ = ["MtxTriple", "find_triple", "read_lines"]

PART = re.compile(r"(?P<prefix>.*?)(?P<part>matrix\.mtx|barcodes?\.tsv|(?:features|genes?)\.tsv)(?:\.gz)?", re.DOTALL)


@dataclass(frozen=True)
class MtxTriple:
    """The three files of one 10x matrix."""

    matrix: Path
    barcodes: Path
    features: Path


def find_triple(path: Path) -> MtxTriple:
    """Files of the 10x matrix in a folder, or beside a given matrix file.

    Names may share a prefix (``GSM123_matrix.mtx.gz``); a folder must hold
    one matrix only.

    Raises
    ------
    InputError
        ``not_single_cell`` if there is none, ``ambiguous`` if there are
        several, ``missing`` if one of the three files is.
    """
    folder = path if path.is_dir() else path.parent
    parts = _parts_by_prefix(folder)
    if not path.is_dir():
        match = PART.fullmatch(path.name)
        prefix = match["prefix"] if match else ""
        return _complete(path, prefix, parts.get(prefix, {}) | {"matrix": path})
    prefixes = sorted(prefix for prefix, found in parts.items() if "matrix" in found)
    if not prefixes:
        raise InputError(path, "not_single_cell", _what_else(path))
    if len(prefixes) > 1:
        raise InputError(
            path,
            "ambiguous",
            f"the folder holds {len(prefixes)} matrices ({', '.join(prefixes[:3])}, …); give one matrix.mtx file each",
        )
    return _complete(path, prefixes[0], parts[prefixes[0]])


def _what_else(folder: Path) -> str:
    """What a folder without a matrix of its own holds, and how to name it."""
    below = find_inputs(folder)
    if seen := in_words(below.h5, below.matrices):
        globs = ",".join(f'"{pattern}"' for pattern in patterns(below.h5, below.matrices))
        return f"the folder holds no matrix.mtx itself and no H5AD file, but {seen}; give input.paths='[{globs}]'"
    beside = f", but {said}" if (said := left_out(below)) else ""
    return f"the folder holds neither matrix.mtx nor H5AD files{beside}; give a 10x folder, or files"


def _parts_by_prefix(folder: Path) -> dict[str, dict[str, Path]]:
    parts: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.iterdir()):  # of a plain and a gzip copy the plain one sorts first and stays
        match = PART.fullmatch(file.name)
        if match and not file.name.startswith(".") and file.is_file():
            kind = {"m": "matrix", "b": "barcodes"}.get(match["part"][0], "features")
            parts.setdefault(match["prefix"], {}).setdefault(kind, file)
    return parts


def _complete(path: Path, prefix: str, found: dict[str, Path]) -> MtxTriple:
    expected = {"barcodes": "barcodes.tsv", "features": "features.tsv or genes.tsv"}
    for kind, name in expected.items():
        if kind not in found:
            raise InputError(path, "missing", f"{prefix}matrix.mtx has no {prefix}{name} beside it; add it")
    return MtxTriple(found["matrix"], found["barcodes"], found["features"])


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
