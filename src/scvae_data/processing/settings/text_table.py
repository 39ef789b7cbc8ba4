"""A table that a person or a spreadsheet wrote as text in; its fields, as they are written, out.

Nothing is taken for a number, a date or a missing value: only an empty field is empty.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scvae_data.errors import ConfigError

__all__ = ["TextTable", "read_text", "read_text_table"]

log = logging.getLogger(__name__)

SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon"}
MOST_KNOWN = 100_000
LONGEST_HEADER = 100_000
"""Characters: a header line that is longer is none."""
# The mark of UTF-32 begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NOT_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f]")
# A blank between a closing quote and the separator, which Python's parser takes for a mistake.
AFTER_QUOTE = r'(?<=[^"]")[ \t]+(?={mark}|[\r\n]|$)'


@dataclass(frozen=True)
class TextTable:
    """The rows below the header line that are not blank.

    Parameters
    ----------
    columns
        Names of the columns, without blanks around them.
    rows
        The fields of each row, without blanks around them; ``""`` where a field is empty.
    lines
        Number of the line that each row ends on, from 1.
    """

    columns: list[str]
    rows: list[list[str]]
    lines: list[int]

    def column(self, name: str) -> list[str]:
        """Return the fields of a column."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


def read_text_table(path: Path, needed: Sequence[str]) -> TextTable:
    """Read a table of text, packed by gzip or not.

    The header line decides what separates columns: the comma, tab or
    semicolon by which it has the ``needed`` ones, written in any case.

    Raises
    ------
    ConfigError
        It is not a table, or how it is to be read cannot be decided; names the file and what to do.
    """
    lines = read_text(path).splitlines(keepends=True)
    n_before = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    told = re.match(r'"?sep=(.)"?\s*$', lines[n_before]) if n_before < len(lines) else None
    n_before += told is not None  # the line by which Excel is told the separator
    if n_before >= len(lines):
        raise ConfigError(f"{path} is empty; it needs a header line with {' and '.join(needed)}")
    mark = told[1] if told else separator_of(path, lines[n_before], needed)
    text = "".join(lines[n_before:])
    try:
        return table_of(path, text, mark, n_before, needed)
    except csv.Error:
        text = re.sub(AFTER_QUOTE.format(mark=re.escape(mark)), "", text)
    try:
        return table_of(path, text, mark, n_before, needed)
    except csv.Error as error:
        raise ConfigError(
            f"{path}: a quote is not closed, or stands inside a field ({error}); write a quote in a field twice"
        ) from error


def separator_of(path: Path, header: str, needed: Sequence[str]) -> str:
    """Return the separator by which a header line has the needed columns."""
    fields = {
        mark: spelled(next(parsed(header[:LONGEST_HEADER], mark, strict=False))[1], needed) for mark in SEPARATORS
    }
    fitting = [mark for mark, names in fields.items() if set(needed) <= set(names)]
    if fitting and all(len(fields[mark]) == len(needed) == 1 for mark in fitting):
        return fitting[0]
    if len(fitting) == 1:
        return fitting[0]
    names = max(fields.values(), key=len)
    if fitting:
        marks = " or ".join(SEPARATORS[mark] for mark in fitting)
        raise ConfigError(f"{path}: the header line may be separated by {marks}; use one of them")
    absent = " and ".join(repr(name) for name in needed if name not in names) or repr(needed[0])
    raise ConfigError(
        f"{path}: no column {absent} among {shortened(names)}; columns are separated by commas, semicolons or tabs, "
        "and named in the first line"
    )


def spelled(columns: Sequence[str], needed: Sequence[str]) -> list[str]:
    """Return the names of columns, the needed ones as they are needed where they differ in case alone."""
    meant = {name.casefold(): name for name in needed if name not in columns}
    return [meant.get(name.casefold(), name) for name in columns]


def shortened(names: Sequence[str], most: int = 20, width: int = 60) -> str:
    """Join the first names, each cut where it is long."""
    words = [name if len(name) <= width else f"{name[:width]}…" for name in names[:most]]
    return ", ".join(words) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def table_of(path: Path, text: str, mark: str, n_before: int, needed: Sequence[str]) -> TextTable:
    """Parse a text; raises `csv.Error` where quotes are wrong."""
    rows = parsed(text, mark, strict=True)
    columns = spelled(next(rows)[1], needed)
    if absent := [name for name in needed if name not in columns]:
        raise ConfigError(f"{path}: no column {absent[0]!r} among {shortened(columns)}")
    while columns and not columns[-1]:  # what a spreadsheet leaves of a column that was cleared
        columns.pop()
    check_names(path, columns)
    table = TextTable(columns, [], [])
    known: dict[str, str] = {}  # words that recur are held once: a table of cells has millions of fields
    for line, fields in rows:
        if not any(fields):
            continue
        while len(fields) > len(columns) and not fields[-1]:
            fields.pop()
        if len(fields) != len(columns):
            raise ConfigError(
                f"{path}: line {n_before + line} has {len(fields)} fields and the header {len(columns)}; "
                "quote fields that hold the separator, and write empty fields too"
            )
        keep = known.setdefault if len(known) < MOST_KNOWN else known.get
        table.rows.append([keep(field, field) for field in fields])
        table.lines.append(n_before + line)
    return table


def check_names(path: Path, columns: Sequence[str]) -> None:
    """Refuse columns without a name, and two of one name."""
    if "" in columns:
        raise ConfigError(
            f"{path}: column {columns.index('') + 1} has no name in the header line; name it or remove it"
        )
    name, n = Counter(columns).most_common(1)[0]
    if n > 1:
        raise ConfigError(f"{path}: {n} columns are called {name!r}; rename all but one")


def parsed(text: str, mark: str, *, strict: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields of each row."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, skipinitialspace=True, strict=strict)
    for fields in reader:
        yield reader.line_num, [field.strip() for field in fields]


def read_text(path: Path) -> str:
    """Read a file of text, packed by gzip or not: UTF-8, UTF-16 or UTF-32, else Windows' Latin-1, which a warning says.

    Raises
    ------
    ConfigError
        It is not text.
    """
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if raw[:4] == b"PK\x03\x04":
        raise ConfigError(f"{path} is a workbook or an archive, not text; save the sheet as CSV UTF-8")
    encoding = encoding_of(raw)
    if encoding == "cp1252" and not raw.decode("utf-8", "ignore").isascii():
        raise ConfigError(f"{path} is UTF-8 in part and something else in part; save it as CSV UTF-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        where = f"byte {error.start} cannot be read as {encoding}"
        raise ConfigError(f"{path} is not text in an encoding that is known ({where}); save it as CSV UTF-8") from error
    if NOT_TEXT.search(text):
        raise ConfigError(f"{path} is not text; save it as CSV UTF-8")
    if encoding == "cp1252":
        word = next(word for word in re.findall(r"[^\s,;\"]+", text) if not word.isascii())
        log.warning("%s is not UTF-8; read as Latin-1 (cp1252), e.g. %s; save it as UTF-8 if that is wrong", path, word)
    return text


def encoding_of(raw: bytes) -> str:
    """Return what a file's bytes say of its encoding."""
    for mark, encoding in MARKS.items():
        if raw.startswith(mark):
            return encoding
    if b"\0" in raw[:2]:
        return "utf-16-le" if raw[1:2] == b"\0" else "utf-16-be"
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"
