"""The gene tables of a run and a reference in, the gene that each row of a table is out.

A row that brings an id is that gene. Another one is the gene that its symbol
stands for: by ``genes.mapping``, by the files that have ids and symbols, by
the reference; docs/genes.md is these rules in words.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from scvae_data.processing.genes.identity import Identities, identify, originals
from scvae_data.processing.genes.names import ENSEMBL, genome_names, infer_species
from scvae_data.processing.genes.reference import Reference, SymbolBook, loose
from scvae_data.readers.base import GeneTable

__all__ = ["APART", "BY_ID", "HOW", "LEFT_OUT", "Evidence", "Rows", "Symbol"]

HOW = {
    "id": "the row has an id",
    "retired id": "its id is retired, and its symbol names one gene today",
    "entrez": "its name is an Entrez id",
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
    "no name": "left out: it has no name",
    "a date": "left out: a spreadsheet made a date of its symbol",
}
"""How a row found its gene."""
BY_ID = ("id", "retired id", "entrez")
APART = ("ambiguous", "apart")
LEFT_OUT = ("no name", "a date")
LEAST_KNOWN = 0.5
"""Share of a table's names that a species must know for its reference to be asked, and to call an id retired."""

Load = Callable[[str], GeneTable]


@dataclass(frozen=True)
class Symbol:
    """Ids that a symbol may stand for, and how that is known."""

    ids: tuple[str, ...]
    how: str


@dataclass(frozen=True)
class Rows:
    """The genes of one table's rows; lists of length n_vars.

    Parameters
    ----------
    ids
        The id of the gene, empty where none is known.
    symbols
        The symbol, as it was before names were made unique; empty where a row has none.
    names
        What to call a gene without an id; empty for rows that are left out.
    how
        A key of `HOW` each.
    """

    ids: list[str]
    symbols: list[str]
    names: list[str]
    how: list[str]


@dataclass
class Evidence:
    """What all tables say together.

    Parameters
    ----------
    names
        The tables, in an order that does not depend on that of the files.
    load
        Reads a table by its name.
    mapping
        Symbol to its ids, from `GeneRules.mapping` and from a list of genes; it goes before the tables.
    reference
        Goes after them.
    """

    names: Sequence[str]
    load: Load
    mapping: Mapping[str, Sequence[str]]
    reference: Reference
    species: dict[str, list[str]] = field(default_factory=dict)
    genomes: set[str] = field(default_factory=set)
    measured: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    retired: dict[str, str] = field(default_factory=dict)
    ids_of: dict[str, dict[str, None]] = field(default_factory=dict)
    order_of: dict[str, set[tuple[str, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.identities = lru_cache(maxsize=16)(self._identities)
        self._judge_species()
        unknown: defaultdict[str, set[str]] = defaultdict(set)
        for name in self.names:
            self._collect(name, unknown)
        self._find_retired(unknown)
        self._by_spelling: defaultdict[str, set[str]] = defaultdict(set)
        for symbol in self.ids_of:
            self._by_spelling[loose(symbol)].add(symbol)

    @property
    def has_ids(self) -> bool:
        """Whether any table, or the mapping, has ids: genes are called by id, else by symbol."""
        return bool(self.measured or self.mapping)

    def _identities(self, name: str) -> tuple[Identities, list[str]]:
        """Return what a table's rows are called, and their symbols before these were made unique."""
        book = self._book(name)
        own = {*book.current, *book.previous} if book else set()
        found = identify(self.load(name), self.reference, book.current if book else ())
        return found, originals(found.symbols, own)

    def _book(self, name: str) -> SymbolBook | None:
        """Return what symbols stand for in the species of a table; None if it is of none, or of several."""
        species = self.species[name]
        return self.reference.book(species[0]) if len(species) == 1 else None

    def _judge_species(self) -> None:
        """Say of which species each table is: by its names, else the run's only one, else by the symbols known."""
        self.species = {name: infer_species(self.load(name)) for name in self.names}
        of_run = {species for found in self.species.values() for species in found}
        for name, found in self.species.items():
            if not found and len(of_run) == 1:
                found.extend(of_run)
            elif not found:
                symbols = set(identify(self.load(name), Reference()).symbols) - {""}
                found.extend(self.reference.species_of(symbols, LEAST_KNOWN))

    def _collect(self, name: str, unknown: dict[str, set[str]]) -> None:
        """Note the ids of a table, the symbols beside them, and the order of ids of one symbol."""
        rows, bases = self.identities(name)
        table = self.load(name)
        self.genomes.update(genome_names(list(table.symbols if table.symbols is not None else table.names)))
        ids = [gene_id for gene_id in rows.ids if gene_id]
        self.measured.update(ids)
        if not ids:
            return
        groups: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for row, (gene_id, symbol) in enumerate(zip(rows.ids, bases, strict=True)):
            if gene_id and symbol and row not in rows.entrez:
                groups[symbol][gene_id] = None
        for symbol, found in groups.items():
            self.ids_of.setdefault(symbol, {}).update(found)
            if len(found) > 1:
                self.order_of.setdefault(symbol, set()).add(tuple(found))
        known = dict(zip(ids, self.reference.knows(ids), strict=True))
        self.unknown.update(gene_id for gene_id, is_known in known.items() if not is_known)
        if sum(known.values()) >= LEAST_KNOWN * len(known):
            for gene_id, symbol in zip(rows.ids, bases, strict=True):
                if gene_id and symbol and not known[gene_id] and ENSEMBL.match(gene_id):
                    unknown[gene_id].add(symbol)

    def _find_retired(self, unknown: Mapping[str, set[str]]) -> None:
        """Find the current id of retired ones: never one that a table has beside it, nor that of two rows."""
        of_one = sorted({species[0] for species in self.species.values() if len(species) == 1})
        books = [self.reference.book(species) for species in of_one] if unknown else []
        for gene_id, symbols in unknown.items():
            found: set[str] = set()
            for symbol in symbols:
                for book in books:
                    found.update(book.current.get(symbol) or book.previous.get(symbol) or ())
            if len(found) == 1:
                self.retired[gene_id] = found.pop()
        for name in self.names if self.retired else ():
            ids = {gene_id for gene_id in self.identities(name)[0].ids if gene_id}
            times = Counter(self.retired.get(gene_id, gene_id) for gene_id in ids)
            for gene_id in ids & set(self.retired):
                if times[self.retired[gene_id]] > 1:
                    del self.retired[gene_id]

    def symbol(self, symbol: str, book: SymbolBook | None) -> Symbol:
        """Return what a symbol may stand for: by the first of mapping, tables and reference that has it."""
        if symbol in self.mapping:
            return Symbol(tuple(self.mapping[symbol]), "mapping")
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
            [gene_id for gene_id in among if gene_id not in self.unknown],
            self.reference.primary(among),
            [gene_id for gene_id in among if not gene_id.endswith("_PAR_Y")],
        )
        chosen = next((ids[0] for ids in first if len(ids) == 1), "")
        return Symbol((chosen,), "primary") if chosen else Symbol((), "ambiguous")

    def rows(self, name: str) -> Rows:
        """Return the genes of a table's rows."""
        found, bases = self.identities(name)
        ids, how = self._by_id(found)
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for row, symbol in enumerate(bases):
            if not ids[row] and row not in found.no_gene:
                groups[symbol].append(row)
        book = self._book(name)
        for symbol, rows in groups.items():
            for row, choice in zip(rows, self._choices(symbol, len(rows), book), strict=True):
                ids[row], how[row] = "".join(choice.ids), choice.how
        self._keep_apart(ids, how)
        names = [found.symbols[row] if how[row] not in LEFT_OUT else "" for row in range(len(ids))]
        return Rows(ids, bases, told_apart(names, ids), how)

    def _by_id(self, found: Identities) -> tuple[list[str], list[str]]:
        """Return the ids that rows bring along."""
        ids, how = [], []
        for row, gene_id in enumerate(found.ids):
            new = self.retired.get(gene_id, gene_id)
            kind = "retired id" if new != gene_id else "entrez" if row in found.entrez else "id" if gene_id else ""
            ids.append(new)
            how.append(kind or found.no_gene.get(row, ""))
        return ids, how

    def _choices(self, symbol: str, times: int, book: SymbolBook | None) -> list[Symbol]:
        """Return the gene of each of the rows of a table that have one symbol."""
        found = self.symbol(symbol, book)
        if times == 1:
            return [self.choose(symbol, found, book)]
        orders = {found.ids} if found.how == "mapping" else self.order_of.get(symbol, set())
        order = next(iter(orders)) if len(orders) == 1 else ()
        if len(order) == times:
            return [Symbol((self.retired.get(gene_id, gene_id),), "order") for gene_id in order]
        return [Symbol((), "apart")] * times

    def _keep_apart(self, ids: list[str], how: list[str]) -> None:
        """Let no two rows share a gene by guess: the more certain one keeps it."""
        certainty = {kind: place for place, kind in enumerate(HOW)}
        taken: defaultdict[str, list[int]] = defaultdict(list)
        for row, gene_id in enumerate(ids):
            if gene_id:
                taken[gene_id].append(row)
        for rows in taken.values():
            best = min(rows, key=lambda row: certainty[how[row]])
            for row in rows:
                if row != best and how[row] not in BY_ID:
                    ids[row], how[row] = "", "apart"


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
