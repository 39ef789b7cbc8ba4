"""The reference of genes: ids, symbols, older symbols, aliases and Entrez ids in, what a name stands for out."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.processing.genes.names import is_ensembl
from scvae_data.processing.settings.named_file import named_file
from scvae_data.remote.location import local_path

__all__ = ["BUILTIN", "COLUMNS", "JOINED_BY", "Reference", "SymbolBook", "load_reference", "loose"]

BUILTIN = Path(__file__).with_name("reference.parquet")
FIELDS = [(name, pa.string()) for name in ("id", "symbol", "species", "previous", "aliases", "entrez")]
FIELDS += [(name, pa.bool_()) for name in ("mitochondrial", "primary")]
COLUMNS = tuple(name for name, _ in FIELDS)
JOINED_BY = "|"
"""Between the entries of ``previous`` and ``aliases``."""


@cache
def loose(symbol: str) -> str:
    """Return what is left of a symbol when case and punctuation are not told apart.

    R turns dashes into dots, and puts an X before a digit, where a symbol
    becomes the name of a column.

    >>> loose("HLA.A"), loose("mt-Nd1"), loose("X7SK")
    ('hla-a', 'mt-nd1', '7sk')
    """
    text = re.sub(r"[^0-9a-z]+", "-", symbol.casefold())
    return text[1:] if re.match(r"x\d", text) else text


@dataclass(frozen=True)
class SymbolBook:
    """What symbols stand for in one species; ids in order of the reference.

    Parameters
    ----------
    species
        The species.
    current, previous, aliases
        Symbol to ids.
    current_loose
        The first of these by what `loose` leaves of the symbol.
    """

    species: str
    current: dict[str, list[str]]
    previous: dict[str, list[str]]
    aliases: dict[str, list[str]]
    current_loose: dict[str, list[str]]

    @cached_property
    def symbols(self) -> frozenset[str]:
        """Symbols of today, and earlier ones."""
        return frozenset((*self.current, *self.previous))


@dataclass(frozen=True)
class Reference:
    """Genes of many species.

    Parameters
    ----------
    table
        A row for each gene with the columns `COLUMNS`; ``previous`` and
        ``aliases`` are lists joined by a bar. ``primary`` tells which of
        several genes of one symbol the symbol is first of all.
    digest
        Hash of its content; empty for no genes.
    """

    table: Any = field(default_factory=lambda: pa.schema(FIELDS).empty_table())
    digest: str = ""

    @cached_property
    def _of_entrez(self) -> dict[str, str]:
        known = self.table.filter(pc.not_equal(self.table["entrez"], ""))
        return dict(zip(known["entrez"].to_pylist(), known["id"].to_pylist(), strict=True))

    @cached_property
    def _primary(self) -> frozenset[str]:
        return frozenset(self.table["id"].filter(self.table["primary"]).to_pylist())

    @cached_property
    def _books(self) -> dict[str, SymbolBook]:
        return {}

    @cached_property
    def places(self) -> dict[str, int]:
        """The row of each id."""
        return {gene_id: row for row, gene_id in enumerate(self.table["id"].to_pylist())}

    @cached_property
    def is_id(self) -> Callable[[str], bool]:
        """Tells whether a name is an id: Ensembl's by their form, others by the reference."""
        places = self.places
        return cache(lambda name: is_ensembl(name) or name in places)

    @cached_property
    def _species_of_rows(self) -> list[str]:
        return list(self.table["species"].to_pylist())

    def species_of_id(self, gene_id: str) -> str:
        """Return the species of an id, empty if it does not have it."""
        row = self.places.get(gene_id)
        return "" if row is None else self._species_of_rows[row]

    @cached_property
    def _symbol_places(self) -> dict[str, int]:
        """The row of each symbol in `_symbol_species`."""
        return {symbol: row for row, symbol in enumerate(self.table["symbol"].unique().to_pylist()) if symbol}

    @cached_property
    def _symbol_species(self) -> NDArray[np.bool_]:
        """Which species have which symbol, bool, (n_symbols + 1, n_species); none has the last one."""
        symbols, species = self.table["symbol"], self.table["species"]
        found = np.zeros((len(symbols.unique()) + 1, len(self.species)), bool)
        rows = pc.index_in(symbols, value_set=symbols.unique()).to_numpy()
        found[rows, pc.index_in(species, value_set=pa.array(self.species, pa.string())).to_numpy()] = True
        return found

    def symbol_species(self, symbols: Iterable[str]) -> NDArray[np.bool_]:
        """Return which of `species` have each symbol, bool, (n, n_species)."""
        rows = np.array([self._symbol_places.get(symbol, -1) for symbol in symbols], np.int64)
        return np.asarray(self._symbol_species[rows])

    def symbols(self, ids: Iterable[str]) -> list[str]:
        """Return the symbol of each id, empty where it has none; mitochondrial genes begin with ``MT-`` in any case.

        Classes of genes are told by these symbols, and not every species' have the prefix.
        """
        rows = pa.array([self.places.get(gene_id) for gene_id in ids], pa.int64())
        columns = (self.table[name].take(rows).to_pylist() for name in ("symbol", "mitochondrial"))
        return [prefixed(symbol or "", bool(is_mt)) for symbol, is_mt in zip(*columns, strict=True)]

    def primary(self, ids: Sequence[str]) -> list[str]:
        """Return those of several ids that their symbol stands for first of all."""
        return [gene_id for gene_id in ids if gene_id in self._primary]

    def of_entrez(self, number: str) -> str:
        """Return the id of an Entrez id, empty if there is none."""
        return self._of_entrez.get(number, "")

    def book(self, species: str) -> SymbolBook:
        """Return what symbols stand for in a species; made once."""
        if species not in self._books:
            self._books[species] = make_book(species, self.table.filter(pc.equal(self.table["species"], species)))
        return self._books[species]

    def species_of(self, symbols: Collection[str], least: float) -> list[str]:
        """Return the species that knows most of some symbols, if it knows the share ``least``; else none.

        Of equals human goes first, then mouse: short lists say little else.
        """
        best, n_known = self.best_species(self.symbol_species(symbols))
        return [best] if n_known and n_known >= least * len(symbols) else []

    def best_species(self, known: NDArray[np.bool_]) -> tuple[str, int]:
        """Return the species that has most of some symbols, and how many; ``known`` is of `symbol_species`."""
        first = {"human": 2, "mouse": 1}
        n_known = dict(zip(self.species, known.sum(axis=0).tolist(), strict=True))
        best = max(n_known, key=lambda name: (n_known[name], first.get(name, 0), name), default="")
        return best, n_known.get(best, 0)

    @cached_property
    def species(self) -> list[str]:
        """Names of the species."""
        return sorted(self.table["species"].unique().to_pylist())


def prefixed(symbol: str, mitochondrial: bool) -> str:
    """Return the symbol of a gene, with ``MT-`` before that of a mitochondrial one."""
    return f"MT-{symbol}" if mitochondrial and not symbol.upper().startswith("MT-") else symbol


def make_book(species: str, genes: Any) -> SymbolBook:
    """Return what symbols stand for among some genes."""
    found: list[defaultdict[str, list[str]]] = [defaultdict(list) for _ in range(4)]
    current, previous, aliases, current_loose = found
    columns = [genes[name].to_pylist() for name in ("id", "symbol", "previous", "aliases")]
    for gene_id, symbol, before, also in zip(*columns, strict=True):
        if symbol:
            current[symbol].append(gene_id)
            current_loose[loose(symbol)].append(gene_id)
        for names, book in ((before, previous), (also, aliases)):
            for name in filter(None, names.split(JOINED_BY)):
                book[name].append(gene_id)
    return SymbolBook(species, *map(dict, found))


@cache
def load_reference(path: str | None) -> Reference:
    """Read a reference, once per process: a parquet file, ``"builtin"``, or None for one without genes.

    Raises
    ------
    ConfigError
        It does not exist or is not such a table.
    """
    if path is None:
        return Reference()
    file = BUILTIN if path == "builtin" else local_path("genes.reference", path).expanduser()
    named_file("genes.reference", file, "give a parquet file, builtin or null")
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"genes.reference: {path} is not a parquet table: {error}") from error
    if missing := [name for name in COLUMNS if name not in table.column_names]:
        raise ConfigError(f"genes.reference: {path} lacks the columns {', '.join(missing)}; docs/genes.md lists them")
    return Reference(table.select(COLUMNS).cast(pa.schema(FIELDS)), hashlib.sha256(file.read_bytes()).hexdigest())
