"""Matrix Market text: a path in, blocks of entries out, in bounded memory."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.readers.mtx_kernel import parse_entries

__all__ = ["MtxHeader", "check_line_ends", "open_text", "read_entries", "read_header", "reading_text"]

TEXT_BYTES = 4 * 2**20
"""Text parsed at once; some 400,000 entries."""
MAX_DIGITS = 18
"""Of a size; more do not fit into an int64."""
MIN_ENTRY_BYTES = 4
"""Shortest line of an entry, ``1 1`` and a line end (a pattern file)."""


@dataclass(frozen=True)
class MtxHeader:
    """First lines of a Matrix Market file."""

    n_rows: int
    n_columns: int
    nnz: int
    field: str
    """``"integer"``, ``"real"`` or ``"pattern"`` (values are 1)."""


@contextmanager
def reading_text(path: Path) -> Iterator[None]:
    """Turn what gzip raises on a damaged file into an :class:`InputError`."""
    try:
        yield
    except EOFError as error:
        raise InputError(path, "truncated", "the gzip file is cut short; copy it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(path, "unreadable", f"gzip cannot read it ({error}); copy it again") from error


def open_text(path: Path) -> BinaryIO:
    """Open a plain or gzip file for reading bytes; which of them is seen from its first bytes."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path, "rb") if is_gzip else path.open("rb"))


def check_line_ends(path: Path, line: bytes) -> None:
    """Refuse a text whose lines end as those of old Macs.

    Raises
    ------
    InputError
        ``unreadable``.
    """
    if b"\r" in line.rstrip(b"\r\n"):
        remedy = "write it with ends of today's, as tr '\\r' '\\n' < FILE does"
        raise InputError(path, "unreadable", f"its lines end in carriage returns alone; {remedy}")


def read_header(file: BinaryIO, path: Path) -> MtxHeader:
    """Read up to and including the size line.

    Raises
    ------
    InputError
        ``unreadable`` if it is not a general coordinate matrix of real numbers.
    """
    first = file.readline(1024)
    check_line_ends(path, first)
    banner = first.decode("latin-1").lower().split()
    if not banner or banner[0] != "%%matrixmarket":
        raise InputError(path, "not_single_cell", "not a Matrix Market file; give a 10x folder with matrix.mtx")
    if banner[1:3] != ["matrix", "coordinate"] or banner[3:] not in (
        ["integer", "general"],
        ["real", "general"],
        ["double", "general"],
        ["pattern", "general"],
        ["unsigned-integer", "general"],
    ):
        kind = " ".join(banner[1:])
        raise InputError(path, "unreadable", f"Matrix Market '{kind}'; write it as 'matrix coordinate integer general'")
    while line := file.readline(TEXT_BYTES):
        text = line.strip()
        if text and not text.startswith(b"%"):
            break
    sizes = line.split()
    if len(sizes) != 3 or not all(size.isdigit() and len(size) <= MAX_DIGITS for size in sizes):
        raise InputError(path, "truncated", "the size line of the matrix is missing; copy the file again")
    fields = {"double": "real", "unsigned-integer": "integer"}
    n_rows, n_columns, nnz = (int(size) for size in sizes)
    return MtxHeader(n_rows, n_columns, nnz, fields.get(banner[3], banner[3]))


def read_entries(
    path: Path,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """Rows, columns (from 0) and values of the entries, in file order, some 400,000 at a time.

    The arrays are reused: they hold until the next ones are asked for.

    Raises
    ------
    InputError
        ``truncated`` if entries are missing, ``unreadable`` if a line is not
        an entry or lies outside the matrix.
    """
    with reading_text(path), open_text(path) as file:
        header = read_header(file, path)
        capacity = TEXT_BYTES // MIN_ENTRY_BYTES + 1
        rows, columns = np.empty(capacity, dtype=np.int64), np.empty(capacity, dtype=np.int64)
        values = np.empty(capacity, dtype=np.float64)
        shape, has_value = (header.n_rows, header.n_columns), header.field != "pattern"
        n_read = 0
        for text in _whole_lines(file):
            n, bad_at = parse_entries(text, has_value, *shape, rows, columns, values)
            if bad_at >= 0:
                line = bytes(text[bad_at : bad_at + 60]).split(b"\n")[0].decode("latin-1")
                raise InputError(
                    path,
                    "unreadable",
                    f"entry {n_read + n + 1:,} is {line!r}, not a row, column and value inside "
                    f"{header.n_rows:,} × {header.n_columns:,}; copy the file again",
                )
            n_read += n
            if n_read > header.nnz:
                break
            yield rows[:n], columns[:n], values[:n]
        if n_read != header.nnz:
            raise _wrong_count(path, n_read, header.nnz)


def _wrong_count(path: Path, n_read: int, nnz: int) -> InputError:
    if n_read < nnz:
        return InputError(path, "truncated", f"only {n_read:,} of {nnz:,} entries are there; copy the file again")
    return InputError(path, "unreadable", f"more entries than the {nnz:,} of its header; write the file again")


def _whole_lines(file: BinaryIO) -> Iterator[NDArray[np.uint8]]:
    """Text in blocks that end with a line end; the last line may lack one."""
    rest = b""
    while data := file.read(TEXT_BYTES - len(rest)):
        data = rest + data
        cut = data.rfind(b"\n") + 1
        if cut == 0 and len(data) >= TEXT_BYTES:
            break  # no line is that long: left to the count of entries to report
        rest = data[cut:]
        if cut:
            yield np.frombuffer(data, dtype=np.uint8, count=cut)
    if rest.strip():
        yield np.frombuffer(rest + b"\n", dtype=np.uint8)
