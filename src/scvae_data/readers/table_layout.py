"""The first lines of a table of counts in; its separator, header and columns of text and of numbers out."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scvae_data.errors import InputError
from scvae_data.readers.feature_table import HEADERS, split_rows
from scvae_data.readers.features import MEASURED
from scvae_data.readers.gene_names import ENSEMBL_GENE, are_numbers, may_name_genes
from scvae_data.readers.mtx_text import check_line_ends, open_text, reading_text
from scvae_data.readers.table_lines import is_running_number
from scvae_data.wording import counted

__all__ = ["BARCODE", "TableLayout", "decoded", "has_header", "is_of_cells", "read_layout", "tells_a_place"]

SEPARATORS = ("\t", ",", ";", " ")
SAMPLED_LINES = 50
LONG = 4
"""Columns of a table in long form, at most: gene, cell, count and a number of the row."""
MISSING = {"", "na", "nan", "null", "none", "#n/a"}
ROLES = {"bc_wells", "index", *(name for names in HEADERS.values() for name in names)}
"""More names of columns that are ids, symbols, types or names of cells."""
NAMELESS = {"", "x", "0", "1", "v1", "v2"}
"""What R and pandas write above a column that has no name."""
BARCODE = re.compile(r"(?<![A-Za-z])[ACGTN]{8,}(?![A-Za-z])")
FEWEST_BARCODES, MOST_OTHERS = 5, 0.2
"""So many columns called by barcodes, and so few called otherwise, tell that these are no cells."""
NAME_OF_ROW = re.compile(r"ENS[A-Z]*G\d{11}|(?<![A-Za-z])[ACGTN]{8,}(?![A-Za-z])")
"""An id or a barcode."""
PLACES = {
    *("chr", "chrom", "chromosome", "seqname", "seqnames", "start", "end", "stop", "strand", "length", "width"),
    *("genelength", "exonlength", "effectivelength", "txlength", "txlen", "transcriptlength", "gccontent", "pctgc"),
    *("entrez", "entrezid", "entrezgene", "entrezgeneid", "ncbigeneid", "ncbiid", "hgncid", "mgiid"),
}
"""Columns of numbers that say of a gene where it lies, how long it is or its number; in small letters alone."""
PLOTTED = re.compile(r"(tsne|umap|pca?)[_ -]\d+", re.IGNORECASE)
"""Columns of numbers that say where a cell lies in a picture."""


@dataclass(frozen=True)
class TableLayout:
    """What the lines of a table look like.

    Parameters
    ----------
    separator
        What stands between columns.
    n_above
        Lines above the first row: the header and what stands over it.
    header
        Name of each column, ``""`` for one of row names that has none.
    texts
        Columns that hold no counts: row names first.
    counts
        The others, without the running numbers that table writers put before every row.
    """

    separator: str
    n_above: int
    header: list[str]
    texts: list[int]
    counts: list[int]


def read_layout(path: Path, max_bytes: int) -> TableLayout:
    """Look at the first lines.

    Raises
    ------
    InputError
        ``empty`` if it has no word, ``not_single_cell`` if it is no table of numbers with names, ``unreadable`` if
        it is one that is not understood, ``unsafe`` if a line is longer than ``max_bytes``.
    """
    lines = _first_lines(path, max_bytes)
    if not any(line.strip() for line in lines):
        raise InputError(path, "empty", "a text without a word; copy it again")
    n_above = _lines_above(lines)
    separator, rows = _split(path, lines[n_above:])
    header, rows = rows[0], rows[1:]
    width = len(rows[0])
    columns = list(zip(*rows, strict=True))
    is_short = len(header) < width and any(columns[-1])  # as R writes it: row names have no name
    header = ["", *header] if is_short else [*header, ""][:width]
    first = _row_names(path, header, columns)
    described = [holds_no_counts(*column) for column in zip(header, columns, strict=True)]
    # Behind a separator at the end of lines is no column.
    texts = [first, *(i for i in range(first + 1, width) if described[i] and (header[i] or any(columns[i])))]
    counts = [i for i in range(first + 1, width) if not described[i]]
    if others := {counts[at] for at in _beside_barcodes([header[i] for i in counts])}:
        texts, counts = sorted({*texts, *others} - {first}), [i for i in counts if i not in others]
        texts.insert(0, first)
    _check_wide(path, header, columns, counts)
    if not counts:
        raise InputError(path, "not_single_cell", _why_no_counts(header, columns))
    _check_header(path, header[first], [header[i] for i in counts], is_short)
    return TableLayout(separator, n_above + 1, header, texts, counts)


def _check_wide(path: Path, header: Sequence[str], columns: Sequence[Sequence[str]], counts: Sequence[int]) -> None:
    """Refuse a table with a row for each gene of each cell, of which each row would be a gene."""
    cells = [name for name in header if is_of_cells(name)]
    genes = [name for name in header if name not in cells and may_name_genes(name) and not name[-1].isdigit()]
    recurs = len(counts) == 1 and len(columns) > 2 and 2 * len(set(columns[0])) < len(columns[0])
    if recurs or (cells and genes and len(header) <= LONG):
        raise InputError(
            path,
            "not_single_cell",
            f"a table in long form, with a row for each gene of each cell (columns {', '.join(header)}); write it with "
            "a column for each cell, as pandas.DataFrame.pivot or umi_tools count --wide-format-cell-counts do",
        )


def _why_no_counts(header: Sequence[str], columns: Sequence[Sequence[str]]) -> str:
    """Say why a table has no column of counts."""
    for name, values in zip(header, columns, strict=True):
        if value := next((value for value in values if re.fullmatch(r"\d+(,\d+)+", value)), ""):
            return (
                f"a table without a column of counts: column {name} holds {value!r}; write numbers without commas, "
                "with a point before decimals"
            )
    return "a table without a column of counts: all are text, or called as descriptions are; leave it out"


def is_number(text: str) -> bool:
    """Whether a field is a number, missing ones not counted."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _first_lines(path: Path, max_bytes: int) -> list[str]:
    lines: list[str] = []
    with reading_text(path), open_text(path) as file:
        while len(lines) < SAMPLED_LINES and (line := file.readline(max_bytes + 1)):
            if len(line) > max_bytes:
                raise InputError(path, "unsafe", f"a line is longer than input.max_table_bytes={max_bytes}; not read")
            if not lines and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise InputError(path, "unreadable", "a table in UTF-16; save it as UTF-8")
            check_line_ends(path, line)
            lines.append(decoded(line.removeprefix(codecs.BOM_UTF8) if not lines else line).rstrip("\r\n"))
    return lines


def decoded(text: bytes) -> str:
    """Text of names: UTF-8, or Latin-1, from before that was the rule."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _lines_above(lines: Sequence[str]) -> int:
    """How many lines stand over the header: empty ones, comments, and the one that tells Excel the separator."""
    n = 0
    while n < len(lines) - 1 and (
        not lines[n].strip() or re.fullmatch(r'"?sep=."?', lines[n]) or _is_comment(lines[n], lines[-1])
    ):
        n += 1
    return n


def _is_comment(line: str, row: str) -> bool:
    """Whether a line with ``#`` is none of the table's: a header would have its separators."""
    mark = max(SEPARATORS, key=row.count)
    return line.startswith("#") and not 0 < line.count(mark) >= row.count(mark) - 1


def _split(path: Path, lines: Sequence[str]) -> tuple[str, list[list[str]]]:
    """What separates columns, by which all rows have as many fields and the header as many, or one less."""
    found: dict[str, list[list[str]]] = {}
    lines = [line for line in lines if line.strip()]
    for separator in (mark for mark in SEPARATORS if mark in lines[-1]):
        with suppress(csv.Error):  # a field that is too long: not separated by this
            rows = [[field.strip() for field in row] for row in csv.reader(lines, delimiter=separator)]
            widths = {len(row) for row in rows[1:]}
            if len(widths) == 1 and 0 <= (width := widths.pop()) - len(rows[0]) <= 1 and width > 1:
                found[separator] = rows
    if not found:
        raise InputError(
            path,
            "not_single_cell",
            "a text file that is no table: lines have not the same number of columns by any of tab, comma, semicolon "
            "and blank; give a table of counts with a header",
        )
    separator = max(found, key=lambda mark: len(found[mark][1]))  # of equally many the first
    return separator, found[separator]


def holds_no_counts(name: str, values: Sequence[str]) -> bool:
    """Whether a column is text, or numbers that describe genes or cells by its name."""
    given = [value for value in values if value.lower() not in MISSING]
    is_text = not given or 2 * sum(map(is_number, given)) < len(given)
    return is_text or tells_a_place(name) or any(kind.fullmatch(name) for kind in (MEASURED, PLOTTED))


def tells_a_place(name: str) -> bool:
    """Whether a column is called as one of places, lengths or numbers of genes.

    >>> [tells_a_place(name) for name in ("Chr", "Entrez.Gene.ID", "gene_length", "lengthy")]
    [True, True, True, False]
    """
    return re.sub(r"[^a-z]", "", name.lower()) in PLACES and not re.search(r"\d", name)


def _beside_barcodes(names: Sequence[str]) -> set[int]:
    """Which of many columns are called otherwise than the others, all of which are called by barcodes."""
    others = {at for at, name in enumerate(names) if not BARCODE.search(name)}
    n_barcodes = len(names) - len(others)
    return others if n_barcodes >= FEWEST_BARCODES and len(others) <= MOST_OTHERS * n_barcodes else set()


def _row_names(path: Path, header: Sequence[str], columns: Sequence[Sequence[str]]) -> int:
    """The column that names rows: the first, or the second behind running numbers."""
    if len(columns) > 2 and is_running_number(columns[0]) and not any(map(is_number, columns[1])):
        return 1
    if any(map(is_number, columns[0])) and not _may_be_row_names(header[0], columns[0]):
        raise InputError(
            path,
            "not_single_cell",
            f"a table whose first column ({header[0]!r}: {', '.join(columns[0][:3])} …) holds counts, not names; write "
            "the table with its row names",
        )
    return 0


def _may_be_row_names(name: str, values: Sequence[str]) -> bool:
    """Whether numbers are names: they all differ, and nothing else, such as a gene, stands above them."""
    return len(set(values)) == len(values) and (not name or may_name_genes(name) or is_of_cells(name))


def is_of_cells(name: str) -> bool:
    """Whether a column is called as one of names of cells is."""
    return re.sub(r"[\W_]", "", name.lower()) in {
        *("cell", "cells", "cellid", "cellids", "cellindex", "cellnumber", "cellname", "cellnames"),
        *("cellbarcode", "cellbarcodes", "barcode"),
        *("barcodes", "obsnames", "well", "wells", "cb", "xc", "sample", "samples", "samplename", "sampleid"),
    }


def has_header(lines: Sequence[str]) -> bool:
    """Whether the first line names the columns of a table of genes or of cells, and is no row of it.

    >>> has_header(["gene_id,gene_name", "A,B"]), has_header(['"x"', '"A"']), has_header(["AAACCTGAG-1", "AAACGGGAG-1"])
    (True, True, False)
    """
    rows = [[name.lower() for name in row] for row in split_rows(lines[:2])]
    # Genes may be called gene1, gene2, …, as columns are.
    by_hand = names_columns(rows[0]) and not names_columns(rows[-1])
    told = [NAME_OF_ROW.search(line) is not None for line in lines[: SAMPLED_LINES + 1]]
    by_contrast = not told[0] and 2 * sum(told) > len(told)
    by_program = set(rows[0]) <= NAMELESS and not is_number(rows[-1][-1])
    return by_hand or by_contrast or by_program


def names_columns(row: Sequence[str]) -> bool:
    """Whether a field is called as columns of ids, symbols, types or names of cells are, in small letters."""
    names = [name for name in row if not ENSEMBL_GENE.fullmatch(name.upper())]
    return any(may_name_genes(name) or is_of_cells(name) or name in ROLES for name in names)


def _check_header(path: Path, first: str, names: Sequence[str], is_short: bool) -> None:
    """Refuse a first line that is a row of counts, or that lacks a name not of row names.

    Parameters
    ----------
    first
        What stands above the names of rows: in a row of counts a name, and numbers that may repeat behind it.
    """
    n_twice = len(names) - len(set(names))
    of_rows = first.lower()
    named = not of_rows or names_columns([of_rows]) or of_rows in NAMELESS
    if are_numbers(names) and (n_twice or not named):
        why = f"has {counted(n_twice, 'number')} twice" if n_twice else f"is {', '.join([first, *names[:3]])}"
        raise InputError(
            path,
            "not_single_cell",
            f"a table without a header: its first line {why}; write the names of its columns above it",
        )
    if is_short and not re.search(r"\d", names[0]) and (may_name_genes(names[0]) or is_of_cells(names[0])):
        raise InputError(
            path,
            "unreadable",
            f"the header has a name less than there are columns, and {names[0]!r} stands above numbers; add the name "
            "that is missing",
        )
