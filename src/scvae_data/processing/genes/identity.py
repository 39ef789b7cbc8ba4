"""One gene table in; what its names say by themselves out: ids, symbols, genomes, and rows that name no gene.

docs/genes.md is these rules in words. What a symbol stands for is not asked
here: that takes the other files, and the reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Container, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from scvae_data.processing.genes.names import (
    LEAST_OF_A_GENOME,
    CleanTable,
    cleaned,
    number_beside,
    split_pair,
    unversioned,
    without_genome,
)
from scvae_data.processing.genes.reference import Reference, SymbolBook
from scvae_data.processing.genes.texts import NO_TEXT, Numbers, OfTexts, Texts
from scvae_data.readers.gene_names import is_cut

__all__ = ["OTHER_SPECIES", "SEVERAL", "Identities", "NameReader", "row_numbers"]

OTHER_SPECIES = "other species"
MISSING = {"", "nan", "na", "n/a", "none", "null", "<na>", "#n/a", "#ref!", "#name?", "#value!", "#num!", "#div/0!"}
"""What programs write where there is no name, in lower case."""
MONTH = (
    "jan|feb|mar|mär|mrz|apr|may|mai|jun|jul|aug|sep|sept|oct|okt|nov|dec|dez|january|february|march|märz|april|june|"
    "juni|july|juli|august|september|october|oktober|november|december|dezember|mars|avr|déc|dic|ott"
)
DATE = re.compile(
    rf"(?:x?\d{{1,2}}[-/. ]+(?:{MONTH})\.?(?:[-/. ]+\d{{1,4}})?|(?:{MONTH})\.?[-/. ]+\d{{1,2}}(?:[-/., ]+\d{{1,4}})?"
    r"|x?\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[ t]\d{1,2}:\d{2}(?::\d{2}(?:\.0+)?)?)?"
    r"|x?\d{1,2}/\d{1,2}|x?\d{1,2}([-/.])\d{1,2}\1(?:\d{4}|\d{2}))",
    re.IGNORECASE,
)
"""A day and a month in any order, and as R writes them."""
NUMBER = re.compile(r"(\d+)(?:\.0+)?")
NUMBER_OF_DATABASE = re.compile(r"(LOC|GeneID:|HGNC:)(\d+)")
"""NCBI calls a gene without a symbol by its number, as LOC100507436."""
POWER = re.compile(r"\d+(?:[.,]\d+)?E\+?\d+", re.IGNORECASE)
"""What a spreadsheet makes of 2310009E13Rik, cut off behind the digits."""
DATE_NUMBERS = range(36_526, 54_789)
"""The years 2000 to 2049 as a spreadsheet counts days."""
MADE_UNIQUE = re.compile(r"(.+)[-._](\d{1,3})")
SEVERAL = "///"
DEPRECATED = re.compile("DEPRECATED[_-]")
"""What stands before probes that 10x leaves out of analyses, behind a genome if any; R writes a dash."""
MOST_ROWS = 1_000_000
"""No annotation has as many rows: a larger number is no row number."""
KNOWN_ENTREZ = 0.9
"""Of the numbers up to 2,000 four fifths are Entrez ids of human genes: row numbers do not come up to this."""


@dataclass(frozen=True)
class Identities:
    """What the rows of a gene table are called, cleaned, as numbers of texts; arrays of shape (n_vars,).

    Parameters
    ----------
    ids
        Their ids without version, `NO_TEXT` where a row has none.
    symbols
        Their symbols, `NO_TEXT` where a row has none.
    no_gene
        Rows that are no gene: ``"no name"``, ``"a date"``, ``"deprecated"`` or ``"other species"``.
    entrez
        Rows whose id is that of an Entrez id.
    genomes
        What stands before the names of a reference of several species.
    """

    ids: Numbers
    symbols: Numbers
    no_gene: dict[int, str]
    entrez: frozenset[int] = frozenset()
    genomes: tuple[str, ...] = ()


class NameReader:
    """Reads the names of gene tables; what a name says by itself is found out once.

    Parameters
    ----------
    reference
        Tells ids that do not look like Ensembl's, and Entrez ids.
    """

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.texts = Texts()
        self._beside_ids = self._told(self._read_beside_ids)
        self._ids_alone = self._told(lambda names: [gene_id for gene_id, _ in map(self._read_alone, names)])
        self._symbols_alone = self._told(lambda names: [symbol for _, symbol in map(self._read_alone, names)])
        self._of_numbers = self._told(self._read_numbers)
        self._bases = self._told(lambda names: ["" if name.isalnum() else base_of(name) for name in names])
        self._before = self._told(lambda names: [name_before(name) for name in names])
        self._kinds = self._told(lambda names: [no_name(name) for name in names])

    def _told(self, tell: Callable[[list[str]], list[str]]) -> OfTexts:
        return OfTexts(self.texts, lambda names: self.texts.numbers(tell(names)))

    def identify(self, clean: CleanTable, book: SymbolBook | None = None, others: Collection[int] = ()) -> Identities:
        """Read the names of a gene table.

        Parameters
        ----------
        book
            Has symbols of genes that look like none, e.g. ``nan`` of the fly.
        others
            Rows of another species than the one that is kept.
        """
        numbers = self.texts.numbers
        genomes = clean.called.genomes or clean.names.genomes
        # Genes of two species may have one symbol.
        alone = not others and not genomes
        if alone and clean.ids and clean.ids.letters:  # most tables
            return Identities(numbers(clean.ids.names), self._beside_ids.of(numbers(clean.called.names)), {})
        if alone and not clean.ids:
            called = numbers(clean.called.names)
            called = np.where(called == NO_TEXT, numbers(clean.names.names), called)
            ids, symbols = self._ids_alone.of(called), self._symbols_alone.of(called)
        else:
            rows = self._read_rows(clean, genomes, of_one_species=book is not None, others=others)
            ids, symbols = (numbers([row[side] for row in rows]) for side in (0, 1))
        without = np.flatnonzero(ids == NO_TEXT)
        ids[without] = self._of_numbers.of(symbols[without])
        entrez = without[ids[without] != NO_TEXT]
        symbols[entrez] = NO_TEXT
        no_gene = self._no_gene(ids, symbols, book.current if book else ()) | dict.fromkeys(others, OTHER_SPECIES)
        return Identities(ids, symbols, no_gene, frozenset(entrez.tolist()), genomes)

    def originals(self, symbols: Numbers, own: Container[str] = ()) -> Numbers:
        """Return what each symbol was before the symbols of a table were made unique.

        ``TBCE-1`` is the second ``TBCE`` of a table that has ``TBCE``; so is
        ``TBCE.1``, and the third has a 2 if there is a second.

        Parameters
        ----------
        own
            Symbols that are names of genes as they stand.
        """
        bases = self._bases.of(symbols)
        rows = np.flatnonzero(self.texts.among(symbols)[bases])
        before = self._before.of(symbols[rows])
        rows = rows[(before == NO_TEXT) | self.texts.among(symbols)[before]]
        rows = rows[[name not in own for name in self.texts.named(symbols[rows])]]
        found = symbols.copy()
        found[rows] = bases[rows]
        return found

    def _no_gene(self, ids: Numbers, symbols: Numbers, own: Container[str]) -> dict[int, str]:
        """Say of rows without an id which are no gene, and what they are."""
        rows = np.flatnonzero(ids == NO_TEXT)
        kinds = self._kinds.of(symbols[rows])
        kinds = np.where(kinds == NO_TEXT, self._kinds.of(self.originals(symbols)[rows]), kinds)
        rows, kinds = rows[kinds != NO_TEXT], kinds[kinds != NO_TEXT]
        found = zip(rows.tolist(), self.texts.named(kinds), self.texts.named(symbols[rows]), strict=True)
        return {row: kind for row, kind, symbol in found if symbol not in own}

    def _read_rows(
        self, clean: CleanTable, genomes: tuple[str, ...], *, of_one_species: bool, others: Collection[int]
    ) -> list[tuple[str, str]]:
        """Return the id and the symbol of each row, each of which may tell of the others."""
        names, symbols = clean.names.names, clean.called.names
        ids = clean.ids.names if clean.ids else [""] * len(names)
        keeps_genome = not others and several_genomes(symbols, genomes, of_one_species=of_one_species)
        ids_are_ensembl = 2 * n_ids(ids, genomes, self.reference) > len(ids)
        rows = [*map(row_reader(self.reference, genomes, ids_are_ensembl, keeps_genome), ids, symbols, names)]
        for row in others:
            rows[row] = "", ""
        return rows

    def _read_alone(self, name: str) -> tuple[str, str]:
        """Return the id and the symbol that a name is, where nothing stands beside it."""
        return row_reader(self.reference, (), False, False)("", name, name)

    def _read_beside_ids(self, symbols: list[str]) -> list[str]:
        """Return symbols that stand beside ids of Ensembl without what they repeat of them."""
        like_ids = self.reference.like_ids(symbols)
        return [bare_symbol(name, self.reference.is_id) if name in like_ids else name for name in symbols]

    def _read_numbers(self, names: list[str]) -> list[str]:
        """Return the id of each name that is an Entrez id, or one of HGNC; a number among names may be one too."""
        numbers = map(number_of_database, names)
        return [self.reference.of_number(number) if number else "" for number in numbers]


@cache
def row_reader(
    reference: Reference, genomes: tuple[str, ...], ids_are_ensembl: bool, keeps_genome: bool
) -> Callable[[str, str, str], tuple[str, str]]:
    """Return what reads the id and the symbol out of a row's id, symbol and name; each distinct row is read once."""
    is_known = reference.is_id

    @cache
    def read(gene_id: str, full: str, name: str) -> tuple[str, str]:
        if deprecated := next(filter(DEPRECATED.search, (gene_id, full, name)), ""):
            return "", deprecated
        symbol = full
        if genomes:
            gene_id, symbol = without_genome(gene_id, genomes), without_genome(full, genomes)
        if ids_are_ensembl and not is_known(gene_id):
            # A name among ids is a symbol, or both.
            text, gene_id = gene_id if symbol in ("", gene_id) else symbol, ""
        else:
            text = symbol or ("" if gene_id else without_genome(name, genomes))
        found, rest = (text, "") if is_known(text) else split_pair(text)
        if not found and rest:
            found, rest = with_number(rest, reference)
        gene_id = "" if is_cut(gene_id) else unversioned(gene_id or found)
        if rest == gene_id:  # of a database that the reference does not have
            rest = ""
        if SEVERAL in rest:
            rest = SEVERAL.join(parts_of_several(rest))
        return gene_id, full if keeps_genome and rest == symbol else rest

    return read


def parts_of_several(symbol: str) -> list[str]:
    """Return the distinct symbols that Affymetrix writes in one, where a probe is of several genes.

    >>> parts_of_several("HLA-A /// HLA-B///HLA-A"), parts_of_several("TP53")
    (['HLA-A', 'HLA-B'], ['TP53'])
    """
    return [part for part in dict.fromkeys(text.strip() for text in symbol.split(SEVERAL)) if part]


def with_number(text: str, reference: Reference) -> tuple[str, str]:
    """Return the id and the symbol of a symbol with its Entrez id; that of a symbol alone where the two do not agree.

    No symbol holds a bar: a number behind one is no part of it, whatever it counts.
    """
    symbol, number = number_beside(text)
    if not symbol:
        return "", text
    if gene_id := reference.of_symbol_and_number(symbol, number):
        return gene_id, symbol
    if "|" not in text:
        return "", text
    return (reference.of_number(number), "") if symbol == "?" else ("", symbol)


def bare_symbol(text: str, is_known: Callable[[str], bool]) -> str:
    """Return a symbol without the id beside it; empty where it is an id."""
    return "" if is_known(text) else split_pair(text)[1]


def n_ids(ids: Sequence[str], genomes: Sequence[str], reference: Reference) -> int:
    """Return how many texts are ids, with or without a genome before them."""
    bare = [without_genome(text, genomes) for text in ids] if genomes else ids
    return sum(map(reference.is_id, bare))


def several_genomes(symbols: Sequence[str], genomes: tuple[str, ...], of_one_species: bool) -> bool:
    """Whether the symbols of a table are of several genomes, one of which may have no name before its symbols.

    Those without one in a table of one species are spike-ins, tags and transgenes.
    """
    if len(genomes) != 1 or of_one_species:
        return len(genomes) > 1
    return sum(not symbol.startswith(genomes) for symbol in symbols) >= LEAST_OF_A_GENOME * len(symbols)


def no_name(symbol: str) -> str:
    """Say what a text is that names no gene; empty if it may name one.

    >>> no_name("nan"), no_name("1-Mar"), no_name("GRCh38_DEPRECATED_FOS"), no_name("MARCH1")
    ('no name', 'a date', 'deprecated', '')
    """
    if DEPRECATED.search(symbol):
        return "deprecated"
    if symbol.casefold() in MISSING or is_cut(symbol):
        return "no name"
    number = NUMBER.fullmatch(symbol)
    if DATE.fullmatch(symbol) or POWER.fullmatch(symbol) or (number and int(number.group(1)) in DATE_NUMBERS):
        return "a date"
    return ""


def numbers_of(names: Sequence[str]) -> list[int]:
    """Return the whole numbers among names, if most are numbers; else none."""
    found = [int(match.group(1)) for match in map(NUMBER.fullmatch, names) if match]
    return found if 2 * len(found) > len(names) else []


def row_numbers(table: CleanTable, reference: Reference) -> list[int]:
    """Return the numbers that most rows of a table have instead of names, if they are not Entrez ids; else none."""
    found = (reader := NameReader(Reference())).identify(table)
    numbers = [] if found.ids.any() else numbers_of([*map(cleaned, reader.texts.named(found.symbols))])
    if not numbers or max(numbers) > MOST_ROWS:
        return []
    consecutive = len(numbers) > 1 and sorted(numbers) == list(range(min(numbers), min(numbers) + len(numbers)))
    known = sum(bool(reference.of_number(str(number))) for number in numbers)
    return numbers if consecutive or known < KNOWN_ENTREZ * len(numbers) else []


def number_of_database(symbol: str) -> str:
    """Return the number that a name is, or has behind the name of a database; empty if it is no such name.

    >>> number_of_database("7157.0"), number_of_database("LOC7157"), number_of_database("HGNC:11998")
    ('7157', 'GeneID:7157', 'HGNC:11998')
    """
    if symbol[:1].isdigit():
        return match.group(1) if (match := NUMBER.fullmatch(symbol)) else ""
    match = NUMBER_OF_DATABASE.fullmatch(symbol)
    return f"{match.group(1).replace('LOC', 'GeneID:')}{match.group(2)}" if match else ""


def numbered(symbol: str) -> tuple[str, str, int]:
    """Return what stands before the number that made a symbol unique, the mark between, and the number.

    >>> numbered("TBCE-1"), numbered("TBCE")
    (('TBCE', '-', 1), ('', '', 0))
    """
    match = MADE_UNIQUE.fullmatch(symbol)
    return (match.group(1), symbol[len(match.group(1))], int(match.group(2))) if match else ("", "", 0)


def base_of(symbol: str) -> str:
    """Return what stands before the number that may have made a symbol unique; empty if there is none."""
    base, _, number = numbered(symbol)
    return base if number else ""


def name_before(symbol: str) -> str:
    """Return the symbol that a table has too if one with a number was made unique; empty for the first of them."""
    base, mark, number = numbered(symbol)
    return f"{base}{mark}{number - 1}" if number > 1 else ""
