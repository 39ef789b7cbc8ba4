"""Gene tables in; the species that each speaks of, and that of its rows, out.

Ids tell it, then genomes before names, then symbols; docs/genes.md is these
rules in words. A few genes of something else, such as spike-ins, viruses
and transgenes, are no species.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import cache

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from scvae_data.processing.genes.identity import KNOWN_ENTREZ, number_of_database, numbers_of
from scvae_data.processing.genes.names import (
    LEAST_OF_A_GENOME,
    CleanColumn,
    CleanTable,
    number_beside,
    species_of_genome,
    split_pair,
    without_genome,
)
from scvae_data.processing.genes.reference import Reference
from scvae_data.processing.settings.genes import common_name

__all__ = ["LEAST_KNOWN", "OTHER", "UNTOLD", "WANTED", "is_of", "judge", "row_codes", "species_of_rows", "told_species"]

SPECIES_OF_PREFIX = {
    "ENSG": "human",
    "ENSMUSG": "mouse",
    "ENSRNOG": "rat",
    "ENSDARG": "zebrafish",
    "ENSMMUG": "macaque",
    "ENSSSCG": "pig",
    "ENSCJAG": "marmoset",
    "ENSSASG": "",
}
"""By the letters of Ensembl's ids; those of a virus name no species."""
NUMBERED = r"\|\d|^(?:GeneID|HGNC):\d"
"""In names that have a number of a database, which is of one species alone."""
NO_SPECIES = ("ercc", "sars_cov_2")
"""What the reference has beside species."""
LEAST_KNOWN = 0.5
"""Share of a table's names that a species must know for its reference to be asked, and to call an id retired."""
LEAST_SHARE = 0.01
"""Share of a table's names from which on they are those of a species."""
LEAST_OF_SYMBOLS = 0.2
"""Share of a table's symbols that a second species alone must know: of one species few are known to another alone."""
FEWEST_SYMBOLS = 20
"""Fewer say nothing against the species of the run."""
LEAST_OWN = 5
"""Symbols that one species has and another one has not, from which on they are no accident."""
UNTOLD, WANTED, OTHER = range(3)
"""What a row of a table of several species is: of none that is told, of the one that is kept, of another one."""


@cache
def species_of_id(name: str) -> str:
    """Return the species of the Ensembl id in a name, by its letters; empty if there is none."""
    match = re.match(r"ENS[A-Z]*G(?=\d{11})", split_pair(name)[0])
    return species_of_prefix(match.group()) if match else ""


def species_of_prefix(letters: str) -> str:
    """Return the species of Ensembl's ids that begin with some letters; the letters where it is none of the known."""
    return SPECIES_OF_PREFIX.get(letters, letters)


def named_species(table: CleanTable, reference: Reference) -> list[str]:
    """Return the species of each row that has an id, or a genome before its name; empty for the others."""
    found = [""] * table.n_vars
    for column in dict.fromkeys(column for column in (table.ids, table.symbols, table.names) if column is not None):
        if len(column.letters) == 1:  # as in most tables
            told = [species_of_prefix(*column.letters)] * table.n_vars
        else:
            told = [""] * table.n_vars
            for row in np.flatnonzero(pc.match_substring(column.values, "ENS")).tolist():
                told[row] = species_of_id(column.names[row])
            for row in rows_to_ask(column, reference).tolist():
                told[row] = told[row] or species_by_name(column.names[row], column.genomes, reference)
        found = [known or species for known, species in zip(found, told, strict=True)] if any(found) else told
        if "" not in found:
            break
    return found


def rows_to_ask(column: CleanColumn, reference: Reference) -> NDArray[np.int64]:
    """Return the rows of a column whose names the reference may know, or that a genome may stand before."""
    if column.genomes:
        return np.arange(len(column.values))
    numbered = pc.match_substring_regex(column.values, NUMBERED)
    return np.flatnonzero(np.asarray(numbered) | (reference.places.rows(column.names) >= 0))


def species_by_name(name: str, genomes: Sequence[str], reference: Reference) -> str:
    """Return the species of an id, or of the genome before a name; empty if neither tells."""
    word = next((word for word in genomes if name.startswith(word)), "")
    bare = name.removeprefix(word)
    if species := species_of_id(bare) or reference.species_of_id(bare) or species_of_number(bare, reference):
        return "" if species in NO_SPECIES else species
    # One genome of no known name says nothing; beside another one it is a species of its own.
    return species_of_genome(word) or (word.rstrip("_-") if len(genomes) > 1 else "")


def species_of_number(name: str, reference: Reference) -> str:
    """Return the species of a gene that is called by a number of a database, or by a symbol and such a number."""
    symbol, number = number_beside(name)
    gene_id = reference.of_symbol_and_number(symbol, number) if symbol else ""
    if not gene_id and not name.isdigit():  # a bare number may be that of a row
        gene_id = reference.of_number(number_of_database(name))
    return reference.species_of_id(gene_id) if gene_id else ""


def species_of_numbers(symbols: Sequence[str], reference: Reference) -> str:
    """Return the species whose Entrez ids a table has for symbols; empty if it has others."""
    numbers = numbers_of(symbols)
    ids = [gene_id for number in numbers if (gene_id := reference.of_number(str(number)))]
    if not numbers or len(ids) < KNOWN_ENTREZ * len(numbers):
        return ""
    return Counter(map(reference.species_of_id, ids)).most_common(1)[0][0]


def told_species(table: CleanTable, reference: Reference) -> tuple[str, ...]:
    """Return the species that a table speaks of by its names alone, sorted: none, one, or several."""
    named = named_species(table, reference)
    votes = Counter(named)
    found = {name for name, n in votes.items() if name and n > LEAST_SHARE * table.n_vars}
    if found and votes[""] >= LEAST_OF_A_GENOME * table.n_vars:
        found.update(unnamed_species(table, named, reference))
    if found or table.symbols is None:
        return tuple(sorted(found))
    symbols = bare_symbols(table)
    if numbered := species_of_numbers(symbols, reference):
        return (numbered,)
    if mixed := species_of_symbols(symbols, reference):
        return mixed
    human, mouse = (sum(symbol.startswith(marks) for symbol in symbols) for marks in (("MT-", "MT."), ("mt-", "mt.")))
    by_case = {"human": human, "mouse": mouse}
    found = {name for name, n in by_case.items() if n and n >= LEAST_OF_SYMBOLS * max(human, mouse)}
    return (better_known(found.pop(), {*symbols} - {""}, reference),) if len(found) == 1 else tuple(sorted(found))


def better_known(species: str, symbols: Collection[str], reference: Reference) -> str:
    """Return the species that a table seems to be of, or one that knows more of its symbols.

    Other species write mitochondrial symbols as human or mouse do, and a program may have written all symbols in
    small letters. Most symbols of a primate, a rabbit or a pig are human: a few that are its own tell it, as a
    human table has many more of its own.
    """
    known = reference.symbol_species(symbols)
    best, n_best = reference.best_species(known)
    if best in (*NO_SPECIES, "") or species not in reference.species:
        return species
    of_best, of_species = (known[:, reference.species.index(name)] for name in (best, species))
    n_exact = int(of_species.sum())
    if n_best >= LEAST_KNOWN * len(symbols) and has_more_of_its_own(of_best, of_species):
        species = best
    folded = {symbol.casefold() for symbol in symbols}
    in_any_case = {
        name: np.array([symbol in reference.book(name).folded for symbol in folded])
        for name in sorted({species, best, "human", "mouse"} & {*reference.species})
    }
    first = max(in_any_case, key=lambda name: (in_any_case[name].sum(), name == species))
    n_more = int(in_any_case[first].sum()) - int(in_any_case[species].sum())
    many_more = n_exact < LEAST_KNOWN * len(symbols) and n_more >= LEAST_OF_SYMBOLS * len(symbols)
    return first if many_more or has_more_of_its_own(in_any_case[first], in_any_case[species]) else species


def has_more_of_its_own(known: NDArray[np.bool_], to_another: NDArray[np.bool_]) -> bool:
    """Whether of the symbols that one of two species alone knows most are of the first, and more than by accident."""
    return bool((known & ~to_another).sum() >= max(LEAST_OWN, 2 * (to_another & ~known).sum()))


def unnamed_species(table: CleanTable, named: Sequence[str], reference: Reference) -> tuple[str, ...]:
    """Return the species of the symbols that no genome stands before, in a table where one stands before others."""
    called = table.called
    if not called.genomes:
        return ()
    unnamed = {name for name, species in zip(called.names, named, strict=True) if name and not species}
    return knowing(unnamed, reference)


def bare_symbols(table: CleanTable) -> list[str]:
    """Return the symbols of a table without genomes."""
    symbols, genomes = table.called.names, table.called.genomes
    symbols = [without_genome(symbol, genomes) for symbol in symbols] if genomes else symbols
    if "|" not in "".join(symbols):  # one search is many times as fast as one a name
        return symbols
    return [number_beside(symbol)[0] or symbol if "|" in symbol else symbol for symbol in symbols]


def knowing(symbols: Collection[str], reference: Reference) -> tuple[str, ...]:
    """Return the species that knows most of some symbols, if it knows enough of them; else none."""
    found = reference.species_of(symbols, LEAST_KNOWN) if symbols else []
    return tuple(name for name in found if name not in NO_SPECIES)


def species_of_symbols(symbols: Sequence[str], reference: Reference) -> tuple[str, ...]:
    """Return the two species of a mixture, each of which knows many symbols that the other does not; else none."""
    known = reference.symbol_species(sorted({*symbols} - {""}))
    first, _ = reference.best_species(known)
    if not first:
        return ()
    of_first = known[:, reference.species.index(first)]
    second, n_alone = reference.best_species(known[~of_first])
    only_first = of_first & ~known[:, reference.species.index(second)]
    least = LEAST_OF_SYMBOLS * len(known)
    return tuple(sorted((first, second))) if min(n_alone, only_first.sum()) >= max(least, 2) else ()


def judge(names: Sequence[str], load: Callable[[str], CleanTable], reference: Reference) -> dict[str, tuple[str, ...]]:
    """Return the species of each table: by its names, else the only one of all tables, else by the symbols known."""
    species = {name: told_species(load(name), reference) for name in names}
    of_run = {one for found in species.values() for one in found}
    for name, found in species.items():
        if not found:
            symbols = {*bare_symbols(load(name))} - {""}
            likely = tuple(of_run) if len(of_run) == 1 else knowing(symbols, reference)
            if len(symbols) >= FEWEST_SYMBOLS:
                likely = tuple(better_known(one, symbols, reference) for one in likely)
            species[name] = likely
    return species


def is_of(species: Sequence[str], wanted: str) -> bool:
    """Whether a table speaks of a species, under any of its names; one that speaks of none may."""
    return not species or wanted in map(common_name, species)


def species_of_rows(table: CleanTable, species: Sequence[str], reference: Reference) -> list[str]:
    """Return the species of each row of a table of several; empty for rows of none of them.

    Rows whose names do not tell it are of the first of the species that
    knows their symbol.
    """
    books = {name: reference.book(name) for name in species}
    found = []
    for named, symbol in zip(named_species(table, reference), bare_symbols(table), strict=True):
        name = named or next((known for known, book in books.items() if symbol in book), "")
        found.append(name if name in books else "")
    return found


def row_codes(table: CleanTable, species: Sequence[str], wanted: str, reference: Reference) -> NDArray[np.uint8]:
    """Return whether each row of a table of several species is of the wanted one, of another one or of none told."""
    ranked = sorted(species, key=lambda name: common_name(name) != wanted)
    codes = {name: WANTED if common_name(name) == wanted else OTHER for name in ranked} | {"": UNTOLD}
    return np.array([codes[name] for name in species_of_rows(table, ranked, reference)], np.uint8)
