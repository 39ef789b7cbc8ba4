"""The reference of genes: ids, symbols, older symbols, aliases and Entrez ids in, what a name stands for out."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
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

__all__ = ["BUILTIN", "COLUMNS", "JOINED_BY", "Reference", "SymbolBook", "load_reference", "loose"]

BUILTIN = Path(__file__).with_name("reference.parquet")
FIELDS = [(name, pa.string()) for name in ("id", "symbol", "species", "previous", "aliases", "entrez")]
FIELDS += [(name, pa.bool_()) for name in ("mitochondrial", "primary")]
COLUMNS = tuple(name for name, _ in FIELDS)
JOINED_BY = "|"
"""Between the entries of ``previous`` and ``aliases``."""


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
    current, previous, aliases
        Symbol to ids.
    current_loose
        The first of these by what `loose` leaves of the symbol.
    """

    current: dict[str, list[str]]
    previous: dict[str, list[str]]
    aliases: dict[str, list[str]]
    current_loose: dict[str, list[str]]


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

    def _places(self, ids: Iterable[str]) -> Any:
        """Return the row of each id, null for those it does not have."""
        return pc.index_in(pa.array(list(ids), pa.string()), value_set=self.table["id"])

    def knows(self, ids: Iterable[str]) -> NDArray[np.bool_]:
        """Return which ids it has, bool, (n,)."""
        return np.array(self._places(ids).is_valid().to_pylist(), bool)

    def symbols(self, ids: Iterable[str]) -> list[str]:
        """Return the symbol of each id, empty where it has none; mitochondrial genes begin with ``MT-`` in any case.

        Classes of genes are told by these symbols, and not every species' have the prefix.
        """
        rows = self.table.select(["symbol", "mitochondrial"]).take(self._places(ids)).to_pylist()
        return [prefixed(row["symbol"] or "", bool(row["mitochondrial"])) for row in rows]

    def primary(self, ids: Sequence[str]) -> list[str]:
        """Return those of several ids that their symbol stands for first of all."""
        return [gene_id for gene_id in ids if gene_id in self._primary]

    def of_entrez(self, number: str) -> str:
        """Return the id of an Entrez id, empty if there is none."""
        return self._of_entrez.get(number, "")

    def book(self, species: str) -> SymbolBook:
        """Return what symbols stand for in a species; made once."""
        if species not in self._books:
            self._books[species] = make_book(self.table.filter(pc.equal(self.table["species"], species)))
        return self._books[species]

    def species_of(self, symbols: Collection[str], least: float) -> list[str]:
        """Return the species that knows most of some symbols, if it knows the share ``least``; else none.

        Of equals human goes first, then mouse: short lists say little else.
        """
        known = self.table.filter(pc.is_in(self.table["symbol"], value_set=pa.array(list(symbols), pa.string())))
        pairs = set(zip(known["species"].to_pylist(), known["symbol"].to_pylist(), strict=True))
        n_known = Counter(species for species, _ in pairs)
        first = {"human": 2, "mouse": 1}
        best = max(n_known, key=lambda name: (n_known[name], first.get(name, 0), name), default="")
        return [best] if best and n_known[best] >= least * len(symbols) else []

    @property
    def species(self) -> list[str]:
        """Names of the species."""
        return sorted(self.table["species"].unique().to_pylist())


def prefixed(symbol: str, mitochondrial: bool) -> str:
    """Return the symbol of a gene, with ``MT-`` before that of a mitochondrial one."""
    return f"MT-{symbol}" if mitochondrial and not symbol.upper().startswith("MT-") else symbol


def make_book(genes: Any) -> SymbolBook:
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
    return SymbolBook(*map(dict, found))


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
    file = BUILTIN if path == "builtin" else Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(f"genes.reference: {path} does not exist; give a parquet file, builtin or null")
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"genes.reference: {path} is not a parquet table: {error}") from error
    if missing := [name for name in COLUMNS if name not in table.column_names]:
        raise ConfigError(f"genes.reference: {path} lacks the columns {', '.join(missing)}; docs/genes.md lists them")
    return Reference(table.select(COLUMNS).cast(pa.schema(FIELDS)), hashlib.sha256(file.read_bytes()).hexdigest())
