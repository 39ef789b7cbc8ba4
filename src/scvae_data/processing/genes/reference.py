"""The reference of genes: ids, symbols, older symbols, aliases and Entrez ids in, what a name stands for out."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
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
from scvae_data.readers.gene_names import OTHER_ID
from scvae_data.remote.location import local_path

__all__ = ["BUILTIN", "COLUMNS", "JOINED_BY", "Reference", "SymbolBook", "load_reference", "loose"]

BUILTIN = Path(__file__).with_name("reference.parquet")
FIELDS = [(name, pa.string()) for name in ("id", "symbol", "species", "previous", "aliases", "entrez")]
FIELDS += [(name, pa.bool_()) for name in ("mitochondrial", "primary")]
COLUMNS = tuple(name for name, _ in FIELDS)
IN_BOOKS = ("id", "symbol", "previous", "aliases")
ENSEMBL, N_LETTERS = "ENS", 4
"""How ids of Ensembl begin, and by how many letters species are told apart."""
MANY = 300
"""So many ids are looked for in the reference at once."""
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
    """What symbols stand for in one species: symbol to ids, in order of the reference; made as it is asked for.

    Parameters
    ----------
    species
        The species.
    genes
        Its rows of the reference.
    """

    species: str
    genes: Any

    def __contains__(self, symbol: object) -> bool:
        """Whether a text is a symbol of today, or an earlier one."""
        return symbol in self.current or symbol in self.previous

    @cached_property
    def current(self) -> dict[str, list[str]]:
        """Symbols of today."""
        return ids_by(self._columns("symbol"))

    @cached_property
    def previous(self) -> dict[str, list[str]]:
        """Earlier symbols."""
        return self._listed("previous")

    @cached_property
    def aliases(self) -> dict[str, list[str]]:
        """Other names."""
        return self._listed("aliases")

    @cached_property
    def folded(self) -> set[str]:
        """Symbols of today in small letters."""
        return {symbol.casefold() for symbol in self.current}

    @cached_property
    def current_loose(self) -> dict[str, list[str]]:
        """What `loose` leaves of the symbols of today."""
        return ids_by((loose(symbol), gene_id) for symbol, gene_id in self._columns("symbol") if symbol)

    def _columns(self, name: str, genes: Any = None) -> Iterable[tuple[str, str]]:
        genes = self.genes if genes is None else genes
        return zip(genes[name].to_pylist(), genes["id"].to_pylist(), strict=True)

    def _listed(self, name: str) -> dict[str, list[str]]:
        some = self.genes.filter(pc.not_equal(self.genes[name], ""))
        return ids_by((one, gene_id) for names, gene_id in self._columns(name, some) for one in names.split(JOINED_BY))


class Places:
    """The row of each of many ids; those that begin alike are brought into order when one of them is asked for.

    Parameters
    ----------
    ids
        The ids, as an arrow column.
    """

    def __init__(self, ids: Any) -> None:
        self._ids = ids
        self._columns: dict[str, tuple[Any, NDArray[np.int64]]] = {}
        self._parts: dict[str, dict[str, int]] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, gene_id: str) -> bool:
        return gene_id in self._part(start_of(gene_id))

    def get(self, gene_id: str) -> int | None:
        """Return the row of an id, None if it is not there."""
        return self._part(start_of(gene_id)).get(gene_id)

    def rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each of some ids, -1 for those that are not there; int64, shape (n,)."""
        if len(ids) < MANY:
            return np.array([self._part(start_of(gene_id)).get(gene_id, -1) for gene_id in ids], np.int64)
        wanted = pa.array(ids, pa.string()).dictionary_encode()
        found = np.full(len(wanted.dictionary), -1)
        starts = pc.unique(pc.utf8_slice_codeunits(wanted.dictionary, 0, N_LETTERS)).to_pylist()
        for start in sorted({*map(start_of, starts)}):
            of_start, rows = self._column(start)
            at = pc.index_in(of_start, value_set=wanted.dictionary)
            found[at.drop_null().to_numpy()] = rows[at.is_valid().to_numpy()]
        return np.asarray(found[wanted.indices.to_numpy()])

    def _column(self, start: str) -> tuple[Any, NDArray[np.int64]]:
        """Return the ids that begin in a way, and their rows."""
        if start not in self._columns:
            chosen = pc.starts_with(self._ids, start) if start else pc.invert(pc.starts_with(self._ids, ENSEMBL))
            self._columns[start] = self._ids.filter(chosen), np.flatnonzero(chosen.to_numpy())
        return self._columns[start]

    def _part(self, start: str) -> dict[str, int]:
        """Return the ids that begin in a way with their rows: for those that are asked for one by one."""
        if start not in self._parts:
            of_start, rows = self._column(start)
            self._parts[start] = dict(zip(of_start.to_pylist(), rows.tolist(), strict=True))
        return self._parts[start]


def start_of(gene_id: str) -> str:
    """Return how an id of Ensembl begins, by its species; empty for all others."""
    return gene_id[:N_LETTERS] if gene_id.startswith(ENSEMBL) else ""


def ids_by(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the ids of each name, in order; an empty text is no name."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, gene_id in pairs:
        if name:
            found[name].append(gene_id)
    return dict(found)


@dataclass(frozen=True)
class Reference:
    """Genes of many species, read when they are asked for.

    Parameters
    ----------
    file
        A parquet table; None for no genes.
    digest
        Hash of its content; empty for no genes.
    """

    file: Path | None = None
    digest: str = ""

    @cached_property
    def table(self) -> Any:
        """A row for each gene with the columns `COLUMNS`.

        ``previous`` and ``aliases`` are lists joined by a bar. ``primary``
        tells which of several genes of one symbol the symbol is first of all.
        """
        if self.file is None:
            return pa.schema(FIELDS).empty_table()
        with as_parquet(self.file) as parquet:
            # Each thread would keep memory of its own.
            table = parquet.read(use_threads=False).select(COLUMNS).cast(pa.schema(FIELDS))
        pa.default_memory_pool().release_unused()
        return table

    def forget(self) -> None:
        """Let go of what was read; it is read again when it is asked for."""
        for name in self.__dict__.keys() - {one.name for one in fields(self)}:
            del self.__dict__[name]
        pa.default_memory_pool().release_unused()

    @cached_property
    def _of_entrez(self) -> dict[str, str]:
        known = self.table.filter(pc.not_equal(self.table["entrez"], ""))
        return dict(zip(known["entrez"].to_pylist(), known["id"].to_pylist(), strict=True))

    @cached_property
    def _of_hgnc(self) -> dict[str, str]:
        known = self.table.filter(pc.match_substring(self.table["aliases"], "HGNC:"))
        names = pc.extract_regex(known["aliases"], r"(?P<id>HGNC:\d+)")
        return dict(zip(pc.struct_field(names, "id").to_pylist(), known["id"].to_pylist(), strict=True))

    @cached_property
    def _primary(self) -> frozenset[str]:
        return frozenset(self.table["id"].filter(self.table["primary"]).to_pylist())

    @cached_property
    def _books(self) -> dict[str, SymbolBook]:
        return {}

    @cached_property
    def places(self) -> Places:
        """The row of each id."""
        return Places(self.table["id"])

    @cached_property
    def is_id(self) -> Callable[[str], bool]:
        """Tells whether a name is an id: those of databases by their form, others by the reference."""
        places = self.places
        return cache(lambda name: is_ensembl(name) or name in places or bool(OTHER_ID.fullmatch(name)))

    def like_ids(self, symbols: Sequence[str]) -> set[str]:
        """Return those of some distinct symbols that may be ids, or hold one."""
        rows = self.places.rows(symbols).tolist()
        return {symbol for symbol, row in zip(symbols, rows, strict=True) if row >= 0 or ENSEMBL in symbol}

    def species_of_id(self, gene_id: str) -> str:
        """Return the species of an id, empty if it does not have it."""
        row = self.places.get(gene_id)
        return "" if row is None else str(self.table["species"][row])

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

    def symbols(self, ids: Sequence[str]) -> list[str]:
        """Return the symbol of each id, empty where it has none.

        Mitochondrial genes begin with ``MT-`` in any case: classes of genes are told by these symbols, and not every
        species' have the prefix.
        """
        places = self.places.rows(ids)
        rows = pa.array(places, mask=places < 0)
        columns = (self.table[name].take(rows).to_pylist() for name in ("symbol", "mitochondrial"))
        return [prefixed(symbol or "", bool(is_mt)) for symbol, is_mt in zip(*columns, strict=True)]

    def primary(self, ids: Sequence[str]) -> list[str]:
        """Return those of several ids that their symbol stands for first of all."""
        return [gene_id for gene_id in ids if gene_id in self._primary]

    def of_number(self, number: str) -> str:
        """Return the id of an Entrez id, or of ``GeneID:7157`` or ``HGNC:11998``; empty if there is none."""
        if number.startswith("HGNC:"):
            return self._of_hgnc.get(number, "")
        return self._of_entrez.get(number.removeprefix("GeneID:"), "")

    def of_symbol_and_number(self, symbol: str, number: str) -> str:
        """Return the id of an Entrez id that has a symbol beside it; empty if that is not its symbol, or never was."""
        if not (gene_id := self.of_number(number)):
            return ""
        row = self.places.get(gene_id)
        names = [] if row is None else [str(self.table[name][row]) for name in ("symbol", "previous", "aliases")]
        return gene_id if symbol in {one for text in names for one in text.split(JOINED_BY)} else ""

    def book(self, species: str) -> SymbolBook:
        """Return what symbols stand for in a species; made once."""
        if species not in self._books:
            of_species = pc.equal(self.table["species"], species)
            self._books[species] = SymbolBook(species, self.table.select(IN_BOOKS).filter(of_species))
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
    with as_parquet(file) as parquet:
        missing = [name for name in COLUMNS if name not in parquet.schema_arrow.names]
    if missing:
        raise ConfigError(f"genes.reference: {path} lacks the columns {', '.join(missing)}; docs/genes.md lists them")
    return Reference(file, hashlib.sha256(file.read_bytes()).hexdigest())


@contextmanager
def as_parquet(file: Path) -> Iterator[pq.ParquetFile]:
    """Open a reference.

    Raises
    ------
    ConfigError
        It is no parquet table, or damaged.
    """
    try:
        with pq.ParquetFile(file) as parquet:
            yield parquet
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"genes.reference: {file} is not a parquet table: {error}") from error
