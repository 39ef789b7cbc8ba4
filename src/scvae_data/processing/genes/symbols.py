"""The gene tables of a run and a reference in, the gene that each row of a table is out.

A row that brings an id is that gene. Another one is the gene that its symbol
stands for: by ``genes.mapping``, by the files that have ids and symbols, by
the reference; docs/genes.md is these rules in words.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from scvae_data.processing.genes.annotations import Annotations
from scvae_data.processing.genes.identity import OTHER_SPECIES, SEVERAL, Identities, NameReader
from scvae_data.processing.genes.names import CleanTable, is_ensembl
from scvae_data.processing.genes.pair_counts import PairCounts
from scvae_data.processing.genes.reference import Reference, SymbolBook, loose
from scvae_data.processing.genes.species import LEAST_KNOWN, OTHER, row_codes
from scvae_data.processing.genes.texts import NO_TEXT, Numbers, OfTexts, grown
from scvae_data.processing.settings.genes import common_name

__all__ = ["APART", "BY_ID", "CROSSED", "LEFT_OUT", "NO_GENE", "WAYS", "Evidence", "Rows", "Symbol", "UnlikePairs"]

HOW = {
    "id": "the row has an id",
    "retired id": "its id is retired, and its symbol names one gene today",
    "entrez": "its name is an Entrez id, or one of HGNC",
    "crossed": "the row has an id, and the symbol of another gene, as many of its table have",
    "mapping": "genes.mapping says so",
    "files": "files that have ids and symbols say so",
    "order": "one of several genes of a symbol, told by the order they come in where files have ids",
    "primary": "of several genes of its symbol the one that the symbol stands for first of all",
    "reference": "the reference says so",
    "spelling": "so is its symbol in another case, or with dashes for dots",
    "previous": "an earlier symbol of the gene",
    "alias": "another name of the gene",
    "symbol": "nothing knows its symbol: it is a gene of its own",
    "ambiguous": "its symbol stands for several genes: it is a gene of its own",
    "apart": "another row of the table is or may be the same gene: it is a gene of its own",
    "marker": "called as an antibody is, and several of its table are: a gene of its own",
    "no name": "left out: it has no name",
    "a date": "left out: a spreadsheet made a date of its symbol",
    "deprecated": "left out: a probe that 10x leaves out of analyses",
    "other species": "left out: it is a gene of another species than genes.species",
}
"""How a row found its gene, the most certain first."""
WAYS = tuple(HOW)
"""The same by number."""
UNTOLD = -1
CROSSED = "crossed"
BY_ID = [WAYS.index(kind) for kind in ("id", "retired id", "entrez", CROSSED)]
APART = ("ambiguous", "apart", "marker")
MARKER = re.compile(r"(?:CD\d+[A-Za-z]*|HLA[-_.]D[RPQ]|HLA-A,B,C|Ig[ADGM]|TCR(?:[abgdVJ]\w*))(?:[-_. (/].*)?")
"""Names of proteins on the surface of cells that antibodies are called by, some of which are aliases of genes."""
FEWEST_MARKERS = 3
"""Rows of a table that are called so and no symbol of a gene, from which on they are no accident."""
COMPARED, LEAST_COMPARED = 500, 10
"""Rows of a table whose ids and symbols are compared; how many of them, if they are half, are refused."""
FEWEST_CROSSED, LEAST_CROSSED = 5, 0.02
"""Compared rows with the symbol of another gene from which on all rows are; which share of these is told.

Annotations of other years have up to half a percent of them.
"""
KEPT_TABLES = 512
"""Tables whose names are held once they are read, a quarter of a megabyte each."""
NO_GENE = ("no name", "a date", "deprecated")
LEFT_OUT = [WAYS.index(kind) for kind in (*NO_GENE, OTHER_SPECIES)]

Load = Callable[[str], CleanTable]


@dataclass(frozen=True)
class UnlikePairs:
    """Ids and symbols of a table that are of different genes.

    Parameters
    ----------
    share
        Of its rows, as far as they were compared.
    symbol, gene_id
        Those of the first of them.
    """

    share: float
    symbol: str
    gene_id: str

    def __str__(self) -> str:
        """Say what is wrong, and what to do."""
        return (
            f"{100 * self.share:.0f} % of the genes have the id of one gene and the symbol of another, e.g. "
            f"{self.gene_id} is called {self.symbol}; correct the column that is wrong, or leave it out"
        )


@dataclass(frozen=True)
class Symbol:
    """Ids that a symbol may stand for, and how that is known."""

    ids: tuple[str, ...]
    how: str


@dataclass(frozen=True)
class Rows:
    """The genes of one table's rows, texts as numbers; arrays of shape (n_vars,).

    Parameters
    ----------
    ids
        The id of the gene, `NO_TEXT` where none is known.
    symbols
        The symbol, as it was before names were made unique; `NO_TEXT` where a row has none.
    names
        What to call a gene without an id; `NO_TEXT` for rows that are left out.
    how
        A position in `WAYS` each, int8.
    """

    ids: Numbers
    symbols: Numbers
    names: Numbers
    how: NDArray[np.int8]


@dataclass
class Evidence:
    """What all tables say together.

    Parameters
    ----------
    tables
        The tables, in an order that does not depend on that of the files.
    load
        Reads a table by its name.
    mapping
        Symbol to its ids, from `GeneRules.mapping` and from a list of genes; it goes before the tables.
    reference
        Goes after them.
    species
        Those of each table, see `judge`.
    wanted
        The species of which genes are kept in tables of several; empty for all.
    unlike
        The tables whose ids and symbols are of different genes: they say nothing, and are not among ``names``.
    """

    tables: InitVar[Sequence[str]]
    load: Load
    mapping: Mapping[str, Sequence[str]]
    reference: Reference
    species: Mapping[str, Sequence[str]]
    wanted: str = ""
    codes: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    genomes: set[str] = field(default_factory=set)
    retired: dict[str, str] = field(default_factory=dict)
    order_of: dict[str, set[tuple[str, ...]]] = field(default_factory=dict)
    crossed: set[str] = field(default_factory=set)
    names: list[str] = field(default_factory=list)
    unlike: dict[str, UnlikePairs] = field(default_factory=dict)

    def __post_init__(self, tables: Sequence[str]) -> None:
        self.identities = lru_cache(maxsize=KEPT_TABLES)(self._identities)
        self.candidates = lru_cache(maxsize=None)(self._candidates)
        self.only_candidates = lru_cache(maxsize=None)(self._only_candidates)
        self.same_annotation = lru_cache(maxsize=1)(self._same_annotation)
        self.reader = NameReader(self.reference)
        self.texts = texts = self.reader.texts
        self._pairs = PairCounts(texts)
        self._places = OfTexts(texts, self.reference.places.rows)
        self._today = OfTexts(texts, lambda names: texts.numbers(self.reference.symbols(names)))
        self._loose = OfTexts(texts, lambda names: texts.numbers([*map(loose, names)]))
        self._measured = np.zeros(0, bool)
        unknown: defaultdict[str, set[str]] = defaultdict(set)
        for name in tables:
            if self.wanted and len(self.species[name]) > 1:
                self.codes[name] = row_codes(self.load(name), self.species[name], self.wanted, self.reference)
            self._collect(name, unknown)
            if name in self.unlike:
                self.codes.pop(name, None)
            else:
                self.names.append(name)
        self._find_retired(unknown)

    @cached_property
    def ids_of(self) -> Mapping[str, Mapping[str, None]]:
        """The ids beside each symbol, in the order in which they come; for tables that lack ids."""
        found: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for symbol, gene_id, _ in self._pairs:
            found[symbol][gene_id] = None
        return dict(found)

    @cached_property
    def _by_spelling(self) -> Mapping[str, set[str]]:
        """The symbols beside ids by what `loose` leaves of them; for tables that lack ids."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for symbol in self.ids_of:
            found[loose(symbol)].add(symbol)
        return found

    @cached_property
    def _annotations(self) -> Annotations:
        """The tables that have ids, and symbols of the same genes; for those that lack ids."""
        found = Annotations()
        for name in self.names:
            rows, bases = self.identities(name)
            if rows.ids.any() and name not in self.crossed:
                both = (bases != NO_TEXT) & (rows.ids != NO_TEXT)
                columns = (self.texts.named(column[both]) for column in (bases, rows.ids))
                found.add(name, [*zip(*columns, strict=True)])
        return found

    @cached_property
    def measured(self) -> frozenset[str]:
        """The ids of all tables."""
        return frozenset(self.texts.named(np.flatnonzero(self._measured).astype(np.int32)))

    @property
    def has_ids(self) -> bool:
        """Whether any table, or the mapping, has ids: genes are called by id, else by symbol."""
        return bool(self._measured.any() or self.mapping)

    def symbols_today(self, ids: Numbers) -> Numbers:
        """Return the symbol that the reference has of each id, `NO_TEXT` where it has none."""
        return self._today.of(ids)

    def is_unknown(self, ids: Numbers) -> NDArray[np.bool_]:
        """Return which are ids of tables that the reference does not have."""
        self._measured = grown(self._measured, len(self.texts))
        return np.asarray(self._measured[ids] & ~self._is_known(ids))

    def _is_known(self, ids: Numbers) -> NDArray[np.bool_]:
        """Return which ids the reference has."""
        return np.asarray(self._places.of(ids) >= 0)

    def _identities(self, name: str) -> tuple[Identities, Numbers]:
        """Return what a table's rows are called, and their symbols before these were made unique."""
        book = self._book(name)
        others = np.flatnonzero(self.codes[name] == OTHER).tolist() if name in self.codes else ()
        found = self.reader.identify(self.load(name), book, others)
        return found, self.reader.originals(found.symbols, book or ())

    def _book(self, name: str) -> SymbolBook | None:
        """Return what symbols stand for in the species of a table; None if it is of none, or of several."""
        of_table = self.species[name]
        if name in self.codes:
            of_table = [species for species in of_table if common_name(species) == self.wanted]
        return self.reference.book(of_table[0]) if len(of_table) == 1 else None

    def _collect(self, name: str, unknown: dict[str, set[str]]) -> None:
        """Note the ids of a table, the symbols beside them, and the order of ids of one symbol."""
        rows, bases = self.identities(name)
        crossed = self._check_pairs(name, bases, rows.ids)
        if isinstance(crossed, UnlikePairs):
            self.unlike[name] = crossed
            return
        self.genomes.update(rows.genomes)
        if not rows.ids.any():
            return
        self._measured = grown(self._measured, len(self.texts))
        self._measured[rows.ids] = True
        self._measured[NO_TEXT] = False
        not_known = self.is_unknown(rows.ids)
        if len(crossed):
            self.crossed.add(name)
            bases = bases.copy()
            bases[crossed] = NO_TEXT  # say nothing of what the symbol stands for
        places = self._pairs.add(bases, rows.ids)
        self._note_orders(bases, rows.ids, places)
        n_not_known, n_ids = (self.texts.among(ids).sum() for ids in (rows.ids[not_known], rows.ids))
        if n_not_known <= (1 - LEAST_KNOWN) * n_ids:
            pairs = np.flatnonzero(not_known & (bases != NO_TEXT))
            for symbol, gene_id in zip(*map(self.texts.named, (bases[pairs], rows.ids[pairs])), strict=True):
                if is_ensembl(gene_id):
                    unknown[gene_id].add(symbol)

    def _check_pairs(self, name: str, bases: Numbers, ids: Numbers) -> NDArray[np.int64] | UnlikePairs:
        """Return the rows of a table with the symbols of other genes than their ids, if many are; or that most are."""
        step = len(ids) // COMPARED + 1
        some, of_some = bases[::step], ids[::step]
        found, n_compared = self._crossed(name, some, of_some)
        if len(found) < FEWEST_CROSSED:
            return found[:0]
        if len(found) >= max(LEAST_COMPARED, n_compared / 2):
            [symbol], [gene_id] = self.texts.named(some[found[:1]]), self.texts.named(of_some[found[:1]])
            return UnlikePairs(len(found) / n_compared, symbol, gene_id)
        found, n_compared = self._crossed(name, bases, ids)
        return found if len(found) >= LEAST_CROSSED * n_compared else found[:0]

    def _crossed(self, name: str, bases: Numbers, ids: Numbers) -> tuple[NDArray[np.int64], int]:
        """Return which rows of a table have the id of one gene and the symbol of another, and how many have both."""
        both = np.flatnonzero((bases != NO_TEXT) & self._is_known(ids))
        today = self.symbols_today(ids[both])
        unlike = both[(other := bases[both] != today)]
        unlike = unlike[self._loose.of(bases[unlike]) != self._loose.of(today[other])]
        book = self._book(name) if len(unlike) >= FEWEST_CROSSED else None
        if book is None:
            return unlike[:0], len(both)
        pairs = zip(self.texts.named(bases[unlike]), self.texts.named(ids[unlike]), strict=True)
        return unlike[[is_of_another(symbol, gene_id, book) for symbol, gene_id in pairs]], len(both)

    def _note_orders(self, bases: Numbers, ids: Numbers, places: NDArray[np.int64]) -> None:
        """Note the order of ids of each symbol that has several in a table.

        Parameters
        ----------
        places
            A row of each distinct pair, sorted by the numbers of symbols.
        """
        symbols = bases[places]
        several = np.zeros(len(symbols), bool)
        several[1:] = again = symbols[1:] == symbols[:-1]
        several[:-1] |= again
        rows = np.sort(places[several])
        orders: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for symbol, gene_id in zip(self.texts.named(bases[rows]), self.texts.named(ids[rows]), strict=True):
            orders[symbol][gene_id] = None
        for symbol, order in orders.items():
            self.order_of.setdefault(symbol, set()).add(tuple(order))

    def _same_annotation(self, name: str) -> tuple[list[str], dict[str, tuple[str, ...]]]:
        """Return the tables with ids that have the symbols of a table, and the ids of each in the largest, in order."""
        symbols = {*self.texts.named(self.identities(name)[1])}
        tables = self._annotations.same(symbols - {""})
        found: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for table in tables[:1]:
            rows, bases = self.identities(table)
            for symbol, gene_id in zip(self.texts.named(bases), self.texts.named(rows.ids), strict=True):
                if gene_id and symbol:
                    found[loose(symbol)][gene_id] = None
        return tables, {symbol: tuple(ids) for symbol, ids in found.items()}

    def _of_annotation(self, name: str, symbol: str) -> tuple[str, ...]:
        """Return the ids of a symbol in the tables of the same annotation, in order; none if they do not agree."""
        tables, ids_of = self.same_annotation(name)
        ids = ids_of.get(loose(symbol), ())
        one_order = len(tables) == 1 or len(ids) < 2 or len(self.order_of.get(symbol, ())) == 1
        return ids if ids and one_order and self._annotations.agree(tables, symbol, ids) else ()

    def _find_retired(self, unknown: Mapping[str, set[str]]) -> None:
        """Find the current id of retired ones: never one that a table has beside it, nor that of two rows."""
        of_tables = {name: self._book(name) for name in self.names} if unknown else {}
        books = list({id(book): book for book in of_tables.values() if book}.values())
        for gene_id, symbols in unknown.items():
            found: set[str] = set()
            for symbol in symbols:
                for book in books:
                    found.update(book.current.get(symbol) or book.previous.get(symbol) or ())
            if len(found) == 1:
                self.retired[gene_id] = found.pop()
        old, today = self.texts.numbers([*self.retired]), self.texts.numbers([*self.retired.values()])
        keeps = np.ones(len(old), bool)
        for name in self.names if self.retired else ():
            there = self.texts.among(self.identities(name)[0].ids)
            rows = np.flatnonzero(keeps & there[old])
            _, genes, times = np.unique(today[rows], return_inverse=True, return_counts=True)
            keeps[rows] = (times[genes] == 1) & ~there[today[rows]]
        self.retired = {gene_id: new for (gene_id, new), keep in zip(self.retired.items(), keeps, strict=True) if keep}

    def symbol(self, symbol: str, book: SymbolBook | None) -> Symbol:
        """Return what a symbol may stand for: by the first of mapping, tables and reference that has it."""
        if symbol in self.mapping:
            return Symbol(tuple(self.mapping[symbol]), "mapping")
        if SEVERAL in symbol:  # whatever it counts is of all of them
            return Symbol((), "ambiguous")
        if symbol in self.ids_of:
            return self._current(self.ids_of[symbol], "files")
        if book and symbol in book.current:
            return Symbol(tuple(book.current[symbol]), "reference")
        spelled = self._by_spelling.get(loose(symbol), set())
        if len(spelled) == 1:
            return self._current(self.ids_of[next(iter(spelled))], "spelling")
        if book:
            steps = (("spelling", book.current_loose, loose(symbol)), ("previous", book.previous, symbol),
                     ("alias", book.aliases, symbol))  # fmt: skip
            for how, names, key in steps:
                if key in names:
                    return Symbol(tuple(names[key]), how)
        return Symbol((), "symbol")

    def _current(self, ids: Iterable[str], how: str) -> Symbol:
        """Return ids with those of today for retired ones."""
        return Symbol(tuple(dict.fromkeys(self.retired.get(gene_id, gene_id) for gene_id in ids)), how)

    def choose(self, symbol: str, found: Symbol, book: SymbolBook | None) -> Symbol:
        """Return the one id that an ambiguous symbol goes to, or none."""
        ids = found.ids
        if len(ids) < 2:
            return found
        measured = tuple(gene_id for gene_id in ids if gene_id in self.measured)
        if len(measured) == 1:
            return Symbol(measured, "files")
        among = measured or ids
        today = set(book.current.get(symbol, ())) if book else set()
        first = (
            [gene_id for gene_id in among if gene_id in today],
            [gene_id for gene_id in among if gene_id not in self.measured or gene_id in self.reference.places],
            self.reference.primary(among),
            [gene_id for gene_id in among if not gene_id.endswith("_PAR_Y")],
            self._most_named(symbol, among),
        )
        chosen = next((ids[0] for ids in first if len(ids) == 1), "")
        return Symbol((chosen,), "primary") if chosen else Symbol((), "ambiguous")

    def _most_named(self, symbol: str, ids: Sequence[str]) -> list[str]:
        """Return those of several ids that most tables have beside a symbol."""
        times = [self._pairs.of(symbol, gene_id) for gene_id in ids]
        most = max(times)
        return [gene_id for gene_id, n in zip(ids, times, strict=True) if n == most]

    def rows(self, name: str) -> Rows:
        """Return the genes of a table's rows."""
        found, bases = self.identities(name)
        ids, how = self._by_id(found)
        if name in self.crossed:
            how[self._crossed(name, bases, found.ids)[0]] = WAYS.index(CROSSED)
        self._set_others_apart(name, bases, ids, how)
        if ids.all():  # most tables: nothing is to be found
            return Rows(ids, bases, found.symbols, how)
        self._find_by_symbol(name, bases, ids, how)
        self._set_markers_apart(bases, ids, how)
        self._keep_apart(ids, how)
        names = np.where(np.isin(how, LEFT_OUT), NO_TEXT, found.symbols)
        return Rows(ids, bases, self._told_apart(names, ids), how)

    def _by_id(self, found: Identities) -> tuple[Numbers, NDArray[np.int8]]:
        """Return the ids that rows bring along."""
        ids, how = found.ids.copy(), np.full(len(found.ids), UNTOLD, np.int8)
        how[ids != NO_TEXT] = WAYS.index("id")
        how[[*found.entrez]] = WAYS.index("entrez")
        if self.retired:
            of_today = np.full(len(self.texts), NO_TEXT, np.int32)
            of_today[self.texts.numbers([*self.retired])] = self.texts.numbers([*self.retired.values()])
            rows = np.flatnonzero(of_today[ids])
            ids[rows], how[rows] = of_today[ids[rows]], WAYS.index("retired id")
        for row, kind in found.no_gene.items():
            how[row] = WAYS.index(kind)
        return ids, how

    def _find_by_symbol(self, name: str, bases: Numbers, ids: Numbers, how: NDArray[np.int8]) -> None:
        """Find the genes of rows that have no id, by their symbols."""
        rows = np.flatnonzero((ids == NO_TEXT) & ~np.isin(how, LEFT_OUT))
        book = self._book(name)
        genes, ways = self.only_candidates(book.species if book else "")
        ids[rows], how[rows] = genes.of(bases[rows]), ways.of(bases[rows])
        _, of_symbol, times = np.unique(bases[rows], return_inverse=True, return_counts=True)
        rows = rows[(times[of_symbol] > 1) | (how[rows] == UNTOLD)]
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for row, symbol in zip(rows.tolist(), self.texts.named(bases[rows]), strict=True):
            groups[symbol].append(row)
        for symbol, of_group in groups.items():
            for row, choice in zip(of_group, self._choices(name, symbol, len(of_group), book), strict=True):
                ids[row], how[row] = self.texts.number("".join(choice.ids)), WAYS.index(choice.how)

    def _only_candidates(self, species: str) -> tuple[OfTexts, OfTexts]:
        """Return what tells the gene of a symbol of a species, and how, unless it may stand for several."""

        def genes(names: list[str]) -> Numbers:
            found = (self.candidates(name, species).ids for name in names)
            return self.texts.numbers(["" if len(ids) > 1 else "".join(ids) for ids in found])

        def ways(names: list[str]) -> list[int]:
            found = (self.candidates(name, species) for name in names)
            return [UNTOLD if len(symbol.ids) > 1 else WAYS.index(symbol.how) for symbol in found]

        return OfTexts(self.texts, genes), OfTexts(self.texts, ways)

    def _set_others_apart(self, name: str, symbols: Numbers, ids: Numbers, how: NDArray[np.int8]) -> None:
        """Let a row that shares its id with others be a gene of its own, if its symbol is that of another gene."""
        rows = shared(ids)
        if not len(rows) or not (book := self._book(name)):
            return
        pairs = zip(self.texts.named(symbols[rows]), self.texts.named(ids[rows]), strict=True)
        rows = rows[[is_of_another(symbol, gene_id, book) for symbol, gene_id in pairs]]
        ids[rows], how[rows] = NO_TEXT, WAYS.index("apart")

    def _candidates(self, symbol: str, species: str) -> Symbol:
        """Return what a symbol of a species may stand for."""
        return self.symbol(symbol, self.reference.book(species) if species else None)

    def _choices(self, name: str, symbol: str, times: int, book: SymbolBook | None) -> list[Symbol]:
        """Return the gene of each of the rows of a table that have one symbol."""
        found = self.candidates(symbol, book.species if book else "")
        if times == 1 and len(found.ids) < 2:
            return [found]
        if found.how != "mapping" and len(ids := self._of_annotation(name, symbol)) == times:
            return [self._current([gene_id], "files" if times == 1 else "order") for gene_id in ids]
        if times == 1:
            return [self.choose(symbol, found, book)]
        orders = {found.ids} if found.how == "mapping" else self.order_of.get(symbol, set())
        order = next(iter(orders)) if len(orders) == 1 else ()
        if len(order) == times:
            return [Symbol((self.retired.get(gene_id, gene_id),), "order") for gene_id in order]
        return [Symbol((), "apart")] * times

    def _set_markers_apart(self, symbols: Numbers, ids: Numbers, how: NDArray[np.int8]) -> None:
        """Let rows that are called as antibodies are be genes of their own, where a table has several such.

        ``CD56`` is an alias of NCAM1, and the name of its antibody; no gene is
        called ``CD45RA``. A file that says of its features which are genes has
        no such rows.
        """
        rows = np.flatnonzero(np.isin(how, [WAYS.index("alias"), WAYS.index("symbol")]))
        rows = rows[[bool(MARKER.fullmatch(symbol)) for symbol in self.texts.named(symbols[rows])]]
        if len(rows) >= FEWEST_MARKERS:
            ids[rows], how[rows] = NO_TEXT, WAYS.index("marker")

    def _keep_apart(self, ids: Numbers, how: NDArray[np.int8]) -> None:
        """Let no two rows share a gene by guess: the more certain one keeps it."""
        rows = shared(ids)
        rows = rows[np.lexsort((rows, how[rows], ids[rows]))]  # ways are in order of their certainty
        second = np.zeros(len(rows), bool)
        second[1:] = ids[rows[1:]] == ids[rows[:-1]]
        guessed = rows[second & ~np.isin(how[rows], BY_ID)]
        ids[guessed], how[guessed] = NO_TEXT, WAYS.index("apart")

    def _told_apart(self, names: Numbers, ids: Numbers) -> Numbers:
        """Return names in which those of rows without an id are unlike."""
        if not len(shared(np.where(ids == NO_TEXT, names, NO_TEXT))):
            return names
        return self.texts.numbers(told_apart(self.texts.named(names), self.texts.named(ids)))


def shared(genes: Numbers) -> NDArray[np.int64]:
    """Return the rows of genes that several rows are."""
    ordered = np.sort(genes)
    several = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    return np.flatnonzero(np.isin(genes, several[several != NO_TEXT]))


def is_of_another(symbol: str, gene_id: str, book: SymbolBook) -> bool:
    """Whether a symbol is that of another gene today, and has never been that of a gene."""
    others = book.current.get(symbol, ())
    return bool(others) and gene_id not in (*others, *book.previous.get(symbol, ()), *book.aliases.get(symbol, ()))


def told_apart(names: Sequence[str], ids: Sequence[str]) -> list[str]:
    """Return names in which those of rows without an id are unlike: a second one gets a number, as anndata does it."""
    there = set(names)
    seen: Counter[str] = Counter()
    unlike = []
    for name, gene_id in zip(names, ids, strict=True):
        if name and not gene_id and name in seen:
            base, name = name, f"{name}-{seen[name]}"
            while name in there:
                seen[base] += 1
                name = f"{base}-{seen[base]}"
            seen[base] += 1
            there.add(name)
        elif name and not gene_id:
            seen[name] = 1
        unlike.append(name)
    return unlike
