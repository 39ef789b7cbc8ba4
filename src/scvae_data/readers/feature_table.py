"""Lines of features.tsv or genes.tsv in; ids, symbols and types of the features, by evidence over all lines, out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.readers.base import GeneTable
from scvae_data.readers.features import kind_of_type
from scvae_data.readers.gene_names import ENSEMBL_GENE, genes_from_features, looks_ensembl
from scvae_data.readers.table_lines import Row, Strings, fields_of, is_running_number
from scvae_data.wording import counted

__all__ = ["HEADERS", "FeatureTable", "make_features", "split_rows"]

SEPARATORS = ("\t", ",", ";")
# Types of two words: where blanks separate columns these belong together.
PHRASE = re.compile(
    r"\b(gene expression|(antibody|crispr guide|multiplexing|antigen) capture|chromatin accessibility)\b", re.IGNORECASE
)
PLACE = re.compile(
    r"(chr[\w.]+|\d+|X|Y|MT?|[+-]|NA|(GL|KI|JH)\d+[.v]\d|(GRC[a-z]*|hg|mm|rn|dan(Rer|io)?|T2T|refdata)[\w.-]*)", re.I
)
"""A chromosome, a position, a strand or the name of a genome."""
GAP = re.compile(r"[\s,;]")
MOST_TYPES = 100
"""Ensembl has some 40 biotypes; a column of more values is none of types."""
HEADERS = {
    "id": {"id", "ids", "gene_id", "gene_ids", "geneid", "ensembl", "ensembl_id", "ensembl_gene_id", "feature_id"},
    "symbol": {
        "symbol",
        "symbols",
        "name",
        "gene_name",
        "gene_names",
        "gene_symbol",
        "feature_name",
        "gene_short_name",
    },
    "type": {"type", "feature_type", "feature_types", "featuretype"},
}


@dataclass(frozen=True)
class FeatureTable:
    """Rows of features.tsv or genes.tsv; what a row lacks is ``""``."""

    ids: Strings
    symbols: Strings | None
    types: Strings | None

    def __len__(self) -> int:
        return len(self.ids)

    def genes(self, keep: NDArray[np.bool_]) -> GeneTable:
        """The kept rows as genes."""
        return genes_from_features(self.ids[keep], None if self.symbols is None else self.symbols[keep])


def make_features(path: Path, lines: Sequence[str], n_headers: int = 0) -> FeatureTable:
    r"""Find out which columns hold ids, symbols and types.

    Columns may be separated by tabs, commas, semicolons or blanks. A line
    with fewer columns than the others is a feature without a symbol or type.

    >>> table = make_features(Path("features.tsv"), ["MT-ND1\tGene Expression", "CD3\tAntibody Capture"])
    >>> table.ids.tolist(), table.symbols, table.types.tolist()
    (['MT-ND1', 'CD3'], None, ['Gene Expression', 'Antibody Capture'])

    Parameters
    ----------
    path
        The file, for messages.
    n_headers
        How many of the lines stand above the features.

    Raises
    ------
    InputError
        ``unreadable`` if it cannot be told what a line or column says.
    """
    rows = split_rows(lines)
    header, rows = [name.lower().replace(" ", "_") for row in rows[:n_headers] for name in row], rows[n_headers:]
    width = Counter(map(len, rows)).most_common(1)[0][0] if rows else 1
    whole = [row for row in rows if len(row) >= width]
    first = 1 if width > 1 and len(whole) == len(rows) and is_running_number([row[0] for row in whole]) else 0
    columns = [np.array([row[i] for row in whole], dtype=object) for i in range(first, width)]
    place = find_columns(path, columns, header[-len(columns) :] if len(header) >= len(columns) else [])
    layout = Layout(path, width, place, columns[place["id"]])
    values = {name: np.full(len(rows), "", dtype=object) for name in place}
    for number, row in enumerate(rows):
        line = number + n_headers + 1
        fields = row[first:] if len(row) == width else layout.fields_of(line, row[first:])
        if not fields[place["id"]]:
            raise InputError(path, "unreadable", f"line {line} of {path.name} names no feature; add its name")
        for name, position in place.items():
            values[name][number] = fields[position]
    symbols = values.get("symbol")
    if symbols is not None and 2 * np.count_nonzero(symbols == values["id"]) > len(rows):
        symbols = np.where(symbols == "", values["id"], symbols)
    return FeatureTable(values["id"], symbols, values.get("type"))


@dataclass(frozen=True)
class Layout:
    """What most lines of a table look like.

    Parameters
    ----------
    width
        Their columns.
    place
        Which of these hold ``id``, ``symbol`` and ``type``.
    ids
        The ids of whole lines.
    """

    path: Path
    width: int
    place: dict[str, int]
    ids: Strings

    @cached_property
    def by_ensembl(self) -> bool:
        """Whether ids are mostly of Ensembl."""
        return looks_ensembl(self.ids)

    @cached_property
    def has_gaps(self) -> bool:
        """Whether blanks or other separators are part of ids."""
        return any(GAP.search(name) for name in self.ids)

    def fields_of(self, line: int, row: Row) -> Row:
        """Fields of a line with more or fewer columns than the others, each where it belongs by what it holds."""
        types = [field for field in row[1:] if is_measured(field)]
        if len(row) > self.width and types and is_measured(row[self.place.get("type", 0)]):
            return row
        names = [field for field in row if field not in types]
        fields = [""] * self.width
        is_gene = not types or kind_of_type(types[0]) == "gene"
        clear = len(row) < self.width and names and len(types) <= 1 and (self.has_gaps or not GAP.search(names[0]))
        if not clear or (is_gene and self.by_ensembl and not ENSEMBL_GENE.fullmatch(names[0])):
            raise InputError(
                self.path,
                "unreadable",
                f"line {line} of {self.path.name} has {counted(len(row), 'column')} ({', '.join(map(repr, row[:4]))}), "
                f"the others {self.width}, and which are missing cannot be told; write the line like the others",
            )
        for name, found in (("id", names[:1]), ("symbol", names[1:2]), ("type", types)):
            if found and name in self.place:
                fields[self.place[name]] = found[0]
        return fields


def split_rows(lines: Sequence[str]) -> list[Row]:
    """Fields of each line; what separates them is what most lines have."""
    for separator in SEPARATORS:
        if 2 * sum(separator in line for line in lines) > len(lines):
            return [fields_of(line, separator) for line in lines]
    if 2 * sum(len(joined(line).split()) > 1 for line in lines) > len(lines):
        return [[field.replace("\0", " ").strip("\"'") for field in joined(line).split()] for line in lines]
    return [fields_of(line, "") for line in lines]


def joined(line: str) -> str:
    """The line with types of several words held together."""
    return PHRASE.sub(lambda match: match.group().replace(" ", "\\0"), line)


def is_measured(text: str) -> bool:
    """Whether a field says that a feature is a gene, or what else is measured beside genes."""
    return kind_of_type(text) in ("gene", "other")


def mostly(column: Strings, test: Callable[[str], object]) -> bool:
    """Whether more than half of the values pass."""
    return 2 * sum(n for text, n in Counter(column).items() if test(text)) > len(column)


def find_columns(path: Path, columns: Sequence[Strings], header: Sequence[str]) -> dict[str, int]:
    """Positions of ``id`` and, where there are such, ``symbol`` and ``type``; what they hold decides."""
    if len(columns) == 1:
        return {"id": 0}
    named = {role: i for i, name in enumerate(header) for role, names in HEADERS.items() if name in names}
    few = [i for i, column in enumerate(columns) if len(set(column)) <= MOST_TYPES]
    types = [i for i in few if mostly(columns[i], lambda text: kind_of_type(text) != "unknown")]
    place: dict[str, int] = {}
    if types:
        place["type"] = next((i for i in types if mostly(columns[i], is_measured)), types[0])
    elif "type" in named:
        place["type"] = named["type"]
    elif not header and len(columns) == 3 and not mostly(columns[2], PLACE.fullmatch):
        place["type"] = 2  # the third is the type by convention
    free = [i for i in range(len(columns)) if i not in {*types, *place.values()}]
    ensembl = [i for i in free if looks_ensembl(columns[i])]
    free = ensembl[:1] + [i for i in free if i not in ensembl]
    if not free:
        raise InputError(path, "unreadable", f"{path.name} has no column of names, only of types; add ids or symbols")
    place["id"] = free[0] if ensembl else named.get("id", named.get("symbol", free[0]))
    others = [i for i in free if i != place["id"] and not mostly(columns[i], PLACE.fullmatch)]
    symbol = named["symbol"] if named.get("symbol") in others else next(iter(others), None)
    if symbol is None:
        return place
    values = set(columns[symbol])
    if len(values) == 1 and len(set(columns[place["id"]])) > 2:
        raise InputError(
            path,
            "unreadable",
            f"column {symbol + 1} of {path.name} is {values.pop()!r} in every line, neither symbols nor a known type "
            "of features; write id, symbol and type (e.g. Gene Expression), or ids alone",
        )
    return place | {"symbol": symbol}
