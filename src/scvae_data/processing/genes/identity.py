"""One gene table in; what its names say by themselves out: ids, symbols, genomes, and rows that name no gene.

docs/genes.md is these rules in words. What a symbol stands for is not asked
here: that takes the other files, and the reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Container, Sequence
from dataclasses import dataclass
from functools import cache

from scvae_data.processing.genes.names import (
    LEAST_OF_A_GENOME,
    clean_table,
    cleaned,
    number_beside,
    split_pair,
    unversioned,
    without_genome,
)
from scvae_data.processing.genes.reference import Reference, SymbolBook
from scvae_data.readers.base import GeneTable
from scvae_data.readers.gene_names import is_cut

__all__ = ["OTHER_SPECIES", "SEVERAL", "Identities", "identify", "originals", "row_numbers"]

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
MOST_ROWS = 1_000_000
"""No annotation has as many rows: a larger number is no row number."""
KNOWN_ENTREZ = 0.9
"""Of the numbers up to 2,000 four fifths are Entrez ids of human genes: row numbers do not come up to this."""


@dataclass(frozen=True)
class Identities:
    """What the rows of a gene table are called, cleaned; lists of length n_vars.

    Parameters
    ----------
    ids
        Their ids without version, empty where a row has none.
    symbols
        Their symbols, empty where a row has none.
    no_gene
        Rows that are no gene: ``"no name"``, ``"a date"`` or ``"other species"``.
    entrez
        Rows whose id is that of an Entrez id.
    genomes
        What stands before the names of a reference of several species.
    """

    ids: list[str]
    symbols: list[str]
    no_gene: dict[int, str]
    entrez: frozenset[int] = frozenset()
    genomes: tuple[str, ...] = ()


def identify(
    table: GeneTable, reference: Reference, book: SymbolBook | None = None, others: Collection[int] = ()
) -> Identities:
    """Read the names of a gene table.

    Parameters
    ----------
    reference
        Tells ids that do not look like Ensembl's, and Entrez ids.
    book
        Has symbols of genes that look like none, e.g. ``nan`` of the fly.
    others
        Rows of another species than the one that is kept.
    """
    clean = clean_table(table)
    names, symbols = clean.names.names, clean.called.names
    ids = [""] * len(names) if clean.ids is None else clean.ids.names
    genomes = clean.called.genomes or clean.names.genomes
    # Genes of two species may have one symbol.
    if not others and not genomes and clean.ids and (parts := clean.ids.ensembl_parts):  # most tables, read at once
        read_as = {symbol: bare_symbol(symbol, reference.is_id) for symbol in reference.like_ids(symbols)}
        found = [f"{letters}{digits}{mark}" for letters, digits, mark in parts]
        return Identities(found, [read_as.get(symbol, symbol) for symbol in symbols], {})
    keeps_genome = not others and several_genomes(symbols, genomes, of_one_species=book is not None)
    read = row_reader(reference, genomes, 2 * n_ids(ids, genomes, reference) > len(ids), keeps_genome)
    rows = [*map(read, ids, symbols, names)]
    if not others and all(gene_id for gene_id, _ in rows):
        return Identities([row[0] for row in rows], [row[1] for row in rows], {}, frozenset(), genomes)
    entrez = entrez_ids(rows, reference)
    for row in entrez:
        rows[row] = entrez[row], ""
    for row in others:
        rows[row] = "", ""
    there = {symbol for _, symbol in rows}
    own = book.current if book else ()
    no_gene = {
        row: kind
        for row, (gene_id, symbol) in enumerate(rows)
        if not gene_id and symbol not in own and (kind := no_name(symbol) or no_name(original(symbol, there)))
    }
    no_gene |= dict.fromkeys(others, OTHER_SPECIES)
    return Identities([row[0] for row in rows], [row[1] for row in rows], no_gene, frozenset(entrez), genomes)


@cache
def row_reader(
    reference: Reference, genomes: tuple[str, ...], ids_are_ensembl: bool, keeps_genome: bool
) -> Callable[[str, str, str], tuple[str, str]]:
    """Return what reads the id and the symbol out of a row's id, symbol and name; each distinct row is read once."""
    is_known = reference.is_id

    @cache
    def read(gene_id: str, full: str, name: str) -> tuple[str, str]:
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


@cache
def no_name(symbol: str) -> str:
    """Say what a text is that names no gene; empty if it may name one.

    >>> no_name("nan"), no_name("1-Mar"), no_name("Sep-02"), no_name("MARCH1")
    ('no name', 'a date', 'a date', '')
    """
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


def row_numbers(table: GeneTable, reference: Reference) -> list[int]:
    """Return the numbers that most rows of a table have instead of names, if they are not Entrez ids; else none."""
    found = identify(table, Reference())
    numbers = [] if any(found.ids) else numbers_of([cleaned(str(name)) for name in found.symbols])
    if not numbers or max(numbers) > MOST_ROWS:
        return []
    consecutive = len(numbers) > 1 and sorted(numbers) == list(range(min(numbers), min(numbers) + len(numbers)))
    known = sum(bool(reference.of_number(str(number))) for number in numbers)
    return numbers if consecutive or known < KNOWN_ENTREZ * len(numbers) else []


def entrez_ids(rows: Sequence[tuple[str, str]], reference: Reference) -> dict[int, str]:
    """Return the id of each row whose symbol is an Entrez id, or one of HGNC; a number among names may be one too."""
    numbers = {
        row: number
        for row, (gene_id, symbol) in enumerate(rows)
        if not gene_id and (number := number_of_database(symbol))
    }
    return {row: gene_id for row, number in numbers.items() if (gene_id := reference.of_number(number))}


def number_of_database(symbol: str) -> str:
    """Return the number that a name is, or has behind the name of a database; empty if it is no such name.

    >>> number_of_database("7157.0"), number_of_database("LOC7157"), number_of_database("HGNC:11998")
    ('7157', 'GeneID:7157', 'HGNC:11998')
    """
    if symbol[:1].isdigit():
        return match.group(1) if (match := NUMBER.fullmatch(symbol)) else ""
    match = NUMBER_OF_DATABASE.fullmatch(symbol)
    return f"{match.group(1).replace('LOC', 'GeneID:')}{match.group(2)}" if match else ""


@cache
def numbered(symbol: str) -> tuple[str, str, int]:
    """Return what stands before the number that made a symbol unique, the mark between, and the number.

    >>> numbered("TBCE-1"), numbered("TBCE")
    (('TBCE', '-', 1), ('', '', 0))
    """
    match = MADE_UNIQUE.fullmatch(symbol)
    return (match.group(1), symbol[len(match.group(1))], int(match.group(2))) if match else ("", "", 0)


def originals(symbols: Sequence[str], own: Container[str] = ()) -> list[str]:
    """Return what each symbol was before the symbols of a table were made unique.

    ``TBCE-1`` is the second ``TBCE`` of a table that has ``TBCE``; so is
    ``TBCE.1``, and the third has a 2 if there is a second.

    Parameters
    ----------
    own
        Symbols that are names of genes as they stand.

    Examples
    --------
    >>> originals(["TBCE", "TBCE-1", "NKX2-1"])
    ['TBCE', 'TBCE', 'NKX2-1']
    """
    there = set(symbols)
    marked = (symbol for symbol in there if not symbol.isalnum())
    changed = {symbol: base for symbol in marked if (base := original(symbol, there)) != symbol and symbol not in own}
    return [changed.get(symbol, symbol) for symbol in symbols] if changed else list(symbols)


def original(symbol: str, there: Collection[str]) -> str:
    """Return what a symbol was before it was made unique among those that are there."""
    base, mark, number = numbered(symbol)
    if base not in there or not number or (number > 1 and f"{base}{mark}{number - 1}" not in there):
        return symbol
    return base
